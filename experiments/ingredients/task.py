"""The task of an experiment: its settings are ``name`` and the options of that task, at the task's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sacred import Ingredient

from experiments.recording.flat_configs import current_names
from experiments.recording.registered import RegisteredOptions
from tasks import TASKS, TaskDistribution

# What earlier versions recorded for every task, or for some that did not take it.
OF_EVERY_TASK = frozenset(
    {"size", "drawings", "protocol", "shrink", "data_root", "split_by", "split_seed", "seed", "styles"}
)

TASK_OPTIONS = RegisteredOptions("task", lambda name: TASKS[name], "hershey", ("split",))
task = Ingredient("task", save_git_info=False)  # a run records its sources itself
task.configurations.append(TASK_OPTIONS)


def build_task(config: Mapping[str, Any], split: str) -> TaskDistribution:
    """The task distribution that ``config`` describes, on one split. config: the ingredient's values, or recorded ones.

    Raises UnknownTaskError for a name that is not in ``TASKS``, ValueError for an option that the task does not take.
    """
    options = TASK_OPTIONS.read(current_names({"task": config})["task"], OF_EVERY_TASK)
    return TASKS[options.pop("name")](split=split, **options)

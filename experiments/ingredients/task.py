"""The task distribution of an experiment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sacred import Ingredient

from tasks import TASKS, ImageTasks

task = Ingredient("task")


@task.config
def _defaults() -> None:
    name = "hershey"  # noqa: F841  one of tasks.TASKS
    size = 20  # noqa: F841  pixels a side; tasks of a fixed size ignore it
    drawings = 20  # noqa: F841  hershey: drawings of each character
    protocol = "paper"  # noqa: F841  omniglot: "paper" (45-5 alphabets) or "background" (30-20)
    shrink = "maxpool"  # noqa: F841  omniglot: how 105 pixels become size
    data_root = None  # noqa: F841  None: METADENSITY_DATA, or a download into the user's cache
    seed = 0  # noqa: F841  of the episodes


def build_task(config: Mapping[str, Any], split: str) -> ImageTasks:
    """The task distribution that ``config`` (the ingredient's values) describes, on one split."""
    factory = TASKS[config["name"]]
    known = inspect.signature(factory).parameters
    options = {key: value for key, value in config.items() if key in known and key != "split"}
    return factory(split=split, **options)

"""The task distribution of an experiment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sacred import Ingredient

from tasks import TASKS, TaskDistribution

task = Ingredient("task")


@task.config
def _defaults() -> None:
    name = "hershey"  # one of tasks.TASKS
    size = 20
    drawings = 20
    protocol = "paper"
    shrink = "maxpool"
    data_root = None
    split_by = None  # hershey, omniglot: None for the committed split, "group" or "class" for one drawn by split_seed
    seed = 0
    if split_by is not None:
        split_seed = 0
    if name in ("hershey", "omniglot"):
        styles = 0
    if name in ("folder", "mirror", "emoji"):
        grey = False
        levels = 256
    if name in ("folder", "mirror"):
        folder = None
        fit = "crop"
    if name == "folder":
        min_images = 2
        splits = None
    if name == "mirror":
        crops = 0
        resize = None
    if name == "templates":  # only there, so that the configurations of other tasks stay as they were
        classes = 64
        shifts = 9
        flip = 0.05
        ink = 0.3
        variety = 1.0
        smooth = 0.0
        template_seed = 0


def build_task(config: Mapping[str, Any], split: str) -> TaskDistribution:
    """The task distribution that ``config`` (the ingredient's values) describes, on one split."""
    factory = TASKS[config["name"]]
    known = inspect.signature(factory).parameters
    options = {key: value for key, value in config.items() if key in known and key != "split"}
    return factory(split=split, **options)

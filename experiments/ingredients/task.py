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
    size = 20  # noqa: F841  pixels a side; tasks of a fixed size ignore it
    drawings = 20  # noqa: F841  hershey: drawings of each character
    protocol = "paper"  # noqa: F841  omniglot: "paper" (45-5 alphabets) or "background" (30-20)
    shrink = "maxpool"  # noqa: F841  omniglot: how 105 pixels become size
    data_root = None  # noqa: F841  None: METADENSITY_DATA, or a download into the user's cache
    split_by = None  # hershey, omniglot: None for the committed split, "group" or "class" for one drawn by split_seed
    seed = 0  # noqa: F841  of the episodes
    if split_by is not None:
        split_seed = 0  # noqa: F841
    if name in ("hershey", "omniglot"):
        styles = 0  # noqa: F841  further classes to train on for each, in styles of their own
    if name in ("folder", "mirror", "emoji"):
        grey = False  # noqa: F841  one channel of luminance
        levels = 256  # noqa: F841
    if name in ("folder", "mirror"):
        folder = None  # noqa: F841  a folder or zip of images, or one relative to data_root
        fit = "crop"  # noqa: F841  or "stretch"
    if name == "folder":
        least = 2  # noqa: F841  images a class must have
        splits = None  # noqa: F841  a JSON file of class names
    if name == "mirror":
        crops = 0  # noqa: F841  windows of each image; 0: the whole image, resized
        resize = None  # noqa: F841  with crops: shorter side first
    if name == "templates":  # only there, so that the configurations of other tasks stay as they were
        classes = 64  # noqa: F841  number of templates
        shifts = 9  # noqa: F841  of each template: 1, 9, 25, ...
        flip = 0.05  # noqa: F841  chance of a pixel to be flipped, up to 0.5: difficulty
        ink = 0.3  # noqa: F841  part of a template that is ink
        variety = 1.0  # noqa: F841  strength of the few-shot effect, from 0 (none) to 1
        smooth = 0.0  # noqa: F841  width in pixels of the blur that makes blots of the templates
        template_seed = 0  # noqa: F841  of the templates


def build_task(config: Mapping[str, Any], split: str) -> TaskDistribution:
    """The task distribution that ``config`` (the ingredient's values) describes, on one split."""
    factory = TASKS[config["name"]]
    known = inspect.signature(factory).parameters
    options = {key: value for key, value in config.items() if key in known and key != "split"}
    return factory(split=split, **options)

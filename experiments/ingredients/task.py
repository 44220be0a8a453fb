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
    size = 20  # pixels a side; tasks of a fixed size ignore it
    drawings = 20  # hershey: drawings of each character
    protocol = "paper"  # omniglot: "paper" (45-5 alphabets) or "background" (30-20)
    shrink = "maxpool"  # omniglot: how 105 pixels become size
    data_root = None  # None: METADENSITY_DATA, or a download into the user's cache
    split_by = None  # hershey, omniglot: None for the committed split, "group" or "class" for one drawn by split_seed
    seed = 0  # of the episodes
    if split_by is not None:
        split_seed = 0
    if name in ("hershey", "omniglot"):
        styles = 0  # further classes to train on for each, in styles of their own
    if name in ("folder", "mirror", "emoji"):
        grey = False  # one channel of luminance
        levels = 256
    if name in ("folder", "mirror"):
        folder = None  # a folder or zip of images, or one relative to data_root
        fit = "crop"  # or "stretch"
    if name == "folder":
        min_images = 2  # images a class must have
        splits = None  # a JSON file of class names
    if name == "mirror":
        crops = 0  # windows of each image; 0: the whole image, resized
        resize = None  # with crops: shorter side first
    if name == "templates":  # only there, so that the configurations of other tasks stay as they were
        classes = 64  # number of templates
        shifts = 9  # of each template: 1, 9, 25, ...
        flip = 0.05  # chance of a pixel to be flipped, up to 0.5: difficulty
        ink = 0.3  # part of a template that is ink
        variety = 1.0  # strength of the few-shot effect, from 0 (none) to 1
        smooth = 0.0  # width in pixels of the blur that makes blots of the templates
        template_seed = 0  # of the templates


def build_task(config: Mapping[str, Any], split: str) -> TaskDistribution:
    """The task distribution that ``config`` (the ingredient's values) describes, on one split."""
    factory = TASKS[config["name"]]
    known = inspect.signature(factory).parameters
    options = {key: value for key, value in config.items() if key in known and key != "split"}
    return factory(split=split, **options)

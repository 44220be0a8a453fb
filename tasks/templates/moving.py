"""Films of moving templates, whose optimum is known: bitmaps by shifts by velocities, and flips of pixels."""

from __future__ import annotations

import itertools
import os
from functools import cached_property
from typing import Any

import numpy as np

from metadensity.checks import require_count
from metadensity.files import sha256_of_arrays
from tasks.checks import split_parts
from tasks.templates.task import Bitmaps, TemplateTasks, drawn_templates

Offsets = list[tuple[int, int]]


class MovingTemplateTasks(TemplateTasks):
    """A task is one of ``classes`` templates, an example a film of it in motion; see ``moving_templates``.

    shifts, velocities: offsets down and right; every pair of one of each is equally likely. The others: as of
    ``TemplateTasks``, which draws and knows the optimum.
    """

    def __init__(self, *args: Any, frames: int, shifts: Offsets, velocities: Offsets, **more: Any) -> None:
        self.frames, self.shifts, self.velocities = frames, shifts, velocities
        super().__init__(*args, reach=0, **more)

    def _moved(self) -> Bitmaps:
        """``(classes, shifts * velocities, frames, height, width)``."""
        return np.stack([self.path(*each) for each in itertools.product(self.shifts, self.velocities)], axis=1)

    def path(self, shift: tuple[int, int], velocity: tuple[int, int]) -> Bitmaps:
        """All templates on one way, ``(classes, frames, height, width)``, before pixels are flipped."""
        places = [tuple(s + frame * v for s, v in zip(shift, velocity, strict=True)) for frame in range(self.frames)]
        return np.stack([np.roll(self.templates, place, axis=(1, 2)) for place in places], axis=1)

    @cached_property
    def fingerprint(self) -> str:
        """As that of ``TemplateTasks``, and of the shape of a film."""
        content = {"templates": self._drawn_from, "flip": np.array(self.flip), "shape": np.array(self.event_shape)}
        return sha256_of_arrays(content)


def moving_templates(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    size: int = 8,
    frames: int = 4,
    classes: int = 64,
    shifts: int = 9,
    velocities: int = 9,
    flip: float = 0.05,
    ink: float = 0.3,
    variety: float = 1.0,
    smooth: float = 0.0,
    template_seed: int = 0,
) -> MovingTemplateTasks:
    """Noisy films ``(1, frames, size, size)`` of ``classes`` random templates in motion; the optimum is known.

    In frame t the task's template lies ``shift + t * velocity`` pixels down and right, going on at the other side,
    shift and velocity uniform and new for each film; each pixel is then flipped with probability ``flip``. The support
    tells the template, the first frame the shift, the next ones the velocity: ``optimum`` is the exact p(x | support),
    a sum over all of them. The bitmaps are those of ``templates``, and as there the splits share them.

    split: "train", "validation", "test", or several joined by "+", which is one more stream.
    data_root: not used; the films are drawn.
    seed: fixes the episodes, not the templates.
    size: side of a frame in pixels, from 2. frames: of a film, from 1.
    classes: number of templates; more of them keep the first ones.
    shifts: how many places a film may begin at: none, then one pixel along each axis (5 with these), along both (9),
        then two, and so on.
    velocities: how many there are, likewise, in pixels a frame; the first is none.
    flip, ink, variety, smooth, template_seed: of the templates, see ``templates``.

    Raises ValueError for options out of range.
    """
    size = require_count("size", size, 2)
    frames = require_count("frames", frames, 1)
    classes = require_count("classes", classes, 1)
    ways = {name: _offsets(name, count, size) for name, count in (("shifts", shifts), ("velocities", velocities))}
    drawn = drawn_templates(size, classes, flip, ink, variety, smooth, template_seed)
    recipe: dict[str, Any] = {
        "task": "moving_templates",
        "version": 1,
        "size": size,
        "frames": frames,
        "classes": classes,
        "shifts": len(ways["shifts"]),
        "velocities": len(ways["velocities"]),
        "flip": float(flip),
        "ink": float(ink),
        "variety": float(variety),
        "smooth": float(smooth),
        "template_seed": int(template_seed),
    }
    return MovingTemplateTasks(
        "moving_templates",
        "+".join(split_parts("moving_templates", split)),
        seed,
        templates=drawn,
        flip=float(flip),
        recipe=recipe,
        frames=frames,
        **ways,
    )


def _offsets(name: str, count: int, size: int) -> Offsets:
    """The ``count`` nearest offsets of which no two are the same on ``size`` x ``size`` pixels; ValueError for more."""
    count, reach = require_count(name, count, 1), (size - 1) // 2
    steps = range(-reach, reach + 1)
    every = sorted(itertools.product(steps, steps), key=lambda at: (max(map(abs, at)), sum(map(abs, at)), at))
    if count > len(every):
        raise ValueError(f"{name}={count} with size={size}; give at most {len(every)}: no two of them may be the same.")
    return every[:count]

"""Synthetic tasks whose optimum is known: noisy, shifted copies of finitely many binary templates."""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from metadensity.files import sha256_of_arrays
from tasks.base import TaskDistribution
from tasks.checks import SPLITS, split_parts
from tasks.templates.density import TemplateDensity, noise_log_prob

Bitmaps = NDArray[np.bool_]
_PATTERN_STREAM = 2**64 - 1  # the second half of the random key, where episodes have their index


class TemplateTasks(TaskDistribution):
    """A task is one of ``classes`` templates, drawn uniformly; see ``templates`` for what an image is.

    templates: ``(classes, height, width)`` bool. reach: shifts go from -reach to reach in both directions.
    flip: chance of each pixel to be flipped, above 0 and at most 0.5.
    recipe: what determines the templates, as JSON-able values.

    support_ids and query_ids of an episode are 53-bit random numbers, functions of (seed, split, index) as the
    images are: the images are drawn without end and have no numbers of their own.
    """

    group_noun = "template"
    ink = True

    def __init__(
        self, name: str, split: str, seed: int, *, templates: Bitmaps, reach: int, flip: float, recipe: dict[str, Any]
    ) -> None:
        self.templates, self.reach, self.flip, self.recipe = templates, reach, flip, recipe
        classes, moved = len(templates), self._moved()
        super().__init__(name, split, seed, (1, *moved.shape[2:]), levels=2)
        self.class_names = [f"template {number}" for number in range(classes)]
        self.group_names, self.class_group = self.class_names, np.arange(classes)
        parts = split_parts(name, split)
        self._stream = sum(2 ** SPLITS.index(part) for part in parts)
        self._drawn_from = moved.reshape(*moved.shape[:2], -1)  # (classes, variants, pixels)

    def _moved(self) -> Bitmaps:
        """All that an image is before pixels are flipped, equally likely: ``(classes, variants, *space)``."""
        offsets = range(-self.reach, self.reach + 1)
        moved = [np.roll(self.templates, (down, right), axis=(1, 2)) for down in offsets for right in offsets]
        return np.stack(moved, axis=1)

    @property
    def classes(self) -> int:
        """Number of templates."""
        return len(self.templates)

    @property
    def variants(self) -> int:
        """Number of images that a template may be before pixels are flipped: its shifts."""
        return self._drawn_from.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the shifted templates and the chance of a flip. It does not depend on the seed."""
        return sha256_of_arrays({"templates": self._drawn_from, "flip": np.array(self.flip)})

    @property
    def noise_entropy(self) -> float:
        """Entropy of an image in nats where its template and shift are known: the floor that no support goes below."""
        return -self._drawn_from.shape[2] * (self.flip * math.log(self.flip) + (1 - self.flip) * math.log1p(-self.flip))

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``; see ``TaskDistribution.episode``. Task t is the same for any number of tasks.

        Images are independent given the task, queries first, so equal ones may be drawn, if rarely: with the
        default options a query equals a given support once in 5,400 times.
        """
        index = require_uint64("index", index)
        tasks = require_count("tasks", tasks, 1)
        shots = require_count("shots", shots, 0)
        queries = require_count("queries", queries, 1)
        images, dims = queries + shots, self._drawn_from.shape[2]
        uniform = np.empty((tasks, 1 + images * (2 + dims)))
        key = np.array([self.seed, index], dtype=np.uint64)
        for task, row in enumerate(uniform):
            # A stream of its own for each split and task, by the counter of a counter-based generator.
            bits = np.random.Philox(key=key, counter=(self._stream << 192) + (task << 128))
            np.random.Generator(bits).random(out=row)
        classes = (uniform[:, 0] * self.classes).astype(np.int64)
        chance = uniform[:, 1:].reshape(tasks, images, 2 + dims).swapaxes(0, 1)
        variant = (chance[..., 0] * self.variants).astype(np.int64)
        flipped = self._drawn_from[classes, variant] ^ (chance[..., 2:] < self.flip)
        pixels = torch.from_numpy(flipped.view(np.uint8)).view(images, tasks, *self.event_shape)
        numbers = torch.from_numpy((chance[..., 1] * 2**53).astype(np.int64))
        class_ids = torch.from_numpy(classes)
        return Episode(
            support=pixels[queries:],
            query=pixels[:queries],
            class_ids=class_ids,
            group_ids=class_ids.clone(),
            support_ids=numbers[queries:],
            query_ids=numbers[:queries],
        )

    def class_log_posterior(self, support: Tensor) -> Tensor:
        """log p(class | support), ``(tasks, classes)`` float64, of supports ``(S, tasks, 1, *space)``.

        p(class | support) is proportional to prod_i mean_s p(support_i | class, variant s). Raises ValueError for
        images of another shape or pixels other than 0 and 1.
        """
        if tuple(support.shape[2:]) != self.event_shape or support.ndim != len(self.event_shape) + 2:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; {self.name} takes (shots, tasks, "
                f"{', '.join(map(str, self.event_shape))})."
            )
        if support.numel() and not 0 <= int(support.min()) <= int(support.max()) <= 1:
            raise ValueError(
                f"support holds pixels from {int(support.min())} to {int(support.max())}; {self.name} has 0 and 1."
            )
        by_variant = noise_log_prob(support.flatten(2), self._components(support.device), self.flip)
        by_class = by_variant.unflatten(-1, (self.classes, self.variants)).logsumexp(-1)  # but for log(variants)
        return by_class.sum(0).log_softmax(-1)

    def optimum(self, episode: Episode) -> TemplateDensity:
        """p(x | support) = sum_c p(c | support) mean_s p(x | c, s), over all templates c and variants s; exact.

        Raises as ``class_log_posterior`` does.
        """
        by_class = self.class_log_posterior(episode.support) - math.log(self.variants)
        weights = by_class.repeat_interleave(self.variants, dim=-1)
        components = self._components(episode.support.device).view(-1, *self.event_shape)
        return TemplateDensity(components, weights, self.flip)

    def _components(self, device: torch.device) -> Tensor:
        flat = self._drawn_from.reshape(-1, self._drawn_from.shape[2])
        return torch.from_numpy(flat).to(device, torch.float64)


def templates(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    size: int = 8,
    classes: int = 64,
    shifts: int = 9,
    flip: float = 0.05,
    ink: float = 0.3,
    variety: float = 1.0,
    smooth: float = 0.0,
    template_seed: int = 0,
) -> TemplateTasks:
    """Noisy, shifted copies of ``classes`` random templates, binary, ``(1, size, size)``; the optimum is known.

    An image is the task's template, moved by one of ``shifts`` cyclic shifts (uniform, a new one for each image),
    each pixel then flipped with probability ``flip``. ``TemplateTasks.optimum`` is the exact p(x | support).

    Every split has the same templates and the same uniform prior over them; a split is a stream of episodes of its
    own. So the family measures inference from the support, and not generalisation to new classes: only where the
    classes at test are those that training could learn is there an optimum to compare with.

    split: "train", "validation", "test", or several joined by "+", which is one more stream.
    data_root: not used; the images are drawn.
    seed: fixes the episodes, not the templates.
    size: side of an image in pixels, from 2.
    classes: number of templates; more of them keep the first ones.
    shifts: 1, 9, 25, ...: all pairs of offsets of at most 0, 1, 2, ... pixels, at the sides the image goes on at
        the other side.
    flip: difficulty, above 0 and at most 0.5. Near 0 one support tells all; at 0.5 images are pure noise.
    ink: part of each template that is ink, strictly between 0 and 1; rounded to whole pixels, at least one of each.
    variety: strength of the few-shot effect, from 0 to 1: the chance of each place to be a template's own, not
        that of a pattern common to all. At 0 the templates are equal and the support tells nothing.
    smooth: 0 for templates of independent pixels; else the width in pixels of the Gaussian that blurs a template
        before its places of ink are chosen, which leaves blots of about that size.
    template_seed: fixes the templates.

    Raises ValueError for options out of range.
    """
    size = require_count("size", size, 2)
    classes = require_count("classes", classes, 1)
    shifts = require_count("shifts", shifts, 1)
    side = math.isqrt(shifts)
    if side**2 != shifts or side % 2 == 0 or side > size:
        raise ValueError(
            f"shifts={shifts} with size={size}; give the square of an odd number, such as 1, 9 or 25, of at most "
            "size pixels, so that no two shifts are the same."
        )
    drawn = drawn_templates(size, classes, flip, ink, variety, smooth, template_seed)
    recipe: dict[str, Any] = {
        "task": "templates",
        "version": 1,
        "size": size,
        "classes": classes,
        "shifts": shifts,
        "flip": float(flip),
        "ink": float(ink),
        "variety": float(variety),
        "smooth": float(smooth),
        "template_seed": int(template_seed),
    }
    return TemplateTasks(
        "templates",
        "+".join(split_parts("templates", split)),
        seed,
        templates=drawn,
        reach=side // 2,
        flip=float(flip),
        recipe=recipe,
    )


def drawn_templates(
    size: int, classes: int, flip: float, ink: float, variety: float, smooth: float, template_seed: int
) -> Bitmaps:
    """The templates ``(classes, size, size)`` of these options of ``templates``. ValueError for one out of range."""
    if not 0 < flip <= 0.5:
        raise ValueError(f"flip={flip}; give the chance of a pixel to be flipped, above 0 and at most 0.5.")
    if not 0 < ink < 1:
        raise ValueError(f"ink={ink}; give the part of a template that is ink, strictly between 0 and 1.")
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth={smooth}; give the width of a blur in pixels, 0 for none.")
    if not 0 <= variety <= 1:
        raise ValueError(f"variety={variety}; give the part of a template that is its own, from 0 to 1.")
    key = np.array([require_uint64("template_seed", template_seed), _PATTERN_STREAM], dtype=np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random((1 + 2 * classes, size, size))
    common, own, chosen = uniform[0], uniform[1::2], uniform[2::2]
    return _inked(_blurred(np.where(chosen < variety, own, common), smooth), ink)


def _blurred(fields: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """``(n, size, size)`` blurred by a Gaussian that goes around the edges as the shifts do."""
    if width == 0:
        return fields
    place = np.arange(fields.shape[1])
    away = np.abs(place[:, None] - place)
    kernel = np.exp(-0.5 * (np.minimum(away, len(place) - away) / width) ** 2)
    return kernel @ (fields - 0.5) @ kernel


def _inked(fields: NDArray[np.float64], ink: float) -> Bitmaps:
    """``(n, size, size)`` bitmaps with ink where a field is lowest, as many pixels in each."""
    flat = fields.reshape(len(fields), -1)
    count = min(max(round(ink * flat.shape[1]), 1), flat.shape[1] - 1)
    rank = flat.argsort(axis=1, kind="stable").argsort(axis=1)
    return (rank < count).reshape(fields.shape)

"""Tasks over a finite set of images held in memory, sorted by class."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from tasks.base import TaskDistribution
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import sha256_of_json
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.media import Medium
from tasks.splits.by_name import by_rule, read_split

DIGEST = 16
Ints = NDArray[np.int64]


def digest_of(image: NDArray[np.uint8]) -> bytes:
    """``DIGEST`` bytes by which the pixels of an image are known: BLAKE2b."""
    return hashlib.blake2b(image.tobytes(), digest_size=DIGEST).digest()


class ImageTasks(TaskDistribution):
    """A finite set of images; a task is one class, its images drawn without replacement.

    images: ``(n, C, *space)`` uint8 pixels in ``[0, levels)``, or, with ``packed=True`` and two levels,
        ``(n, bytes)`` uint8, each image's pixels in row-major order through ``numpy.packbits``.
    labels: ``(n,)`` class of each image, not decreasing; every class has an image.
    class_names, class_group: name and group of each class. group_names, group_noun: name of each group, of their kind.
    recipe: everything that determines the pixels, as JSON-able values. ink: see ``TaskDistribution``.
    lengths: of sequences ``(n, C, T)``, ``(n,)`` how many of the first places of each are real, which episodes then
        say as well; None: all.
    end: of strings ``(n, 1, T)``, the level that ends one; what follows costs nothing. Lengths count the end then, and
        episodes say those of queries alone: of a support the end tells, to any model. None: there is no such level.
    medium: see ``TaskDistribution.medium``; None: what the shape says.

    Classes are drawn independently and uniformly, with replacement: a batch is an i.i.d. draw of tasks,
    and may hold a class twice. Two-level images are held eight pixels to a byte, and a batch is a
    single gather.
    """

    def __init__(
        self,
        name: str,
        split: str,
        seed: int,
        *,
        images: NDArray[np.uint8],
        labels: ArrayLike,
        class_names: Sequence[str],
        group_names: Sequence[str],
        class_group: ArrayLike,
        event_shape: tuple[int, ...],
        levels: int,
        recipe: dict[str, Any],
        packed: bool = False,
        group_noun: str = "group",
        ink: bool = False,
        lengths: ArrayLike | None = None,
        end: int | None = None,
        medium: Medium | None = None,
    ) -> None:
        super().__init__(name, split, seed, event_shape, levels)
        self.group_noun = group_noun
        self.class_names = list(class_names)
        self.group_names = list(group_names)
        self.class_group: Ints = np.asarray(class_group, dtype=np.int64)
        self.recipe = recipe
        self.ink = ink
        self._medium = medium
        self._labels: Ints = np.asarray(labels, dtype=np.int64)
        self._check_labels()
        self.class_size: Ints = np.bincount(self._labels, minlength=len(self.class_names))
        self.class_start: Ints = np.concatenate([[0], np.cumsum(self.class_size)[:-1]]).astype(np.int64)
        if not self.class_size.all():
            empty = self.class_names[int(self.class_size.argmin())]
            raise ValueError(f"{name}: class {empty!r} has no image; leave it out of class_names.")
        self._dims = int(np.prod(self.event_shape))
        self._packed = self.levels == 2
        self._pixels = self._held(images, packed)
        self.end = end
        given = lengths if end is None else self._ended(images, end)
        self._lengths = None if given is None else self._checked_lengths(np.asarray(given, dtype=np.int64))
        # Slots beyond the size of a class sort last, so that they are never drawn.
        largest = int(self.class_size.max())
        self._smallest = int(self.class_size.argmin())
        self._equal_sizes = bool((self.class_size == largest).all())
        self._beyond = np.arange(largest) >= self.class_size[:, None]

    @classmethod
    def from_labelled(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        split: str = "train",
        seed: int = 0,
        *,
        name: str = "labelled",
        splits: str | os.PathLike[str] | None = None,
        levels: int = 256,
        ink: bool = False,
        min_images: int = 2,
        **more: Any,
    ) -> ImageTasks:
        """Images with a label each, in any order: ``ImageTasks.from_labelled(images, labels, split="test")``.

        images: ``(n, H, W)`` or ``(n, C, *space)``, uint8 pixels in ``[0, levels)``. labels: ``(n,)`` numbers or names;
            each is a class, and its own group.
        split, seed: as of every task. splits: None, a tenth of the classes each to test and validation, by the SHA-256
            of their names, so the same labels give the same split everywhere; or a file that says them, see
            ``tasks.splits.by_name``, whose ``write_split`` writes ``recipe["splits"]``.
        levels, ink: see the class. min_images: classes with fewer are left out, which is said. more: of the recipe.

        Raises TypeError and ValueError for arrays that do not fit, DataError where a split has no class.
        """
        parts, least = split_parts(name, split), require_count("min_images", min_images, 1)
        pixels, given = np.asarray(images), np.asarray(labels)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels
        if given.ndim != 1 or pixels.ndim < 3 or len(given) != len(pixels) or not len(given):
            raise ValueError(
                f"images have shape {np.shape(images)} and labels {given.shape}; give (n, H, W) or (n, C, *space), and "
                "(n,), a label for each of at least one image."
            )
        values, numbers, counts = np.unique(given, return_inverse=True, return_counts=True)
        names = [str(value) for value in values.tolist()]
        small = [label for label, count in zip(names, counts, strict=True) if count < least]
        kept = [label for label in names if label not in set(small)]
        where = f"{name}, {len(given):,} images,"
        if small:
            sizes = in_short(small)
            say_once(f"{where} {len(small)} of {len(names)} classes have fewer than {least} and are left out: {sizes}.")
        found = by_rule(kept, where) if splits is None else read_split(splits, names, where)
        chosen = [label for part in parts for label in found[part] if label in set(kept)]
        if not chosen:
            raise DataError(f"{where} has no class of {least} images in the split {split}. Give another split.")
        place = {label: number for number, label in enumerate(names)}
        rows = [np.flatnonzero(numbers == place[label]) for label in chosen]
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + json.dumps(given.tolist()).encode())
        return cls(
            name,
            "+".join(parts),
            seed,
            images=pixels[np.concatenate(rows)],
            labels=np.repeat(np.arange(len(chosen)), [len(each) for each in rows]),
            class_names=chosen,
            group_names=chosen,
            class_group=range(len(chosen)),
            event_shape=tuple(pixels.shape[1:]),
            levels=levels,
            group_noun="class",
            ink=ink,
            recipe={
                "task": name,
                "version": 1,
                "images_sha256": digest.hexdigest(),
                "splits": {part: found[part] for part in SPLITS},
                "split_sha256": sha256_of_json(found),
                "least": least,
                "ink": bool(ink),
                **more,
            },
        )

    def _check_labels(self) -> None:
        if not self.class_names:
            raise ValueError(f"{self.name}, split {self.split}: no classes; a task distribution needs at least one.")
        if self.class_group.shape != (len(self.class_names),):
            raise ValueError(f"class_group has shape {self.class_group.shape}; give one of {len(self.class_names)}.")
        for what, ids, end in (
            ("class_group", self.class_group, len(self.group_names)),
            ("labels", self._labels, len(self.class_names)),
        ):
            if ids.size and (ids.min() < 0 or ids.max() >= end):
                raise ValueError(f"{what} holds {ids.min()} to {ids.max()}; give indices from 0 to {end - 1}.")
        if self._labels.ndim != 1 or (np.diff(self._labels) < 0).any():
            raise ValueError("labels must be one-dimensional and sorted by class; sort the images by class first.")

    def _ended(self, images: NDArray[np.uint8], end: int) -> Ints:
        """Places up to the first end, it included, of each string; ValueError where anything else follows it."""
        ends = images.reshape(len(images), -1) == end
        if (np.diff(ends.astype(np.int8), axis=1) < 0).any():
            raise ValueError(f"{self.name}: something follows the end={end} of a string; fill it up with ends.")
        return np.minimum((~ends).sum(1) + 1, self.event_shape[-1])

    def _checked_lengths(self, lengths: Ints) -> Ints:
        if len(self.event_shape) != 2:
            raise ValueError(f"lengths are given for images of shape {self.event_shape}; only sequences have lengths.")
        if lengths.shape != self._labels.shape:
            raise ValueError(f"lengths have shape {lengths.shape}; one of each image is {self._labels.shape}.")
        if lengths.min() < 1 or lengths.max() > self.event_shape[-1]:
            raise ValueError(
                f"lengths are {lengths.min()} to {lengths.max()}; of {self.event_shape[-1]} places, 1 to all are real."
            )
        return lengths

    def _held(self, images: NDArray[np.uint8], packed: bool) -> NDArray[np.uint8]:
        if images.dtype != np.uint8:
            raise TypeError(f"images are {images.dtype}; give uint8 pixels in [0, {self.levels}).")
        if packed and not self._packed:
            raise ValueError(f"packed=True with levels={self.levels}; only two-level images are held packed.")
        count, width = len(self._labels), -(-self._dims // 8)
        expected = (count, width) if packed else (count, *self.event_shape)
        if images.shape != expected:
            raise ValueError(f"images have shape {images.shape}; {count} labels and this event shape need {expected}.")
        if packed:
            return np.ascontiguousarray(images)
        if images.size and int(images.max()) >= self.levels:
            raise ValueError(f"images hold {images.max()}; with levels={self.levels} pixels end at {self.levels - 1}.")
        flat = np.ascontiguousarray(images.reshape(count, self._dims))
        return np.packbits(flat, axis=1) if self._packed else flat

    @property
    def medium(self) -> Medium:
        """See ``TaskDistribution.medium``."""
        return super().medium if self._medium is None else self._medium

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def images(self) -> int:
        """Number of images, over all classes."""
        return len(self._labels)

    @property
    def labels(self) -> Ints:
        """Class of each image, ``(images,)``, not decreasing. A copy."""
        return self._labels.copy()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over pixels, shape, levels and lengths, labels and the names of classes and groups.

        Equal fingerprints: equal images under equal numbers. It does not depend on the seed.
        """
        return self._fingerprint(self._pixels, **({} if self._lengths is None else {"lengths": self._lengths.tolist()}))

    def _fingerprint(self, content: NDArray[Any], **more: Any) -> str:
        head = {name: getattr(self, name) for name in ("event_shape", "levels", "class_names", "group_names")}
        head |= {"class_group": self.class_group.tolist(), "class_size": self.class_size.tolist(), **more}
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        digest.update(content.tobytes())
        return digest.hexdigest()

    def pixels(self, ids: ArrayLike | Tensor) -> Tensor:
        """Images by number: ids of shape ``(...)`` give uint8 ``(..., C, *space)``.

        Raises IndexError for a number that is not in ``[0, images)``.
        """
        numbers = np.asarray(ids, dtype=np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self.images):
            raise IndexError(f"image numbers {numbers.min()} to {numbers.max()}; give 0 to {self.images - 1}.")
        return self._gather(numbers)

    def lengths(self, ids: ArrayLike | Tensor) -> Tensor | None:
        """How many places of these images count, int64 of the shape of ``ids``; None where all of all do."""
        return None if self._lengths is None else torch.from_numpy(self._lengths[np.asarray(ids, dtype=np.int64)])

    def support_lengths(self, ids: ArrayLike | Tensor) -> Tensor | None:
        """``lengths``, as far as a model has to be told those of supports: not of strings, which end by themselves."""
        return self.lengths(ids) if self.end is None else None

    def equal_to_one_of(self, other: ImageTasks) -> NDArray[np.bool_]:
        """Which images, ``(images,)``, have the pixels of one of ``other``. ValueError for other shapes or levels."""
        if (self.event_shape, self.levels) != (other.event_shape, other.levels):
            raise ValueError(
                f"{self.name} has images {self.event_shape} of {self.levels} levels, {other.name} {other.event_shape} "
                f"of {other.levels}; only images of one kind can be equal."
            )
        known = set(other._digests())
        return np.fromiter((digest in known for digest in self._digests()), dtype=bool, count=self.images)

    def _digests(self, chunk: int = 1024) -> Iterator[bytes]:
        """``digest_of`` each image, some images held at a time."""
        for start in range(0, self.images, chunk):
            yield from map(digest_of, self.pixels(range(start, min(start + chunk, self.images))).numpy())

    def _gather(self, ids: Ints) -> Tensor:
        flat = self._pixels.take(ids, axis=0)
        if self._packed:
            flat = np.unpackbits(flat, axis=-1, count=self._dims)
        return torch.from_numpy(flat).view(*ids.shape, *self.event_shape)

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``; see ``TaskDistribution.episode``.

        Each task permutes the images of its class; the first ``queries`` of the permutation are the
        queries and the next ``shots`` the supports. Task t is the same whatever the number of tasks.
        """
        return self._episode(index, tasks, shots, queries, 0)

    def grouped_episode(self, index: int, tasks: int, shots: int, queries: int, together: int) -> Episode:
        """``episode``, but its tasks come in blocks of ``together`` different classes of one group.

        The group is drawn uniformly among those with so many classes, then the classes; the last block may be smaller.
        Raises ValueError where no group has so many, and as ``episode``.
        """
        together = require_count("together", together, 1)
        if not self._pools(together):
            most = int(np.bincount(self.class_group).max())
            raise ValueError(
                f"together={together}, but the largest group of the {self.split} split of {self.name} has {most} "
                f"classes. Ask for at most {most} of one {self.group_noun}."
            )
        return self._episode(index, tasks, shots, queries, together)

    def _episode(self, index: int, tasks: int, shots: int, queries: int, together: int) -> Episode:
        """together: classes of one group in a row, see ``grouped_episode``; 0: each class is drawn by itself."""
        index = require_uint64("index", index)
        tasks = require_count("tasks", tasks, 1)
        shots = require_count("shots", shots, 0)
        queries = require_count("queries", queries, 1)
        self.require_room(shots, queries)
        classes, order = self._draw(index, tasks, queries + shots, together)
        ids = order.T + self.class_start[classes]
        pixels = self._gather(ids)
        numbers = torch.from_numpy(ids)
        return Episode(
            support=pixels[queries:],
            query=pixels[:queries],
            class_ids=torch.from_numpy(classes),
            group_ids=torch.from_numpy(self.class_group[classes]),
            support_ids=numbers[queries:],
            query_ids=numbers[:queries],
            support_lengths=self.support_lengths(ids[queries:]),
            query_lengths=self.lengths(ids[:queries]),
        )

    def _pools(self, together: int) -> list[Ints]:
        """The classes of each group that has ``together``."""
        return [pool for pool in self._classes_of_groups if len(pool) >= together]

    @cached_property
    def _classes_of_groups(self) -> list[Ints]:
        return [np.flatnonzero(self.class_group == group) for group in np.unique(self.class_group)]

    def _draw(self, index: int, tasks: int, images: int, together: int) -> tuple[Ints, Ints]:
        """Classes ``(tasks,)`` and, for each, the first ``images`` of a permutation of its images."""
        # Philox is counter-based: (seed, index) is its key, so episodes are independent streams without hashing.
        bits = np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64))
        generator = np.random.Generator(bits)
        uniform = generator.random((tasks, 1 + self._beyond.shape[1]))
        classes = (uniform[:, 0] * self.classes).astype(np.int64)
        if together:
            pools = self._pools(together)
            chosen = (uniform[::together, 0] * len(pools)).astype(np.int64)  # by the first task of each block
            classes = np.concatenate([generator.permutation(pools[each])[:together] for each in chosen])[:tasks]
        slots = uniform[:, 1:]
        if not self._equal_sizes:
            slots = np.where(self._beyond[classes], 2.0, slots)
        return classes, slots.argsort(axis=1)[:, :images]

    def require_room(self, shots: int, queries: int) -> None:
        """Raise ValueError where some class has fewer than ``shots + queries`` images.

        The smallest class decides, drawn or not: a run fails at its first step or never.
        """
        size = int(self.class_size[self._smallest])
        if shots + queries > size:
            raise ValueError(
                f"shots={shots} and queries={queries} need {shots + queries} different images, but class "
                f"{self.class_names[self._smallest]!r} of {self.name} ({self.split}) has {size}. "
                f"Ask for at most {size} together."
            )

"""Tasks over images of a pixel store, read from disk when they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tasks.folders.pixel_store import PixelStore
from tasks.images import ImageTasks, Ints


class StoredTasks(ImageTasks):
    """An ``ImageTasks`` whose pixels stay in a ``PixelStore``.

    rows: ``(stored,)`` which images of the store there are, in the order of ``labels``.
    mirrored: each stored image is two of the task's, numbers 2 i and 2 i + 1: itself, and flipped left to right.
    described: what else ``ImageTasks`` takes, ``labels`` among it, of its images (twice the rows where mirrored).
    """

    def __init__(
        self,
        name: str,
        split: str,
        seed: int,
        *,
        store: PixelStore,
        rows: ArrayLike,
        mirrored: bool = False,
        **described: Any,
    ) -> None:
        self._store, self._rows, self._mirrored = store, np.asarray(rows, dtype=np.int64), mirrored
        super().__init__(name, split, seed, images=np.empty(0, dtype=np.uint8), **described)

    def _held(self, images: NDArray[np.uint8], packed: bool) -> NDArray[np.uint8]:
        count = len(self._rows) * (2 if self._mirrored else 1)
        if count != len(self._labels) or self._store.pixels.shape[1:] != self.event_shape:
            raise ValueError(
                f"{len(self._labels)} labels of {self.event_shape} for {count} images of {self._store.pixels.shape[1:]}"
            )
        self._packed = False  # two-level images are stored a pixel to a byte
        return images

    def _gather(self, ids: Ints) -> Tensor:
        if not self._mirrored:
            return torch.from_numpy(self._store.pixels.take(self._rows[ids]))
        pixels = self._store.pixels.take(self._rows[ids // 2])
        flipped = ids % 2 == 1
        pixels[flipped] = pixels[flipped][..., ::-1]
        return torch.from_numpy(pixels)

    def _digests(self, chunk: int = 1024) -> Iterator[bytes]:
        """As ``ImageTasks._digests``: those of the store, without reading an image, but for mirrored ones."""
        if self._mirrored:
            return super()._digests(chunk)
        return (digest.tobytes() for digest in self._store.digests[self._rows])

    def require_room(self, shots: int, queries: int) -> None:
        """As ``ImageTasks.require_room``; the message says how to do without small classes, where some are larger."""
        try:
            super().require_room(shots, queries)
        except ValueError as problem:
            if self._equal_sizes:
                raise
            advice = f"; or leave smaller classes out when the task is built, with min_images={shots + queries}."
            raise ValueError(str(problem).removesuffix(".") + advice) from None

    @cached_property
    def fingerprint(self) -> str:
        """As ``ImageTasks.fingerprint``, over the digests of the images in place of their pixels."""
        return self._fingerprint(self._store.digests[self._rows], mirrored=self._mirrored)

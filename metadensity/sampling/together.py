"""The samplers of several densities in step with one another, each pixel decided once for all of them."""

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar

import torch
from torch import Tensor

from metadensity.drawing import Draws

Sampler = Callable[[Draws], Tensor]


class _Stopped(Exception):  # noqa: N818  no error: the others have ended
    """Ends a sampler that is no longer asked."""


@dataclass(frozen=True)
class _Asking(Draws):
    """Pixels that ``ask`` decides, given the logits of one sampler."""

    native: ClassVar[bool] = False
    ask: Callable[[Tensor], Tensor] = lambda logits: logits

    def levels(self, logits: Tensor) -> Tensor:
        return self.ask(logits)


class _InStep:
    """A sampler that waits at each pixel until it is told the level.

    It runs in a thread of its own, so that any sampler serves as it is; one of them computes at a time.
    """

    def __init__(self, sampler: Sampler, draws: Draws) -> None:
        self._sampler = sampler
        self._draws = _Asking(torch.zeros_like(draws.uniforms), ask=self._ask)
        self._told: SimpleQueue[Tensor | None] = SimpleQueue()
        self._given: SimpleQueue[Tensor | BaseException | None] = SimpleQueue()
        device = draws.uniforms.device.type  # what torch keeps for each thread
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        device, dtype, enabled = self._autocast
        try:
            if self._told.get() is not None:
                with torch.no_grad(), torch.autocast(device, dtype, enabled):
                    self._sampler(self._draws)
            self._given.put(None)
        except BaseException as error:
            self._given.put(error)

    def _ask(self, logits: Tensor) -> Tensor:
        self._given.put(logits)
        levels = self._told.get()
        if levels is None:
            raise _Stopped
        return levels.view(logits.shape[:-1])

    def next(self, levels: Tensor) -> Tensor | None:
        """Logits ``(N, levels)`` of the next pixel, after the level of the one before; None at the end."""
        self._told.put(levels)
        given = self._given.get()
        if isinstance(given, BaseException):
            raise given
        return None if given is None else given.reshape(-1, given.shape[-1])

    def end(self) -> None:
        """Let the thread end, wherever it is."""
        self._told.put(None)
        self._thread.join()


def draw_together(
    samplers: Sequence[Sampler],
    draws: Draws,
    event_shape: Sequence[int],
    combine: Callable[[list[Tensor]], Tensor],
    decided: Callable[[list[Tensor], Tensor], None] = lambda _found, _levels: None,
) -> Tensor:
    """Images whose pixels ``draws`` decides in raster order, each from logits that ``combine`` makes of all samplers'.

    samplers: each goes through images in raster order, all of them a pixel at a time. draws: ``(*sample, tasks, C,
    *space)``. combine: ``(N, levels)`` of as many of each sampler, N images. decided: told these and levels ``(N,)``.
    Raises what a sampler raises, and RuntimeError for one that goes through images in another way.
    """
    channels, *space = event_shape
    flat = draws.map(lambda part: part.reshape(-1, *event_shape))
    pixels = torch.zeros(flat.uniforms.shape, dtype=torch.long, device=flat.uniforms.device)
    levels = pixels.new_zeros(len(pixels))
    running = [_InStep(sampler, draws) for sampler in samplers]
    try:
        for *place, channel in itertools.product(*map(range, space), range(channels)):
            found = [each.next(levels) for each in running]
            known = [logits for logits in found if logits is not None]
            if any(len(logits) != len(pixels) for logits in known) or len(known) < len(running):
                raise RuntimeError("A sampler does not decide a pixel of all images before the next, in raster order.")
            index: Any = (slice(None), channel, *place)
            levels = flat.map(operator.itemgetter(index)).levels(combine(known))
            decided(known, levels)
            pixels[index] = levels
        if any(each.next(levels) is not None for each in running):
            raise RuntimeError("A sampler asks for more pixels than there are.")
    finally:
        for each in running:
            each.end()
    return pixels.view(draws.uniforms.shape)

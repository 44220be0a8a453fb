"""Drawing pixels: inverse-CDF sampling, and what decides a pixel while a sampler goes through an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Pixels by inverse-CDF sampling: known ones stay, the others are where the CDF reaches a uniform number.

    uniforms: in [0, 1), ``(*sample, tasks, C, *space)``, or any part or arrangement of it. known: the same shape,
    int64, -1 where a pixel is to be drawn; or None. temperature: what logits are divided by.
    report: told how many pixels were decided, each time that some were. native: whether a native kernel may decide in
    its place, given the same three.
    """

    native: ClassVar[bool] = True
    uniforms: Tensor
    known: Tensor | None = None
    temperature: float = 1.0
    report: Callable[[int], object] | None = None

    def map(self, part: Callable[[Tensor], Tensor]) -> Draws:
        """Those of a part, or in another arrangement."""
        return replace(self, uniforms=part(self.uniforms), known=None if self.known is None else part(self.known))

    def levels(self, logits: Tensor) -> Tensor:
        """The levels ``(...)`` int64 of pixels with logits ``(..., levels)``; called in the order of generation."""
        drawn = invert_cdf(logits if self.temperature == 1 else logits.double() / self.temperature, self.uniforms)
        self.decided()
        return drawn if self.known is None else torch.where(self.known >= 0, self.known, drawn)

    def decided(self) -> None:
        """Report that all these pixels were decided."""
        if self.report is not None:
            self.report(self.uniforms.numel())


@dataclass(frozen=True)
class Told(Draws):
    """Pixels that are all known, ``found`` the log-probabilities ``(..., levels)`` that each was told beside it."""

    native: ClassVar[bool] = False
    found: list[Tensor] = field(default_factory=list)

    def levels(self, logits: Tensor) -> Tensor:
        assert self.known is not None
        self.found.append(logits.log_softmax(-1))
        return self.known


def draw_uniforms(
    shape: Sequence[int], generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Uniform numbers in [0, 1) to invert CDFs at, in float32 at least whatever torch's default dtype.

    In bfloat16 there are too few: of 256 equally likely levels the first would come 1.49 times as often as it should.
    """
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
    return torch.rand(shape, generator=generator, device=device, dtype=dtype)


def invert_cdf(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The levels at which categorical distributions reach ``uniforms``: inverse-CDF sampling.

    logits: ``(..., levels)``; uniforms: ``(...)`` in [0, 1). Returns int64 levels ``(...)``.
    """
    cdf = logits.double().softmax(-1).cumsum(-1)  # in float32 ways to the same logits would part at many levels
    level = (uniforms.unsqueeze(-1) >= cdf).sum(-1)
    return level.clamp_(max=logits.shape[-1] - 1)  # a CDF that rounds to just below one

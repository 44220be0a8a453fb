"""Residual blocks over sequences, dilated: those of ByteNet, masked for decoders and not for encoders.

Sequences are ``(batch, places, features)``. All that works on features works place by place, layer norms included (a
norm over places would let the first see the last), so a block runs on one place at a time as it does on all: its
convolutions then have ``Rings`` of what they were given before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import is_plain
from metadensity.nn.dropout import Dropout
from metadensity.nn.functional.gated_layer import add_per_task
from metadensity.nn.functional.sequence_layers import multiplicative_unit, multiplicative_units, supports_units


class SequenceConv(nn.Module):
    """A dilated convolution of ``taps`` places. masked: the last of them is the current place, else the middle one.

    ``Rings`` are for masked ones alone.
    """

    def __init__(self, in_features: int, out_features: int, taps: int, dilation: int = 1, masked: bool = True) -> None:
        super().__init__()
        self.taps, self.dilation, self.masked = taps, dilation, masked
        self.reach = (taps - 1) * dilation
        self.linear = nn.Linear(taps * in_features, out_features)

    def forward(self, x: Tensor, rings: Rings | None = None) -> Tensor:
        """``(batch, places, in)`` to ``(batch, places, out)``; with ``rings``, which keep it, of one more place."""
        if rings is not None:
            return self.linear(torch.cat(rings.with_place(self, x), -1))
        before = self.reach if self.masked else self.reach // 2
        padded, places = F.pad(x, [0, 0, before, self.reach - before]), x.shape[1]
        taps = range(0, self.reach + 1, self.dilation)
        return self.linear(torch.cat([padded[:, tap : tap + places] for tap in taps], -1))


class Rings:
    """The places that the masked convolutions within ``module`` look back at, as many as each needs."""

    def __init__(self, module: nn.Module) -> None:
        convs = [part for part in module.modules() if isinstance(part, SequenceConv)]
        self._kept: dict[SequenceConv, deque[Tensor]] = {conv: deque(maxlen=conv.reach + 1) for conv in convs}

    def with_place(self, conv: SequenceConv, x: Tensor) -> list[Tensor]:
        """Keep ``x`` ``(batch, 1, in)``, what ``conv`` is given of the next place; returns what is at its taps."""
        kept = self._kept[conv]
        if not kept:
            kept.extend([torch.zeros_like(x)] * conv.reach)
        kept.append(x)
        return [kept[tap] for tap in range(0, conv.reach + 1, conv.dilation)]

    def forget(self, rows: Tensor) -> None:
        """Begin anew for these sequences, ``(batch,)`` bool: there are zeros before their next place."""
        for kept in self._kept.values():
            for place, x in enumerate(kept):
                kept[place] = x.masked_fill(rows.view(-1, 1, 1), 0)


class ResidualBlock(ABC, nn.Module):
    """x + block(x) over ``2 * planes`` features, through ``planes`` (Kalchbrenner et al. 2016, section 3.6, figure 3).

    What conditions a block is added to all that its convolutions give.
    context: features of a vector for all places; 0 for none. attended: of what is read at each place; 0 for none.
    dropout: of what the last 1 x 1 is given.
    """

    def __init__(
        self,
        planes: int,
        taps: int,
        dilation: int,
        masked: bool = True,
        context: int = 0,
        attended: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * planes)
        self.down = nn.Linear(2 * planes, planes)
        self.convs = nn.ModuleList(
            SequenceConv(planes, gates * planes, taps, dilation, masked) for gates in self.conv_widths
        )
        width = sum(self.conv_widths) * planes
        self.contexts = nn.Linear(context, width, bias=False) if context else None
        self.read = nn.Linear(attended, width, bias=False) if attended else None
        self.dropout = Dropout(dropout)
        self.up = nn.Linear(planes, 2 * planes)

    conv_widths: tuple[int, ...]  # of the convolutions, in planes

    def biases(self, vector: Tensor | None) -> list[Tensor]:
        """What the task vector ``(tasks, context)`` adds, ``(tasks, 1, features)``; none without one."""
        return [] if vector is None or self.contexts is None else [self.contexts(vector).unsqueeze(1)]

    def forward(
        self,
        x: Tensor,
        biases: list[Tensor],
        attended: Tensor | None = None,
        rings: Rings | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        """``(samples * tasks, places, 2 * planes)`` to the same.

        real: ``(samples * tasks, places, 1)``, 0 at places that convolutions are to take for what is beyond a border.
        """
        z = self.down(F.relu(self.norm(x)))
        return x + self.up(self.dropout(self.convolved(z, biases, attended, rings, real)))

    def convolved(
        self,
        z: Tensor,
        biases: list[Tensor],
        attended: Tensor | None = None,
        rings: Rings | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        """What the convolutions make of features ``(samples * tasks, places, planes)``: as many."""
        given, start = self.read(attended) if self.read is not None and attended is not None else None, 0
        for conv in self.convs:
            z = self.before(z) if real is None else self.before(z) * real
            convolved = conv(z, rings)
            here = slice(start, start := start + convolved.shape[-1])
            for bias in biases:
                convolved = add_per_task(convolved, bias[..., here])
            z = self.after(z, convolved if given is None else convolved + given[..., here])
        return z

    @abstractmethod
    def before(self, z: Tensor) -> Tensor:
        """What a convolution is given."""

    @abstractmethod
    def after(self, z: Tensor, convolved: Tensor) -> Tensor:
        """The features that come of what a convolution was given and what it made of that."""


class ReluBlock(ResidualBlock):
    """Norm, ReLU, 1 x 1, norm, ReLU, dilated 1 x k, norm, ReLU, 1 x 1 (figure 3, left): for translation."""

    conv_widths = (1,)

    def __init__(self, planes: int, *sizes: Any, **options: Any) -> None:
        super().__init__(planes, *sizes, **options)
        self.norms = nn.ModuleList(nn.LayerNorm(planes) for _ in range(2))

    def before(self, z: Tensor) -> Tensor:
        """See ``ResidualBlock``."""
        return F.relu(self.norms[0](z))

    def after(self, z: Tensor, convolved: Tensor) -> Tensor:
        """See ``ResidualBlock``."""
        return F.relu(self.norms[1](convolved))


class MultiplicativeBlock(ResidualBlock):
    """Norm, ReLU, 1 x 1, two multiplicative units, 1 x 1 (figure 3, right): for language models.

    A multiplicative unit (Kalchbrenner et al. 2016, "Video Pixel Networks", arXiv 1610.00527, section 4.1, as
    recalled) has of h, by dilated 1 x k each, gates and an update, and gives g1 . tanh(g2 . h + g3 . u):
    g1, g2, g3 = sigmoid(W_1..3 * h), u = tanh(W_4 * h).
    """

    conv_widths = (4, 4)

    def before(self, z: Tensor) -> Tensor:
        """See ``ResidualBlock``."""
        return z

    def after(self, z: Tensor, convolved: Tensor) -> Tensor:
        """See ``ResidualBlock``."""
        return multiplicative_unit(z, convolved)

    def convolved(
        self,
        z: Tensor,
        biases: list[Tensor],
        attended: Tensor | None = None,
        rings: Rings | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        """See ``ResidualBlock``; all at once, where a kernel can."""
        convs = [cast(SequenceConv, conv) for conv in self.convs]
        plain = [is_plain(conv, SequenceConv) and is_plain(conv.linear, nn.Linear) for conv in convs]
        plain.append(self.read is None or is_plain(self.read, nn.Linear))
        if rings is None and real is None and len(biases) < 2 and all(conv.masked for conv in convs) and all(plain):
            width, attended = 4 * z.shape[-1], None if self.read is None else attended
            kernels = [conv.linear.weight for conv in convs]
            own = biases[0].squeeze(1).split(width, -1) if biases else [z.new_zeros(1, width)] * len(convs)
            totals = [bias + conv.linear.bias for bias, conv in zip(own, convs, strict=True)]
            reads = [] if self.read is None or attended is None else self.read.weight.split(width)
            if supports_units(z, kernels, totals, reads, attended):
                return multiplicative_units(z, kernels, totals, reads, attended, convs[0].dilation)
        return super().convolved(z, biases, attended, rings, real)


BLOCKS: dict[str, type[ResidualBlock]] = {"relu": ReluBlock, "multiplicative": MultiplicativeBlock}

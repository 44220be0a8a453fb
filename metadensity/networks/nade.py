"""The network of a feed-forward NADE: one hidden layer that takes the places in one after another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.drawing import Draws
from metadensity.nn.inputs import to_unit_range


class NADENetwork(nn.Module):
    """h_t = sigmoid(c + sum_{u < t} W_u x_u), logits_t = b_t + V_t h_t; a site is a channel of a place, raster order.

    W, V: ``(sites, hidden)`` and ``(sites, levels, hidden)``. What a site takes in are its level in [-1, 1]. The bias c
    of the hidden layer is each task's own.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, hidden: int) -> None:
        super().__init__()
        self.event_shape, self.levels = tuple(event_shape), levels
        sites = math.prod(self.event_shape)
        self.inputs = nn.Parameter(torch.randn(sites, hidden) / math.sqrt(sites))
        self.outputs = nn.Parameter(torch.randn(sites, levels, hidden) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.zeros(sites, levels))

    def forward(self, pixels: Tensor, bias: Tensor) -> Tensor:
        """Logits ``(N, levels, C, *space)`` of images ``(N, C, *space)``; bias: ``(tasks, hidden)``, tasks fastest."""
        x = to_unit_range(pixels.movedim(1, -1).flatten(1), self.levels, self.inputs.dtype)
        taken = F.pad((x.unsqueeze(-1) * self.inputs).cumsum(1), (0, 0, 1, -1))  # (N, sites, hidden)
        hidden = (taken + bias.repeat(len(x) // len(bias), 1).unsqueeze(1)).sigmoid()
        logits = torch.einsum("nsh,slh->nls", hidden, self.outputs) + self.bias.T
        return logits.unflatten(-1, (*self.event_shape[1:], self.event_shape[0])).movedim(-1, 2)

    def draw(self, bias: Tensor, draws: Draws) -> Tensor:
        """Images ``(N, C, *space)``, each site at the cost of one row of the hidden layer."""
        channels, *space = self.event_shape
        pixels = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
        taken = bias.repeat(len(pixels) // len(bias), 1)
        for site, (*place, channel) in enumerate(itertools.product(*map(range, space), range(channels))):
            index: Any = (slice(None), channel, *place)
            logits = F.linear(taken.sigmoid(), self.outputs[site], self.bias[site])
            here = draws.map(lambda part, index=index: part[index]).levels(logits)  # type: ignore[misc]
            pixels[index] = here
            taken = taken + to_unit_range(here, self.levels, taken.dtype).unsqueeze(-1) * self.inputs[site]
        return pixels

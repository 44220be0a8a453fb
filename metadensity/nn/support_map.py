"""A map of the support set: features of all supports at every place of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import CONV
from metadensity.nn.encoders import activation, support_input


class SupportMap(nn.Module):
    """A U-shaped convolutional net over each support, then mean and maximum over the supports at each place.

    Supports ``(S, tasks, C, *space)`` give ``(tasks, 2 * features, *space)``. The net halves the space ``depth``
    times (doubling its features, never below 4 places a dimension) and comes back with a link at each size
    (Ronneberger et al. 2015, "U-Net"). At the smallest size each support also sees the mean over all of them, so
    that the supports agree on what they have in common (as in Zaheer et al. 2017, "Deep Sets").

    The learned null map takes part in mean and maximum as one more support: with none it stands alone, and the
    mean tells how many there are. Invariant to the order of the support. normed: see ``metadensity.nn.encoders``.
    """

    def __init__(
        self, event_shape: Sequence[int], levels: int, features: int, depth: int = 2, normed: bool = True
    ) -> None:
        super().__init__()
        space_dims, space = len(event_shape) - 1, list(event_shape[1:])
        conv = CONV[space_dims]
        self.units = activation(normed)
        self.input = support_input(event_shape, levels, normed)
        self.first = conv(self.input.features, features, 3, padding=1)
        width, self.down, self.up = features, nn.ModuleList(), nn.ModuleList()
        while len(self.down) < depth and min(space) >= 8:
            self.down.append(conv(width, 2 * width, 3, stride=2, padding=1))
            self.up.insert(0, conv(3 * width, width, 3, padding=1))  # what comes up, and the link
            space = [(size + 1) // 2 for size in space]
            width *= 2
        self.own = conv(width, width, 3, padding=1)
        self.shared = conv(width, width, 3, padding=1, bias=False)
        self.null = nn.Parameter(torch.zeros(features, *event_shape[1:]))

    def forward(self, support: Tensor) -> Tensor:
        """The map ``(tasks, 2 * features, *space)``: means first, then maxima."""
        shots, tasks = support.shape[:2]
        null = self.null.expand(tasks, *self.null.shape)
        if not shots:
            return torch.cat([null, null], 1)
        x = self.units(self.first(self.input(support.flatten(0, 1))))
        links = []
        for down in self.down:
            links.append(x)
            x = self.units(down(x))
        common = x.unflatten(0, (shots, tasks)).mean(0)
        x = self.own(x).unflatten(0, (shots, tasks)) + self.shared(common)
        x = self.units(x.flatten(0, 1))
        for up, link in zip(self.up, reversed(links), strict=True):
            x = F.interpolate(x, size=link.shape[2:], mode="nearest")
            x = self.units(cast(Tensor, up(torch.cat([x, link], 1))))
        maps = torch.cat([x.unflatten(0, (shots, tasks)), null.unsqueeze(0)])
        return torch.cat([maps.mean(0), maps.amax(0)], 1)

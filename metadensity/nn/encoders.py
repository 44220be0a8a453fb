"""Encoders of the support: into one vector, and into keys and values of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.nn.convolution import CONV
from metadensity.nn.inputs import PixelInput


class SupportVectorEncoder(nn.Module):
    """f(s): a convolutional encoder that turns a support set into one vector a task.

    Supports ``(S, tasks, C, *space)`` are halved by stride-2 convolutions to at most 4 places a
    dimension, mapped to ``features`` each, and averaged together with the learned null entry.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, planes: int, features: int) -> None:
        super().__init__()
        space, space_dims = list(event_shape[1:]), len(event_shape) - 1
        self.input = PixelInput(event_shape, levels)
        layers: list[nn.Module] = [CONV[space_dims](self.input.features, planes, 3, padding=1), nn.ReLU()]
        while max(space) > 4:
            layers += [CONV[space_dims](planes, planes, 3, stride=2, padding=1), nn.ReLU()]
            space = [(size + 1) // 2 for size in space]
        self.convs = nn.Sequential(*layers)
        self.project = nn.Linear(planes * math.prod(space), features)
        self.null = nn.Parameter(torch.zeros(features))

    def forward(self, support: Tensor) -> Tensor:
        """The task vectors, ``(tasks, features)``."""
        shots, tasks = support.shape[:2]
        if not shots:
            return self.null.expand(tasks, -1)
        x = self.convs(self.input(support.flatten(0, 1))).flatten(1)
        return (self.project(x).unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)


class SupportPatchEncoder(nn.Module):
    """Keys and values of the support patches for attention (Reed et al. 2018, section 3.2).

    A two-layer CNN with 4-wide kernels, so that one unit sees 10 places a dimension, as in the paper. Supports
    ``(S, tasks, C, *space)`` give ``S * K`` patches a task, K of them an image.

    stride: places from one patch to the next: 4, two strides of 2, as published; or 2 or 1, the same function of the
        patches in between (the second layer dilated where the first has no stride), with 4 or 16 times as many in
        an image.
    """

    def __init__(
        self, event_shape: Sequence[int], levels: int, planes: int, keys: int, values: int, stride: int = 4
    ) -> None:
        super().__init__()
        require_stride(stride)
        space_dims = len(event_shape) - 1
        first, second, dilation = {4: (2, 2, 1), 2: (2, 1, 1), 1: (1, 1, 2)}[stride]
        self.input = PixelInput(event_shape, levels)
        self.first = CONV[space_dims](self.input.features, planes, 4, stride=first)
        self.second = CONV[space_dims](planes, keys + values, 4, stride=second, dilation=dilation)
        self.keys, self.values = keys, values
        self._pads = (
            [1, 2] * space_dims,
            [dilation, 2 * dilation] * space_dims,
        )  # ceil(n / stride) places out of n, down to one
        self.grid = tuple(-(-size // stride) for size in event_shape[1:])

    def forward(self, support: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``(tasks, S * K, keys)`` and values ``(tasks, S * K, values)``."""
        shots, tasks = support.shape[:2]
        if not shots:
            empty = self.second.weight.new_zeros(tasks, 0, self.keys + self.values)
            return empty[..., : self.keys], empty[..., self.keys :]
        x = F.relu(self.first(F.pad(self.input(support.flatten(0, 1)), self._pads[0])))
        x = self.second(F.pad(x, self._pads[1])).flatten(2).unflatten(0, (shots, tasks))
        patches = x.permute(1, 0, 3, 2).flatten(1, 2)  # (tasks, S * K, features)
        return patches[..., : self.keys], patches[..., self.keys :]


def require_stride(stride: int) -> None:
    """Raise ValueError unless patches can be so many places apart."""
    if stride not in (1, 2, 4):
        raise ValueError(f"patch_stride={stride!r}; patches of the support are 4 (as published), 2 or 1 places apart.")

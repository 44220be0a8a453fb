"""Encoders of the support: into one vector, and into keys and values of patches.

normed: as published they are plain convolutions, whose features grow with the contrast, the size and the mean level of
images, and with every step of training, until gates saturate and units are dead for all images. With norms, our own,
pixels are centred by the data (``SupportInput``), every vector of features is bounded (``rms_bounded``) and no unit is
dead: what conditions the network is of one scale whatever the images and whatever the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.checks import real_places
from metadensity.nn.convolution import CONV
from metadensity.nn.inputs import PixelInput, SupportInput

VECTOR_SCALE = 0.25  # of a bounded f(s): gates begin near their own biases, and what all tasks share is learned first


def support_input(event_shape: Sequence[int], levels: int, normed: bool, placed: bool = True) -> PixelInput:
    """Images of supports as features."""
    return (SupportInput if normed else PixelInput)(event_shape, levels, placed)


def rms_bounded(x: Tensor, dim: int = 1) -> Tensor:
    """``x`` over the root of its mean square along ``dim``: of a mean square just below 1, or less if ``x`` was small.

    As RMSNorm (Zhang and Sennrich 2019), of each vector of features by itself. What is added to the mean square keeps
    the gradient of a vector of zeros finite, and that of a single feature alive.
    """
    return x * (x.square().mean(dim, keepdim=True) + 0.1).rsqrt()


class BoundedUnits(nn.Module):
    """What follows a convolution in place of ReLU: features bounded at each place, and units that are never dead."""

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, features, *space)`` to the same."""
        return F.leaky_relu(rms_bounded(x), 0.1)


def activation(normed: bool) -> nn.Module:
    """The units of a support encoder."""
    return BoundedUnits() if normed else nn.ReLU()


class SupportVectorEncoder(nn.Module):
    """f(s): a convolutional encoder that turns a support set into one vector a task.

    Supports ``(S, tasks, C, *space)`` are halved by stride-2 convolutions to at most 4 places a
    dimension, mapped to ``features`` each, and averaged together with the learned null entry.
    """

    def __init__(
        self, event_shape: Sequence[int], levels: int, planes: int, features: int, normed: bool = True
    ) -> None:
        super().__init__()
        space, space_dims = list(event_shape[1:]), len(event_shape) - 1
        self.normed = normed
        self.input = support_input(event_shape, levels, normed)
        layers: list[nn.Module] = [CONV[space_dims](self.input.features, planes, 3, padding=1), activation(normed)]
        while max(space) > 4:
            layers += [CONV[space_dims](planes, planes, 3, stride=2, padding=1), activation(normed)]
            space = [(size + 1) // 2 for size in space]
        self.convs = nn.Sequential(*layers)
        self.project = nn.Linear(planes * math.prod(space), features)
        self.null = nn.Parameter(torch.zeros(features))

    def forward(self, support: Tensor) -> Tensor:
        """The task vectors, ``(tasks, features)``."""
        shots, tasks = support.shape[:2]
        if not shots:
            return self.null.expand(tasks, -1)
        x = self.project(self.convs(self.input(support.flatten(0, 1))).flatten(1))
        if self.normed:
            x = VECTOR_SCALE * rms_bounded(x)
        return (x.unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)


class SupportPatchEncoder(nn.Module):
    """Keys and values of the support patches for attention (Reed et al. 2018, section 3.2).

    A two-layer CNN with 4-wide kernels, so that one unit sees 10 places a dimension, as in the paper. Supports
    ``(S, tasks, C, *space)`` give ``S * K`` patches a task, K of them an image.

    stride: places from one patch to the next: 4, two strides of 2, as published; or 2 or 1, the same function of the
        patches in between (the second layer dilated where the first has no stride), with 4 or 16 times as many in
        an image.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        planes: int,
        keys: int,
        values: int,
        stride: int = 4,
        normed: bool = True,
    ) -> None:
        super().__init__()
        require_stride(stride)
        space_dims = len(event_shape) - 1
        first, second, dilation = {4: (2, 2, 1), 2: (2, 1, 1), 1: (1, 1, 2)}[stride]
        self.normed = normed
        self.input = support_input(event_shape, levels, normed)
        self.first = CONV[space_dims](self.input.features, planes, 4, stride=first)
        self.units = activation(normed)
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
        x = self.units(self.first(F.pad(self.input(support.flatten(0, 1)), self._pads[0])))
        x = self.second(F.pad(x, self._pads[1])).flatten(2).unflatten(0, (shots, tasks))
        patches = x.permute(1, 0, 3, 2).flatten(1, 2)  # (tasks, S * K, features)
        keys, values = patches[..., : self.keys], patches[..., self.keys :]
        return (rms_bounded(keys, -1), rms_bounded(values, -1)) if self.normed else (keys, values)


class SupportSequenceEncoder(nn.Module):
    """f(s), and keys and values for attention, of sequences of any length, in time and memory linear in it. Our own.

    Supports ``(S, tasks, C, *space)`` are halved by ``halvings`` convolutions of four places and averaged: over all
    that is left for f(s), and over each of ``patches`` equal stretches of it for attention, so that every support has
    so many, short or long. No weight knows how many places there are; places beyond a length are seen by none.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        planes: int,
        features: int,
        patches: int = 0,
        normed: bool = True,
        halvings: int = 6,
    ) -> None:
        super().__init__()
        space_dims = len(event_shape) - 1
        self.normed, self.patches, self.units = normed, patches, activation(normed)
        self.input = support_input(event_shape, levels, normed, placed=False)
        sizes = [self.input.features, *[planes] * halvings]
        self.convs = nn.ModuleList(
            CONV[space_dims](size, planes, 4, stride=2) for size in sizes[:-1]
        )  # ceil(n / 2) places out of n
        self._pads = [1, 2] * space_dims
        self.project = nn.Linear(planes, features)
        self.to_patches = nn.Linear(planes, 2 * planes) if patches else None
        self.null = nn.Parameter(torch.zeros(features))

    def forward(self, support: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The task vectors ``(tasks, features)``; keys and values, ``(tasks, S * patches, planes)`` each, or None.

        lengths: of sequences, ``(S, tasks)``: how many of the first places are real. None: all.
        """
        shots, tasks = support.shape[:2]
        if not shots:
            empty = self.null.new_zeros(tasks, 0, self.project.in_features)
            return self.null.expand(tasks, -1), (empty, empty) if self.patches else None
        x = self.input(support.flatten(0, 1))
        left = None if lengths is None else lengths.flatten()
        for conv in self.convs:
            x = self.units(conv(F.pad(_real(x, left), self._pads)))
            left = None if left is None else (left + 1) // 2
        x = _real(x, left).flatten(2)
        counts = torch.full((1,), x.shape[2], device=x.device) if left is None else left
        vectors = self.project(stretches(x, counts, 1).flatten(1))
        if self.normed:
            vectors = VECTOR_SCALE * rms_bounded(vectors)
        vector = (vectors.unflatten(0, (shots, tasks)).sum(0) + self.null) / (shots + 1)
        if self.to_patches is None:
            return vector, None
        patches = self.to_patches(stretches(x, counts, self.patches).mT).unflatten(0, (shots, tasks))
        keys, values = patches.transpose(0, 1).flatten(1, 2).chunk(2, -1)
        return vector, (rms_bounded(keys, -1), rms_bounded(values, -1)) if self.normed else (keys, values)


def _real(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``(batch, features, places)`` with zeros beyond the lengths ``(batch,)``."""
    return x if lengths is None else x * real_places(lengths, x.shape[-1]).unsqueeze(1)


def stretches(x: Tensor, counts: Tensor, parts: int) -> Tensor:
    """Means of ``parts`` stretches of the first ``counts`` ``(batch or 1,)`` places: ``(batch, features, parts)``.

    x: ``(batch, features, places)``. Stretches are as equal as can be and share a place where they have to, as those of
    torch's adaptive pooling; of no places they are zero.
    """
    number, counts = torch.arange(parts, device=x.device), counts.unsqueeze(1)
    low, high = number * counts // parts, -(-(number + 1) * counts // parts)  # (batch, parts)
    places = torch.arange(x.shape[2], device=x.device)
    inside = (places >= low.unsqueeze(2)) & (places < high.unsqueeze(2))
    return x @ (inside.to(x.dtype) / (high - low).clamp(min=1).unsqueeze(2)).mT


def require_stride(stride: int) -> None:
    """Raise ValueError unless patches can be so many places apart."""
    if stride not in (1, 2, 4):
        raise ValueError(f"patch_stride={stride!r}; patches of the support are 4 (as published), 2 or 1 places apart.")

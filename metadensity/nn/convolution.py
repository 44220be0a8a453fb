"""torch's convolutions by number of space dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import nn

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
PerAxis = int | Sequence[int]  # one number for all space dimensions, or one for each


def per_axis(name: str, given: PerAxis, space_dims: int) -> tuple[int, ...]:
    """One number for each of ``space_dims`` dimensions; ValueError where as many as that are not given."""
    numbers = tuple(given) if isinstance(given, Sequence) else (given,) * space_dims
    if len(numbers) != space_dims:
        raise ValueError(
            f"{name}={given!r} with {space_dims} space dimensions; give one number for all of them, or {space_dims}, "
            "the first dimension's first."
        )
    return numbers


def pointwise(in_features: int, out_features: int, space_dims: int, bias: bool = True) -> Any:
    """A convolution with a kernel of one place in ``space_dims`` dimensions."""
    return CONV[space_dims](in_features, out_features, kernel_size=1, bias=bias)


def around(in_features: int, out_features: int, space_dims: int, kernel_size: PerAxis) -> Any:
    """A convolution with an odd kernel in the middle of which each place lies, and as many places out as in."""
    sizes = per_axis("kernel_size", kernel_size, space_dims)
    return CONV[space_dims](in_features, out_features, sizes, padding=[size // 2 for size in sizes])


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling ``module`` does what ``kind`` does and no more, so that its weights say it all.

    It does not where it has hooks (pruning and the older weight norms are such), or another forward: an adapter, say.
    """
    hooks = module._forward_pre_hooks or module._forward_hooks or module._backward_pre_hooks or module._backward_hooks
    return not hooks and type(module).forward is kind.forward and "forward" not in module.__dict__

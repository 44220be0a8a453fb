"""torch's convolutions by number of space dimensions."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def pointwise(in_features: int, out_features: int, space_dims: int, bias: bool = True) -> Any:
    """A convolution with a kernel of one place in ``space_dims`` dimensions."""
    return CONV[space_dims](in_features, out_features, kernel_size=1, bias=bias)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling ``module`` does what ``kind`` does and no more, so that its weights say it all.

    It does not where it has hooks (pruning and the older weight norms are such), or another forward: an adapter, say.
    """
    hooks = module._forward_pre_hooks or module._forward_hooks or module._backward_pre_hooks or module._backward_hooks
    return not hooks and type(module).forward is kind.forward and "forward" not in module.__dict__

"""What the native kernels of networks share: when they may be used, and threads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode


def bfloat16_wanted() -> bool:
    """Whether products on the CPU are to be of bfloat16 numbers: autocast."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def usable(tensors: Sequence[Tensor | None], autocast: bool = False) -> bool:
    """Whether a kernel may compute with these: plain float32 tensors on the CPU, none empty.

    autocast: whether it may under autocast. Not under torch.func, tracing or compiling, forward-mode differentiation,
    or a mode that looks at torch's operations, such as one that counts them.
    """
    if torch.compiler.is_compiling():  # first: a compiler could not see through what is asked below
        return False
    for tensor in tensors:
        if tensor is not None:
            plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
            if not plain or tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.numel():
                return False
    return not (
        torch._C._are_functorch_transforms_active()
        or (torch.is_autocast_enabled("cpu") and not autocast)
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or _get_current_dispatch_mode() is not None
    )


def shares(count: int, least: int) -> list[tuple[int, int]]:
    """Ranges of 0 to ``count``, one for each of torch's threads, but each of ``least`` or more."""
    threads = max(1, min(torch.get_num_threads(), count // least))
    share = -(-count // threads)
    return [(start, min(start + share, count)) for start in range(0, count, share)]


def in_threads(call: Callable[[int, int, int], None], ranges: Sequence[tuple[int, int]]) -> None:
    """``call(thread, first, last)`` for each range, all at once. It should leave Python's lock, as ctypes does."""
    others = [_pool(len(ranges) - 1).submit(call, thread, *span) for thread, span in enumerate(ranges[1:], start=1)]
    call(0, *ranges[0])
    for other in others:
        other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process

"""Memory of tensors that is kept when they are freed, and given to the next ones of that size.

The system takes large blocks back and gives them out page by page, zeroed anew, which costs as much time as writing
them twice. A training step asks for the same blocks again and again.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST = 1 << 16  # bytes; less comes from torch
LARGEST = 1 << 30  # bytes kept that no tensor uses
_ALIGNMENT = 64  # bytes, a line of the cache


class _Pool:
    """Blocks that no tensor uses, by size in bytes; those freed last are given out first: they may be in a cache."""

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray[Any, Any]]] = defaultdict(list)
        self.unused = 0
        self.lock = threading.RLock()  # a collection of garbage may give in the midst of a take

    def take(self, size: int) -> np.ndarray[Any, Any]:
        with self.lock:
            block = self.free[size].pop() if self.free[size] else None
            self.unused -= size if block is not None else 0
        if block is None:
            block = np.empty(size + _ALIGNMENT, np.uint8)
        start = -block.ctypes.data % _ALIGNMENT
        view = block[start : start + size].view(np.float32)  # what torch holds on to, for as long as it uses it
        weakref.finalize(view, self.give, size, block).atexit = False
        return view

    def give(self, size: int, block: np.ndarray[Any, Any]) -> None:
        with self.lock:
            if self.unused + size <= LARGEST:
                self.free[size].append(block)
                self.unused += size


_pool = _Pool()


def empty_from_pool(*shape: int) -> Tensor:
    """An uninitialised float32 tensor on the CPU."""
    size = 4 * math.prod(shape)
    if size < SMALLEST:
        return torch.empty(shape, dtype=torch.float32)  # whatever the default is
    return torch.from_numpy(_pool.take(size)).view(shape)

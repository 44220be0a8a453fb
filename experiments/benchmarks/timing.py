"""Timing sides against one another, and the memory and the arithmetic they need."""

from __future__ import annotations

import gc
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Row = dict[str, object]


def row(name: str, ours_s: float, peer_s: float, **more: object) -> Row:
    """What a benchmark reports: seconds of ours and of the peer, and how many times faster ours is."""
    return {"name": name, "ours_s": ours_s, "peer_s": peer_s, "ratio": peer_s / ours_s, **more}


def interleaved(sides: Mapping[str, Callable[[], Any]], repeats: int, warm: bool = True) -> dict[str, float]:
    """Median seconds of each side. The sides take turns, so that a drift of the machine's speed hits them alike.

    warm: run each once before, untimed.
    """
    for side in sides.values():
        if warm:
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            gc.collect()
            began = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def matmul_peak(dtype: torch.dtype, size: int, repeats: int) -> float:
    """Floating-point operations a second of a product of square matrices: what this machine does at best."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / interleaved({"product": lambda: a @ b}, repeats)["product"]


class PeakMemory(TorchDispatchMode):
    """The most bytes of new tensors that were alive at once inside the block; what kernels use within is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage.data_ptr() not in before and storage not in self._seen:
                    self._seen.add(storage)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def machine() -> dict[str, Any]:
    """The hardware and what decides the speed on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }

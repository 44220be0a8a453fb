"""What an evaluation cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


def parameter_count(module: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@dataclass
class Cost:
    """parameters: numbers that are learned. seconds: wall time, the episodes' own included. images: queries scored.

    peak_memory: bytes. On CUDA the most that torch held on the device meanwhile; elsewhere the largest resident size
    of the process since it began, so of several models in one process a later one shows at least an earlier one's.
    device, threads: where, and with how many threads of torch.
    """

    parameters: int
    device: str
    threads: int
    seconds: float = 0.0
    images: int = 0
    peak_memory: int = 0

    @property
    def images_per_second(self) -> float:
        """Queries scored a second, over all numbers of shots."""
        return self.images / self.seconds if self.seconds else 0.0


@contextmanager
def measured(model: nn.Module, device: torch.device) -> Iterator[Cost]:
    """A cost that holds time and memory of the block when it ends; the block itself sets ``images``."""
    cost = Cost(parameter_count(model), str(device), torch.get_num_threads())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - began
    cost.peak_memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident()


def _resident() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # Linux counts in KiB

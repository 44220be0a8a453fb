"""Several equal processes that share one computation: each runs the same program and does its part of the work.

Nothing is shared outside ``joined``. Within it training gathers the gradients of parts, and evaluation scores of whole
batches; all that is gathered is put in the order of the work, not of the processes, so that results do not depend on
how many there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from metadensity.checks import is_whole


@dataclass(frozen=True)
class Processes:
    """rank: the number of this process, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    def does(self, index: int) -> bool:
        """Whether the piece of work with this index is this process's."""
        return index % self.size == self.rank

    def rows(self, own: Tensor) -> Tensor:
        """The rows ``(k, n)`` of every process, ``(size * k, n)``, those of the first one first."""
        if self.size == 1:
            return own
        found = [torch.empty_like(own) for _ in range(self.size)]
        torch.distributed.all_gather(found, own.contiguous())
        return torch.cat(found)

    def values(self, own: Any) -> list[Any]:
        """What each process has, a value of JSON, in the order of the processes. Floats come as they are."""
        if self.size == 1:
            return [own]
        line = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8)
        lengths = self.rows(torch.tensor([[len(line)]])).flatten().tolist()
        padded = torch.zeros(1, max(lengths), dtype=torch.uint8)
        padded[0, : len(line)] = line
        lines = self.rows(padded)
        return [json.loads(bytes(row[:n].numpy())) for row, n in zip(lines, lengths, strict=True)]


_together = [Processes()]  # the innermost of ``joined`` last


def current() -> Processes:
    """The processes that share what is computed now: those of the innermost ``joined``, else this one alone."""
    return _together[-1]


@contextmanager
def joined(rank: int | None = None, size: int | None = None, patience: float = 1800.0) -> Iterator[Processes]:
    """Within this, what the same call of all processes computes is shared. They find each other by torch.distributed.

    rank, size: None: of the environment (RANK, WORLD_SIZE), as torchrun sets it; MASTER_ADDR and MASTER_PORT say where
    the first process listens. One process alone needs none of these. patience: seconds after which a process that the
    others wait for counts as lost.

    Raises ValueError where the environment names no place among the processes, and as torch.distributed does.
    """
    where = [os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")] if rank is None else [rank, size]
    try:
        processes = Processes(*(int(str(value)) for value in where))
    except ValueError:
        processes = Processes(-1)
    if not is_whole(processes.size) or not 0 <= processes.rank < processes.size:
        raise ValueError(
            f"This is process {where[0]} of {where[1]}; give numbers from 0 to below how many there are, or start the "
            "program by torchrun, which sets RANK and WORLD_SIZE."
        )
    if processes.size == 1:
        _together.append(processes)
        try:
            yield processes
        finally:
            _together.pop()
        return
    torch.distributed.init_process_group(
        rank=processes.rank, world_size=processes.size, timeout=timedelta(seconds=patience)
    )
    _together.append(processes)
    try:
        yield processes
        torch.distributed.barrier()  # gloo aborts where a process leaves while another still reads
    finally:
        _together.pop()
        torch.distributed.destroy_process_group()

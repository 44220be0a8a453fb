"""What the bits of a training depend on besides its configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from experiments.recording.flat_configs import differences
from metadensity import native
from metadensity.files import read_header

NUMERICS = "numerics"  # in the header of a state


class OtherBitsError(ValueError):
    """Training cannot go on with the bits that it began with."""


def numerics(device: str, kernels: Iterable[str] | None = None) -> dict[str, Any]:
    """Of this process: torch, what it trains on, threads, what the processor can do, and hashes of native kernels.

    kernels: of which, None: of those used so far. On a CUDA device it is the device alone.
    """
    kind = torch.device(device)
    if kind.type == "cuda":
        return {"torch": torch.__version__, "device": torch.cuda.get_device_name(kind)}
    return {
        "torch": torch.__version__,
        "device": kind.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(torch.cpu.get_capabilities().get("amx_tile", False)),
        "kernels": native.fingerprints(kernels),
    }


def compare_numerics(state: Path, device: str, required: bool) -> None:
    """Say where training goes on from ``state`` with other numerics than it was written with, as bits will differ.

    Raises OtherBitsError instead where the same are ``required``, and where it is not known which they were.
    """
    before: dict[str, Any] | None = read_header(state).get(NUMERICS)
    if before is None:
        if required:
            raise OtherBitsError(
                f"{state} does not say what its bits depend on, as it is of an earlier version, so they cannot be "
                "required to be the same. Give require_same_bits=False."
            )
        return
    changed = differences(before, numerics(device, before.get("kernels", {})))
    if not changed:
        return
    lines = "".join(f"\n    {name}: {old!r} -> {new!r}" for name, (old, new) in changed.items())
    said = f"{state} was trained with other bits than this process gives:{lines}\n"
    if required:
        ways = "Go on where they are the same (OMP_NUM_THREADS sets the threads), or give require_same_bits=False."
        raise OtherBitsError(said + ways)
    print(f"{said}The run goes on; its numbers will differ in rounding from those of a run never interrupted.")

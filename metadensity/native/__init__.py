"""Optional C++ kernels, built by the machine's compiler when first needed; in torch all is the same, but slower.

``available()``: whether all can be used here; ``why_not()``: the reason if not. Both build them, which takes up to a
minute the first time. ``disabled()``: a context without them.
"""

from __future__ import annotations

from collections.abc import Iterable

from metadensity.native import additive_attention, gated_layer, line_sampler, sequence_layers
from metadensity.native.build import disabled

KERNELS = (gated_layer.KERNEL, sequence_layers.KERNEL, additive_attention.KERNEL, line_sampler.KERNEL)

__all__ = ["KERNELS", "available", "disabled", "fingerprints", "why_not"]


def available() -> bool:
    """Whether all kernels can be used here and now."""
    return why_not() is None


def why_not() -> str | None:
    """Why not all kernels can be used; None where they can."""
    return next((reason for kernel in KERNELS if (reason := kernel.why_not()) is not None), None)


def fingerprints(names: Iterable[str] | None = None) -> dict[str, str | None]:
    """A hash of the machine code of kernels, by their names; None for one whose work is done in torch.

    names: of which; None: of those asked for so far in this process, so that none is built for this.
    The same code, torch, threads and processor give the same bits.
    """
    by_name = {kernel.source.stem: kernel for kernel in KERNELS}
    asked = [name for name, kernel in by_name.items() if kernel.asked_for] if names is None else by_name.keys() & names
    return {name: by_name[name].fingerprint() for name in sorted(asked)}

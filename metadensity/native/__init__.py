"""Optional C++ kernels, built by the machine's compiler when first needed; in torch all is the same, but slower.

``available()``: whether all can be used here; ``why_not()``: the reason if not. Both build them, which takes up to a
minute the first time. ``disabled()``: a context without them.
"""

from __future__ import annotations

from metadensity.native import additive_attention, gated_layer, line_sampler, sequence_layers
from metadensity.native.build import disabled

KERNELS = (gated_layer.KERNEL, sequence_layers.KERNEL, additive_attention.KERNEL, line_sampler.KERNEL)

__all__ = ["KERNELS", "available", "disabled", "why_not"]


def available() -> bool:
    """Whether all kernels can be used here and now."""
    return why_not() is None


def why_not() -> str | None:
    """Why not all kernels can be used; None where they can."""
    return next((reason for kernel in KERNELS if (reason := kernel.why_not()) is not None), None)

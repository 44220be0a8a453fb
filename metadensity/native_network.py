"""The sizes and weights of a network as the native kernel takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from metadensity import native
from metadensity.native import LineKernel, padded, padded_halves
from metadensity.nn.heads import CategoricalHead

if TYPE_CHECKING:
    from metadensity.sampling import _CachedSampler


def native_kernel(sampler: _CachedSampler) -> LineKernel | None:
    """The kernel that draws the lines of ``sampler``, or None where there is none or it cannot.

    It takes float32 and float64 networks with a categorical head and no prototypes on the CPU, outside autocast.
    """
    network, memory, head = sampler.network, sampler.condition.memory, sampler.network.head
    weight, batch, planes = sampler.skips, sampler.batch, sampler.planes
    plain = (
        network.prototypes is None and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    )
    if not plain or not isinstance(head, CategoricalHead) or torch.is_autocast_enabled("cpu"):
        return None
    if (library := native.library()) is None:
        return None
    channels, width, places = sampler.channels, network.penultimate, sampler.space[-1]
    none = weight.new_zeros(1)
    hidden = head.hidden.weight.flatten(1).unflatten(0, (channels, width)).mT
    logits = head.logits.weight.flatten(1).unflatten(0, (channels, -1)).mT
    before = none if head.previous is None else head.previous.weight.flatten(1).unflatten(0, (channels, width)).mT
    tensors = {
        "skips": padded(sampler.skips),
        "skip_bias": padded(sampler.skip_bias),
        "penult": padded(network.penult.weight.flatten(1).T),
        "penult_bias": padded(network.penult.bias),
        "hidden": padded(hidden),
        "hidden_bias": padded(head.hidden.bias.view(channels, width)),
        "previous": padded(before),
        "logits": padded(logits),
        "logits_bias": padded(head.logits.bias.view(channels, -1)),
    }
    sizes = {"batch": batch, "layers": len(sampler.layers), "planes": planes, "places": places, "reach": sampler.reach}
    sizes |= {"channels": channels, "levels": network.levels, "features": width, "dims": sampler.dims}
    sizes |= {"middle": sampler.middle, "attention": 0, "tasks": sampler.condition.tasks, "entries": 1}
    if network.attention is not None and memory is not None:
        assert sampler.reads is not None
        attention = network.attention
        sizes |= {"attention": 1 if attention.kind == "dot" else 2, "entries": memory.keys.shape[1]}
        tensors |= {
            "query": padded(attention.query.weight.flatten(1).T),
            "query_bias": padded(attention.query.bias),
            "keys": padded(memory.keys.to(weight.dtype).mT),
            "values": padded(memory.values.to(weight.dtype)),
            "score": none if attention.score is None else attention.score.contiguous(),
            "reads": padded_halves(sampler.reads.unflatten(-1, (-1, 2 * planes))).flatten(-2),
        }
    lengths = [(places + sampler.reach) * features for features in sampler.features]
    lists = {
        "lines": [weight.new_zeros(batch, length) for length in lengths],
        "kernels": [padded_halves(kernel) for kernel in sampler.kernels],
        "residuals": [padded(residual) for residual in sampler.residuals],
        "residual_biases": [padded(bias) for bias in sampler.residual_biases],
    }
    return LineKernel(
        library, sizes, tensors, lists, {"taps": sampler.taps, "starts": sampler.starts, "inputs": sampler.features}
    )

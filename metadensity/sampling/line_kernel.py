"""The sizes and weights of a network as the native kernel takes them."""

from __future__ import annotations

import torch

from metadensity.native import line_sampler
from metadensity.native.line_sampler import LineKernel, padded, padded_halves
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.attention import SupportAttention
from metadensity.nn.convolution import CONV, is_plain
from metadensity.sampling.last_stack import LastStack


def native_kernel(network: PixelCNN, condition: Conditioning, last: LastStack, batch: int) -> LineKernel | None:
    """The kernel that draws lines of ``batch`` images, or None where there is none or it cannot.

    It takes float32 and float64 networks without prototypes on the CPU, outside autocast, whose likelihood gives its
    ``kernel_weights``.
    """
    memory, planes, weight = condition.memory, network.planes, last.skips
    plain = (
        network.prototypes is None and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    )
    of_head = network.head.kernel_weights()
    if network.attention is not None:
        plain &= is_plain(network.attention, SupportAttention) and is_plain(
            network.attention.query, CONV[network.space_dims]
        )
    if not plain or of_head is None or torch.is_autocast_enabled("cpu"):
        return None
    if (library := line_sampler.library()) is None:
        return None
    channels, width, places = network.event_shape[0], network.penultimate, network.event_shape[-1]
    none = weight.new_zeros(1)
    tensors = {
        "skips": padded(last.skips),
        "skip_bias": padded(last.skip_bias),
        "penult": padded(network.penult.weight.flatten(1).T),
        "penult_bias": padded(network.penult.bias),
        **{name: padded(tensor) for name, tensor in of_head.items()},
    }
    sizes = {"batch": batch, "layers": len(network.layers), "planes": planes, "places": places, "reach": last.reach}
    sizes |= {"channels": channels, "levels": network.levels, "features": width, "space_dims": network.space_dims}
    sizes |= {"middle": network.attention_layer, "attention": 0, "tasks": condition.tasks, "entries": 1}
    if network.attention is not None and memory is not None:
        assert last.reads is not None
        attention = network.attention
        sizes |= {"attention": 1 if attention.kind == "dot" else 2, "entries": memory.keys.shape[1]}
        tensors |= {
            "query": padded(attention.query.weight.flatten(1).T),
            "query_bias": padded(attention.query.bias),
            "keys": padded(memory.keys.to(weight.dtype).mT),
            "values": padded(memory.values.to(weight.dtype)),
            "score": none if attention.score is None else attention.score.contiguous(),
            "reads": padded_halves(last.reads.unflatten(-1, (-1, 2 * planes))).flatten(-2),
        }
    slots = [kept or places + last.reach for kept in last.kept]
    lengths = [count * features for count, features in zip(slots, last.features, strict=True)]
    lists = {
        "lines": [weight.new_zeros(batch, length) for length in lengths],
        "kernels": [padded_halves(kernel) for kernel in last.kernels],
        "residuals": [padded(residual) for residual in last.residuals],
        "residual_biases": [padded(bias) for bias in last.residual_biases],
    }
    counts = {"taps": last.taps, "starts": last.starts, "inputs": last.features}
    return LineKernel(library, sizes, tensors, lists, {**counts, "dilations": last.dilations, "slots": slots})

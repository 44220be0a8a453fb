"""Gated layers, or multiplicative units, in one dimension, one after another, in one call of a native kernel.

The same as ``gated_layer`` of each after the other, or as ``multiplicative_unit``: the oracles, which also compute the
gradient of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.calls import bfloat16_wanted, usable
from metadensity.native.sequence_layers import WEIGHTS, Call, Form, has_amx, library
from metadensity.nn.functional.gated_layer import LayerWeights, add_per_task, causal_convolution, gated_layer_plain


def supports(
    x: Tensor,
    layers: Sequence[LayerWeights],
    biases: Sequence[Sequence[Tensor]],
    attended: Tensor | None,
    skip_sum: Tensor | None,
) -> bool:
    """Whether the native kernel takes these, which are those of ``sequence_layers``: where ``usable``, and biases that
    are the same at all places. Under autocast to bfloat16 it needs the processor's tiles for products of such numbers.
    """
    if x.ndim != 3:
        return False
    low = bfloat16_wanted()
    given = [x, attended, skip_sum, *(bias for each in biases for bias in each)]
    given = [tensor.float() if low and tensor is not None else tensor for tensor in given]
    own = [tensor for layer in layers for tensor in (*layer.convs, *layer.conv_biases, layer.out, layer.out_bias)]
    reads = [layer.from_attention for layer in layers] if attended is not None else []
    if not usable([*given, *own, *reads], autocast=low) or any(bias is None for bias in own):
        return False
    places, outs = x.shape[2], [layer.out for layer in layers]
    fitting = [layer.convs[0].shape[1] for layer in layers] == [x.shape[1], *(out.shape[1] for out in outs[:-1])]
    fitting &= all(out.shape == outs[0].shape for out in outs)
    fitting &= all(bias.shape[2:] == (1,) and len(x) % len(bias) == 0 for each in biases for bias in each)
    sizes = [(attended, reads[-1].shape[1] if reads and reads[-1] is not None else 0)]
    sizes.append((skip_sum, len(outs[0]) - outs[0].shape[1]))
    fitting &= all(given is None or given.shape == (len(x), size, places) for given, size in sizes)
    return fitting and library() is not None and (not low or has_amx())


def sequence_layers(
    x: Tensor,
    layers: Sequence[LayerWeights],
    biases: Sequence[Sequence[Tensor]],
    attended: Tensor | None,
    skip_sum: Tensor | None,
    forms: Sequence[Form],
) -> tuple[Tensor, Tensor]:
    """What the last layer gives, and the sum of the skip outputs; each layer is given what the one before it gives.

    x: ``(batch, features, places)``. The others are those of ``gated_layer``, of each layer; where ``supports``. Under
    autocast products are of bfloat16 numbers; all else is float32.
    """
    low, own = bfloat16_wanted(), []
    for layer, given in zip(layers, biases, strict=True):
        bias = layer.conv_biases[0]
        assert bias is not None
        read = None if attended is None else layer.from_attention
        total = given[0].float().squeeze(2) + bias if given else bias.unsqueeze(0)
        own += [total, layer.convs[0], read, layer.out, layer.out_bias]
    images = [None if tensor is None else tensor.float().mT for tensor in (x, attended, skip_sum)]
    inputs = (*images, *own)
    graph = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    new, skips = _SequenceLayers.apply(tuple(forms), low, graph, *inputs)
    return new.mT, skips.mT


def multiplicative_unit(z: Tensor, convolved: Tensor) -> Tensor:
    """g1 . tanh(g2 . z + g3 . u) of ``z`` ``(..., planes)`` and the pre-activations ``(..., 4 * planes)`` of g1, g2, g3
    and u: three sigmoids and a tanh.
    """
    planes = z.shape[-1]
    gates, update = convolved.split([3 * planes, planes], -1)
    output, keep, write = torch.sigmoid(gates).chunk(3, -1)
    return output * torch.tanh(keep * z + write * torch.tanh(update))


def supports_units(
    x: Tensor, convs: Sequence[Tensor], biases: Sequence[Tensor], reads: Sequence[Tensor], attended: Tensor | None
) -> bool:
    """Whether the native kernel takes these, which are those of ``multiplicative_units``; see ``supports``."""
    low = bfloat16_wanted()
    given = [tensor.float() if low and tensor is not None else tensor for tensor in (x, attended, *biases)]
    if not usable([*given, *convs, *reads], autocast=low) or (attended is None) != (not reads):
        return False
    batch, places, planes = x.shape
    fitting = all(len(conv) == 4 * planes and conv.shape[1] % planes == 0 for conv in convs)
    fitting &= all(batch % len(bias) == 0 for bias in biases)
    fitting &= attended is None or attended.shape == (batch, places, reads[0].shape[1])
    return fitting and library() is not None and (not low or has_amx())


def multiplicative_units(
    x: Tensor,
    convs: Sequence[Tensor],
    biases: Sequence[Tensor],
    reads: Sequence[Tensor],
    attended: Tensor | None,
    dilation: int,
) -> Tensor:
    """``multiplicative_unit`` of ``x`` and what a causal convolution makes of it, once for each of ``convs``.

    x: ``(batch, places, planes)``. convs: ``(4 * planes, taps * planes)``, tap after tap. biases: ``(tasks, 4 *
    planes)``, the batch being ``(samples * tasks)``. attended: ``(batch, places, values)``, of which ``reads`` ``(4 *
    planes, values)`` are added; or None. As ``sequence_layers``, where ``supports_units``.
    """
    low, own = bfloat16_wanted(), list[Tensor | None]()
    for i, (conv, bias) in enumerate(zip(convs, biases, strict=True)):
        own += [bias.float(), conv, reads[i] if reads else None, None, None]
    inputs = (x.float(), None if attended is None else attended.float(), None, *own)
    graph = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    forms = (Form(dilation, multiplicative=True),) * len(convs)
    new, _ = _SequenceLayers.apply(forms, low, graph, *inputs)
    result: Tensor = new
    return result


def _plain(forms: Sequence[Form], *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same of the kernel's inputs in torch's operations."""
    given: Any = inputs
    images: list[Any] = [None if tensor is None else tensor.mT for tensor in given[:3]]
    x, attended, skips = images
    for i, form in enumerate(forms):
        bias, conv, read, out, out_bias = given[3 + i * len(WEIGHTS) :][: len(WEIGHTS)]
        if form.multiplicative:
            conv = conv.unflatten(1, (-1, x.shape[1])).mT
            z = add_per_task(causal_convolution(x, conv, None, 0, False, form.dilation), bias.unsqueeze(2)).mT
            z = z if read is None else z + F.linear(attended.mT, read)
            x = multiplicative_unit(x.mT, z).mT
            continue
        weights = LayerWeights([conv], [None], [], out, out_bias, read)
        shape, own = (form.excludes_current, not form.excludes_current, form.dilation), [bias.unsqueeze(2)]
        (x,), skips = gated_layer_plain([x], weights, own, attended if read is not None else None, skips, *shape)
    return x.mT, x.new_empty(0) if skips is None else skips.mT


class _SequenceLayers(torch.autograd.Function):
    """Inputs as those of ``Call``, with whether a gradient may be asked for after ``low``."""

    @staticmethod
    def forward(
        ctx: Any, forms: tuple[Form, ...], low: bool, differentiable: bool, *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.forms, ctx.low, ctx.inputs = forms, low, len(inputs)
        new, skips, kept = Call(forms, low, *inputs).forward(differentiable)  # type: ignore[arg-type]
        ctx.save_for_backward(*inputs, *kept)
        return new, skips

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, kept, wanted = saved[: ctx.inputs], saved[ctx.inputs :], ctx.needs_input_grad[3:]
        again = torch.is_grad_enabled()  # create_graph=True: this will be differentiated
        if again or not usable(gradients, ctx.low) or library() is None:
            found = _in_torch(ctx.forms, inputs, gradients, wanted)
        else:
            found = Call(ctx.forms, ctx.low, *inputs).backward(kept, wanted, *gradients)
        return None, None, None, *(slope if needed else None for slope, needed in zip(found, wanted, strict=True))


def _in_torch(
    forms: Sequence[Form],
    inputs: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> Sequence[Tensor | None]:
    """The gradients by torch's operations, which can be differentiated again if gradients are enabled."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, as one tensor may be several of the inputs.
        own = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        asked = [tensor for tensor, needed in zip(own, wanted, strict=True) if needed and tensor is not None]
        outputs = _plain(forms, *own)
        used = [(output, given) for output, given in zip(outputs, gradients, strict=True) if given is not None]
        results, slopes = zip(*used, strict=True)
        found = iter(torch.autograd.grad(results, asked, slopes, create_graph=again, allow_unused=True))
    return [next(found) if needed else None for needed in wanted]

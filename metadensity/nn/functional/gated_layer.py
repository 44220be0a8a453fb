"""One gated layer (Conditional PixelCNN, equation 5) as a function of tensors: in torch, and by a native kernel.

``gated_layer_plain`` defines it; it is the oracle of all others, and what is differentiated where a gradient is. Each of
them is chosen by one function, which says what it takes:

| rendering | chosen by | dimensions | kernels | biases | numbers | gradients |
|---|---|---|---|---|---|---|
| ``gated_layer_plain`` | otherwise | 1, 2, 3 | odd, dilated, of each dimension | that broadcast | any, any device | any, all transforms |
| kernel csrc/gated_layer | ``supports`` | 2 | 3, not dilated | a task or a place | float32 on the CPU; AMX: bfloat16 products under autocast | the first; higher ones plain; no transforms |
| kernel csrc/sequence_layers.cpp | ``sequence_layers.supports`` | 1 | odd, 3 or more, dilated | a task | as csrc/gated_layer | as csrc/gated_layer |
| sampler, sampling/cached.py | ``sample_cached`` | 1, 2, 3 | odd, dilated, of each dimension | that broadcast | any, any device | none |
| kernel csrc/line_sampler.cpp, the last stack | ``native_kernel`` | 1, 2, 3 | odd, dilated | that broadcast | float32, float64 on the CPU, no autocast | none |

All take a first layer (no current place, no residual), a context from attention, and a sum of skip outputs.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.native.buffer_pool import empty_from_pool
from metadensity.native.calls import bfloat16_wanted, usable
from metadensity.native.gated_layer import _INPUTS, GRADIENTS, _Call, _places, has_amx, library
from metadensity.nn.convolution import CONVOLVE, PerAxis, per_axis
from metadensity.nn.functional.gate import gate


class LayerWeights(NamedTuple):
    """Of a layer of N stacks in N dimensions, as torch's convolutions take them.

    convs: ``(2 * planes, features, *kernel)`` a stack, cropped to the causal half, with conv_biases ``(2 * planes,)``
    or None. links: ``(2 * planes, 2 * planes, 1, ...)`` from each stack to the next. out: ``(planes + skip, planes, 1,
    ...)`` with out_bias. from_attention: ``(2 * planes, values, 1, ...)`` or None.
    """

    convs: Sequence[Tensor]
    conv_biases: Sequence[Tensor | None]
    links: Sequence[Tensor]
    out: Tensor
    out_bias: Tensor
    from_attention: Tensor | None


def gated_layer(
    stacks: Sequence[Tensor],
    weights: LayerWeights,
    biases: Sequence[Tensor] = (),
    attended: Tensor | None = None,
    skip_sum: Tensor | None = None,
    excludes_current: bool = False,
    residual: bool = True,
    dilation: PerAxis = 1,
) -> tuple[list[Tensor], Tensor]:
    """The next stacks ``(batch, planes, *space)``, and the skip output ``(batch, skip, *space)``.

    stacks: ``(batch, features, *space)`` a dimension. biases: none, or for each stack ``(tasks, 2 * planes, *space or
    ones)``, the batch being ``(samples * tasks)``. attended: ``(batch, values, *space)``, what the gates of the last
    stack are given besides, or None. skip_sum: what the skip output is added to, or None. excludes_current: kernels
    leave out the current place. residual: the stacks are added to their outputs. dilation: of the kernels, one or
    one a dimension. Of N dimensions the first stacks may be given alone, with weights of as many.

    In the native kernel where ``supports``, which may round otherwise; else as ``gated_layer_plain``.
    """
    attended = None if weights.from_attention is None else attended
    dense = set(per_axis("dilation", dilation, weights.out.ndim - 2)) == {1}
    if dense and supports(stacks, weights, biases, attended, skip_sum, excludes_current, residual):
        return _native(stacks, weights, biases, attended, skip_sum)
    return gated_layer_plain(stacks, weights, biases, attended, skip_sum, excludes_current, residual, dilation)


def gated_layer_plain(
    stacks: Sequence[Tensor],
    weights: LayerWeights,
    biases: Sequence[Tensor] = (),
    attended: Tensor | None = None,
    skip_sum: Tensor | None = None,
    excludes_current: bool = False,
    residual: bool = True,
    dilation: PerAxis = 1,
) -> tuple[list[Tensor], Tensor]:
    """``gated_layer`` in torch's operations: the definition, in any number of dimensions."""
    pointwise, stack_convs = CONVOLVE[weights.out.ndim - 2], zip(weights.convs, weights.conv_biases, strict=True)
    convolve = partial(causal_convolution, excludes_current=excludes_current, dilation=dilation)
    convs = [partial(convolve, weight=weight, bias=bias, stack=k) for k, (weight, bias) in enumerate(stack_convs)]
    links = [partial(pointwise, weight=link) for link in weights.links]
    out = partial(pointwise, weight=weights.out, bias=weights.out_bias)
    read = None if weights.from_attention is None else partial(pointwise, weight=weights.from_attention)
    return gated_layer_of(convs, links, out, read, stacks, biases, attended, skip_sum, residual)


def gated_layer_of(
    convs: Iterable[Callable[[Tensor], Tensor]],
    links: Iterable[Callable[[Tensor], Tensor]],
    out: Callable[[Tensor], Tensor],
    read: Callable[[Tensor], Tensor] | None,
    stacks: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
    attended: Tensor | None = None,
    skip_sum: Tensor | None = None,
    residual: bool = True,
) -> tuple[list[Tensor], Tensor]:
    """``gated_layer`` of functions in place of weights, or of modules, which are called as modules are."""
    last = len(stacks) - 1
    new: list[Tensor] = []
    z, links = stacks[0], iter(links)
    for k, (x, conv) in enumerate(zip(stacks, convs, strict=True)):
        z = conv(x) + next(links)(z) if k else conv(x)
        if biases:
            z = add_per_task(z, biases[k])
        if k < last:
            new.append(gate(z) + x if residual else gate(z))
    if attended is not None and read is not None:
        z = z + read(attended)
    gated = gate(z)
    both, planes = out(gated), gated.shape[1]
    onward, skip = both.split([planes, both.shape[1] - planes], dim=1)
    new.append(stacks[last] + onward if residual else onward)
    return new, skip if skip_sum is None else skip_sum + skip


def causal_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stack: int, excludes_current: bool, dilation: PerAxis = 1
) -> Tensor:
    """``x`` ``(batch, features, *space)`` with the kernel of ``stack``: see ``CausalConv``."""
    after, taps = weight.ndim - 3 - stack, weight.shape[2 + stack]
    dilations = per_axis("dilation", dilation, weight.ndim - 2)
    reach = (taps if excludes_current else taps - 1) * dilations[stack]
    # Dimensions after the stack's see both sides; those before it are not padded. A negative pad drops the last place:
    # that is the shift.
    padded = F.pad(x, [0, 0] * after + [reach, -1 if excludes_current else 0])
    sides = [size // 2 * step for size, step in zip(weight.shape[2:], dilations, strict=True)]
    padding = [0] * (stack + 1) + sides[stack + 1 :]
    return CONVOLVE[weight.ndim - 2](padded, weight, bias, padding=padding, dilation=dilations)


def add_per_task(x: Tensor, bias: Tensor) -> Tensor:
    """Add ``bias`` ``(tasks, features, *space or ones)`` to ``x`` ``(samples * tasks, features, *space)``."""
    return (x.unflatten(0, (-1, bias.shape[0])) + bias).flatten(0, 1)


def supports(
    stacks: Sequence[Tensor],
    weights: LayerWeights,
    biases: Sequence[Tensor],
    attended: Tensor | None,
    skip_sum: Tensor | None,
    excludes_current: bool,
    residual: bool,
) -> bool:
    """Whether the native kernel takes these, which are those of ``gated_layer``: two dimensions, kernels of three
    places, where ``usable``. Under autocast to bfloat16 it needs the processor's tiles for products of such numbers.
    """
    if (
        len(stacks) != 2
        or weights.convs[0].shape[2:] != (1 if excludes_current else 2, 3)
        or residual == excludes_current
    ):
        return False
    low = bfloat16_wanted()
    given = [
        tensor if tensor is None or not low else tensor.float() for tensor in (*stacks, *biases, attended, skip_sum)
    ]
    own = [*weights.convs, *weights.conv_biases, *weights.links, weights.out, weights.out_bias]
    if not usable([*given, *own, None if attended is None else weights.from_attention], autocast=low):
        return False
    v, h = stacks
    space, features = v.shape[2:], weights.convs[0].shape[1]
    fitting = v.shape == h.shape and v.shape[1] == features and (excludes_current or features == weights.out.shape[1])
    for image, size in (
        (attended, 0 if weights.from_attention is None else weights.from_attention.shape[1]),
        (skip_sum, _skip(weights)),
    ):
        fitting &= image is None or image.shape == (len(v), size, *space)
    if biases:
        first, second = biases
        fitting &= first.shape == second.shape and first.shape[2:] in ((1, 1), space) and len(v) % len(first) == 0
    return fitting and library() is not None and (not low or has_amx())


def _skip(weights: LayerWeights) -> int:
    return weights.out.shape[0] - weights.out.shape[1]


def _native(
    stacks: Sequence[Tensor],
    weights: LayerWeights,
    biases: Sequence[Tensor],
    attended: Tensor | None,
    skip_sum: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """``gated_layer`` in the kernel. Under autocast products are of bfloat16 numbers; all else is float32."""
    low, own = bfloat16_wanted(), []
    if low:
        stacks, biases = ([tensor.float() for tensor in tensors] for tensors in (stacks, biases))
        attended, skip_sum = (None if tensor is None else tensor.float() for tensor in (attended, skip_sum))
    for k in range(2):
        bias = weights.conv_biases[k]
        assert bias is not None
        bias = bias[:, None, None]
        own.append((biases[k] + bias if biases else bias.unsqueeze(0)).flatten(2).mT)
    last = (
        *weights.convs,
        weights.links[0],
        None if attended is None else weights.from_attention,
        weights.out,
        weights.out_bias,
    )
    inputs = (*own, *stacks, attended, skip_sum, *last)
    graph = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    v, h, skip = _NativeLayer.apply(low, graph, *inputs)
    return [v, h], skip


def _plain(
    bias_v: Tensor,
    bias_h: Tensor,
    v: Tensor,
    h: Tensor,
    attended: Tensor | None,
    skip_sum: Tensor | None,
    vertical: Tensor,
    horizontal: Tensor,
    link: Tensor,
    from_attention: Tensor | None,
    out: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``gated_layer_plain`` of the kernel's inputs. biases: ``(tasks, H * W or 1, 2 * planes)``."""
    space = v.shape[2:] if bias_v.shape[1] > 1 else (1, 1)
    biases = [bias.mT.unflatten(2, space) for bias in (bias_v, bias_h)]
    weights = LayerWeights([vertical, horizontal], [None, None], [link], out, out_bias, from_attention)
    excludes_current = vertical.shape[2] == 1
    new, skip = gated_layer_plain(
        [v, h], weights, biases, attended, skip_sum, excludes_current, residual=not excludes_current
    )
    return new[0], new[1], skip


class _NativeLayer(torch.autograd.Function):
    """Inputs as those of ``_plain``, after whether products are of bfloat16, and a gradient may be asked for."""

    @staticmethod
    def forward(ctx: Any, low: bool, differentiable: bool, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        call = _Call(inputs, low)
        ctx.low, ctx.packed = low, call.packed
        v, out = call.given["v"], call.given["out"]
        planes = len(call.given["vertical"]) // 2
        new_v, new_h, skips = (_places(v, size) for size in (planes, planes, len(out) - planes))
        saved = empty_from_pool(len(v) * call.saved) if differentiable else None
        call.point(new_v=new_v, new_h=new_h, skips=skips, saved=saved)
        call.run("forward")
        ctx.save_for_backward(*inputs, saved)
        return new_v, new_h, skips

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        again = torch.is_grad_enabled()  # create_graph=True: this will be differentiated
        if again or not usable(gradients, ctx.low) or library() is None:
            return None, None, *_in_torch(inputs, gradients, wanted)
        call = _Call(inputs, ctx.low, ctx.packed)
        call.point(saved=saved, **dict(zip(GRADIENTS, gradients, strict=True)))
        found = call.gradients(wanted)
        call.run("backward")
        call.finish()
        biases = (
            found[name].unflatten(0, (-1, call.sizes["tasks"])).sum(0) if needed else None
            for name, needed in zip(("bias_v", "bias_h"), wanted[:2], strict=True)
        )
        found |= {"skip_sum": gradients[2]} if gradients[2] is not None else {}
        rest = (found.get(name) if needed else None for name, needed in zip(_INPUTS[2:], wanted[2:], strict=True))
        return None, None, *biases, *rest


def _in_torch(
    inputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's operations, which can be differentiated again if gradients are enabled."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, as one tensor may be several of the inputs.
        own = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        asked = [tensor for tensor, needed in zip(own, wanted, strict=True) if needed and tensor is not None]
        outputs = _plain(*own)  # type: ignore[arg-type]
        used = [(output, given) for output, given in zip(outputs, gradients, strict=True) if given is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in used], asked, [s for _, s in used], create_graph=again, allow_unused=True
            )
        )
    return tuple(next(found) if needed else None for needed in wanted)

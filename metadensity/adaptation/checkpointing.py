"""Trading time for memory: run a function without its graph, and again when the gradient is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def rematerialised(
    function: Callable[..., Mapping[str, Tensor]], *groups: Mapping[str, Tensor], keep: bool = False
) -> dict[str, Tensor]:
    """``function(*groups)``, keeping for the gradient only ``groups``: the graph is built anew in the backward pass.

    function: pure; its results depend on the tensors in ``groups`` alone (not on autocast), and every tensor to be
    differentiated is among them. keep: call it as it is, graph and all. The result can be differentiated
    once; create_graph=True is refused with a RuntimeError.
    torch.utils.checkpoint cannot stand in: its hooks on saved tensors are refused inside torch.func transforms, and its
    older form gives no gradients to torch.autograd.grad.
    """
    if keep or not torch.is_grad_enabled():
        return dict(function(*groups))
    names: list[str] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        results = function(*({name: next(rest) for name in group} for group in groups))
        names[:] = results
        return tuple(results.values())

    results = _Rematerialised.apply(flat, *(tensor for group in groups for tensor in group.values()))
    return dict(zip(names, results, strict=True))


def require_once(remedy: str) -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated itself.

    torch's ``once_differentiable`` lets it pass in silence, with gradients that are constants, where those that come in
    from above do not depend on the parameters.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"This gradient cannot be differentiated (create_graph=True was asked for). {remedy}")


class _Rematerialised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        require_once("InnerLoop(rematerialise=True) builds its graph anew and drops it. Set rematerialise=False.")
        wanted = ctx.needs_input_grad[1:]
        tensors = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            results = ctx.function(*tensors)
        pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if r.requires_grad]
        inputs = [tensor for tensor in tensors if tensor.requires_grad]
        outputs, upstream = [r for r, _ in pairs], [g for _, g in pairs]
        found = iter(torch.autograd.grad(outputs, inputs, upstream, allow_unused=True))
        return (None, *(next(found) if tensor.requires_grad else None for tensor in tensors))

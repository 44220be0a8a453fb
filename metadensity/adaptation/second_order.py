"""What has no second derivative is refused where an inner loop of second order would need one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

_SEEN: WeakSet[nn.Module] = WeakSet()  # models whose inner loss has been looked at


def require_second_derivatives(model: nn.Module, loss: Tensor) -> None:
    """Raise RuntimeError where the graph of ``loss`` goes through a function marked ``once_differentiable``.

    torch.func takes the derivative of such a backward pass for zero, in silence, so that a meta-gradient through it
    would be one of first order. A model is looked at once, at its first inner step of second order.
    """
    if model in _SEEN or torch.compiler.is_compiling():
        return
    if once := sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in _functions(loss) if _is_once(kind)}):
        raise RuntimeError(
            f"{type(model).__name__} goes through {', '.join(once)}, whose backward pass is marked "
            "once_differentiable: torch would give zeros for its second derivative. Take InnerLoop(first_order=True), "
            "or write a backward pass that can be differentiated and leave the mark out."
        )
    _SEEN.add(model)


def _functions(loss: Tensor) -> Iterator[type]:
    """The ``autograd.Function`` classes in the graph of ``loss``, also as torch.func wraps them."""
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [before for before, _ in node.next_functions]
        kind = getattr(type(node), "_forward_cls", None)
        if kind is not None:
            yield kind
            cells = getattr(kind.backward, "__closure__", None) or ()
            for content in (cell.cell_contents for cell in cells):
                if isinstance(content, type) and issubclass(content, torch.autograd.Function):
                    yield content


def _is_once(kind: Any) -> bool:
    """Whether the backward pass of a Function is what torch's decorator makes of one."""
    return "once_differentiable" in getattr(getattr(kind.backward, "__code__", None), "co_qualname", "")

"""Muon: momentum whose directions are all made equally long, for weight matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

_MOMENTUM = 0.9
_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic of Jordan et al.


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear and convolutional layers, AdamW for all other parameters, at one learning rate.

    A kernel ``(out, in, *taps)`` is taken as the matrix ``(out, in * taps)``. Its gradients' Nesterov momentum is
    replaced by about the nearest matrix with orthogonal rows or columns (Jordan et al. 2024, "Muon: An optimizer for
    hidden layers in neural networks"), of an RMS of 0.2 as AdamW's updates have (Liu et al. 2025, "Muon is scalable
    for LLM training"); weight decay is decoupled. Departure: embeddings and heads are not excepted.
    torch.optim.Muon takes matrices alone; here those of one shape are orthogonalised together as well.

    named: the parameters with their names; a weight is one that is called so and has two dimensions or more.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float = 0.0) -> None:
        named = list(named)
        weights = [p for name, p in named if name.rpartition(".")[2] == "weight" and p.ndim >= 2]
        chosen = {id(p) for p in weights}
        others = [p for _, p in named if id(p) not in chosen]
        super().__init__([{"params": weights}, {"params": others}], {"lr": lr, "weight_decay": weight_decay})
        self._adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay) if others else None
        if self._adamw is not None:
            self._adamw.state = self.state  # one state, to be kept and brought back as that of any optimiser

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the parameters that have gradients. There is no closure to call."""
        assert closure is None
        weights, others = self.param_groups
        if self._adamw is not None:
            self._adamw.param_groups[0].update({key: others[key] for key in ("lr", "weight_decay")})
            self._adamw.step()
        updates: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for weight in weights["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = cast(Tensor, state["momentum"]).lerp_(weight.grad, 1 - _MOMENTUM)
            update = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
            updates.setdefault(update.shape, []).append((weight, update))
        for shape, pairs in updates.items():
            directions = orthogonal(torch.stack([update for _, update in pairs])) * (0.2 * max(shape) ** 0.5)
            for (weight, _), direction in zip(pairs, directions, strict=True):
                weight.mul_(1 - weights["lr"] * weights["weight_decay"])
                weight.sub_(direction.view_as(weight), alpha=weights["lr"])


def orthogonal(matrices: Tensor) -> Tensor:
    """About U V' of matrices U S V', ``(n, rows, columns)``: five steps of a Newton-Schulz iteration in bfloat16.

    Singular values come out between 0.6 and 1.3 or so, but those below about a thousandth of the largest part (the
    Frobenius norm), which stay small; zeros stay zeros.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)

"""Gradients of parts of a step as rows of numbers, and their sum in the order of the parts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class GradientRows:
    """Reads the gradients of ``parameters`` into rows, and writes the sum of rows back.

    A row is all gradients in the order of the parameters, for each whether it has any, and further numbers. The order
    in which rows are added decides the last bits of the sum, so it is fixed: the first part first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.sizes = [parameter.numel() for parameter in self.parameters]

    def row(self, *numbers: Tensor) -> Tensor:
        """The gradients there are now, and ``numbers``, scalars that are added as well: ``(n,)``."""
        gradients = [
            torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device).flatten()
            if parameter.grad is None
            else parameter.grad.reshape(-1)
            for parameter in self.parameters
        ]
        known = torch.tensor([parameter.grad is not None for parameter in self.parameters], device=gradients[0].device)
        return torch.cat([*gradients, known.to(gradients[0].dtype), torch.stack([*numbers]).detach().to(gradients[0])])

    def set_sum(self, rows: Tensor) -> list[float]:
        """Set the gradients to the sum of ``rows`` ``(parts, n)``. Returns the sums of the further numbers.

        A parameter that has a gradient in no row has none. Gradients have the memory format of their parameter, since
        fused optimisers pair weights, gradients and moments by their place in memory.
        """
        total = rows[0].clone()
        for row in rows[1:]:
            total += row
        *pieces, rest = total.split([*self.sizes, len(total) - sum(self.sizes)])
        known, numbers = rest[: len(pieces)], rest[len(pieces) :]
        for parameter, piece, count in zip(self.parameters, pieces, known.tolist(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape)) if count else None
            assert parameter.grad is None or parameter.grad.stride() == parameter.stride()
        return [float(number) for number in numbers]

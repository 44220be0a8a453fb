"""Tables of levels: looking up and mixing categorical distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor in float32 where it is of half the precision, which is too little for log-probabilities."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def gather_levels(table: Tensor, value: Tensor) -> Tensor:
    """The entries of a table of all levels at those of images, the shape of ``value``.

    table: ``(tasks, levels, C, *space)``, or with 1 for tasks where all share it.
    value: integers ``(*sample, tasks, C, *space)``.
    """
    tasks, levels, *event_shape = table.shape
    places = math.prod(event_shape)
    index = value.long() * places + torch.arange(places, device=value.device).view(event_shape)
    if tasks > 1:
        first = torch.arange(tasks, device=value.device) * (levels * places)
        index = index + first.view(tasks, *[1] * len(event_shape))
    # Not gather: its gradient is of the size of the table for each image.
    return table.reshape(-1).index_select(0, index.reshape(-1)).view(value.shape)


def levels_of_images(tables: Tensor, value: Tensor, dims: int) -> Tensor:
    """The entries of tables that each image has of its own, at its levels: ``tables`` without the levels.

    tables: ``(..., *sample, tasks, levels, C, *space)``. value: integers ``(*sample, tasks, C, *space)``. dims: those
    of space.
    """
    index = value.long().unsqueeze(-2 - dims)
    index = index.expand(*tables.shape[: tables.ndim - index.ndim], *index.shape)
    return tables.gather(-2 - dims, index).squeeze(-2 - dims)


def mixture_logits(logits: Sequence[Tensor], dim: int) -> Tensor:
    """Logits of the mean of categorical distributions, whose levels lie along ``dim``; a single one stays as it is."""
    if len(logits) == 1:
        return logits[0]
    return logmeanexp([each.log_softmax(dim) for each in logits])


def logmeanexp(logarithms: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of what these are the logarithms of, entry by entry."""
    return torch.stack(list(logarithms)).logsumexp(0) - math.log(len(logarithms))

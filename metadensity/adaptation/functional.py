"""Calling a model with other tensors in place of its parameters, one task at a time or many at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ParameterDict = dict[str, Tensor]


class FunctionalPair(nn.Module):
    """``function(model, ...)`` as one module, so that the parameters of both can be replaced.

    function: a plain function, or a module (a learned loss) whose parameters are then named beside the model's.
    Names are those of the model after "model." and those of the function after "function.".
    """

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self.model, *args)

    def tensors(self) -> ParameterDict:
        """All parameters by name, as they are now (inside another functional call, that call's)."""
        return dict(self.named_parameters())

    def call(self, tensors: Mapping[str, Tensor], *args: Any) -> Any:
        """``function(model, *args)`` with ``tensors`` in place of the parameters of these names.

        Attention takes its plain form, the one whose gradient can be differentiated again. Autocast is off: rounded
        gradients would move the parameters elsewhere, and with custom functions inside vmap autocast gets lost.
        """
        device = next(iter(tensors.values())).device.type
        with sdpa_kernel(SDPBackend.MATH), torch.autocast(device, enabled=False):
            return torch.func.functional_call(self, dict(tensors), args)


def adapting_names(model: nn.Module, pattern: str) -> list[str]:
    """Names of the model's parameters in which ``pattern``, a regular expression, is found ("": all of them).

    Raises ValueError where there is none, or the pattern is no regular expression.
    """
    names = [name for name, _ in model.named_parameters()]
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(f"adapts={pattern!r} is no regular expression ({error}).") from error
    if not found:
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise ValueError(
            f"adapts={pattern!r} is found in the name of no parameter of {type(model).__name__}; there are {shown}. "
            "Use a regular expression that matches some, or '' for all."
        )
    return found


def map_tasks(function: Callable[..., Any], vectorise: bool, *batches: Tensor | ParameterDict) -> Any:
    """``function`` of each task's share of ``batches``, the results stacked along a new first dimension.

    batches: tensors, or dictionaries of tensors, whose first dimension is the task, of which there is at least one.
    function: gives a tensor or a dictionary of tensors. vectorise: all tasks at once with torch.func.vmap, or one
    after the other, the oracle. Both give the same.
    """
    if vectorise:
        return torch.func.vmap(function)(*batches)
    shares = zip(*map(_shares, batches), strict=True)
    results = [function(*each) for each in shares]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def _shares(batch: Tensor | ParameterDict) -> list[Any]:
    """Each task's share. By unbind, whose gradient is one stack; that of an index is a full batch of zeros a task."""
    if isinstance(batch, Tensor):
        return list(batch.unbind())
    parts = zip(*(tensor.unbind() for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]


def split_tasks(tensors: ParameterDict, sizes: list[int]) -> list[ParameterDict]:
    """The tasks of ``tensors`` in groups of these sizes; its gradient is put together once, as above."""
    parts = zip(*(tensor.split(sizes) for tensor in tensors.values()), strict=True)
    return [dict(zip(tensors, part, strict=True)) for part in parts]

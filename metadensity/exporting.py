"""Likelihoods as programs of torch's own, that run where this library is not installed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.checks import is_whole, require_sizes
from metadensity.model import FewShotModel
from metadensity.models.ngram import NGram

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_NO_PROGRAM: dict[type, str] = {
    AdaptiveModel: "adapts to each support by gradients",
    NGram: "looks up what it has counted",
}


class _LogProb(nn.Module):
    def __init__(self, model: FewShotModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        density = self.model(support)
        if not density.exact:
            raise ValueError(
                f"{type(density).__name__} gives a {density.quantity}, which is drawn anew each time; a program would "
                "hold one draw. Only exact likelihoods are exported."
            )
        return density.log_prob(query)


def export(model: FewShotModel, shots: int, tasks: int = 1, queries: int = 1) -> ExportedProgram:
    """``log_prob`` of queries given their supports as a program, for these numbers of them and no other.

    ``program.module()(support, query)`` takes int64 pixels, ``(shots, tasks, C, *space)`` and ``(queries, tasks, C,
    *space)``, on the device of the model, and gives ``(queries, tasks)`` in nats, those of the model in evaluation
    mode, without gradients. It does not look whether pixels are below ``levels``: what it gives for others means
    nothing. ``torch.export.save(program, path)`` and ``torch.export.load(path)`` need torch alone.

    shots: 0 or more. tasks, queries: 1 or more.
    Raises ValueError for other numbers, for a model that adapts by gradients of its own, as these are not part of a
    program, and for any other that torch.export cannot follow.
    """
    require_sizes(tasks=tasks, queries=queries)
    if not is_whole(shots) or shots < 0:
        raise ValueError(f"shots={shots!r}; give the number of supports, 0 or more.")
    for part in model.modules():
        for kind, does in _NO_PROGRAM.items():
            if isinstance(part, kind):
                raise ValueError(
                    f"{type(part).__name__} {does}, which torch.export cannot follow. Export a model that reads its "
                    "support in one pass of a network, such as the attention or the conditional one."
                )
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    support, query = (
        torch.zeros(count, tasks, *model.event_shape, dtype=torch.int64, device=device) for count in (shots, queries)
    )
    program = _LogProb(copy.deepcopy(model)).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            return torch.export.export(program, (support, query), strict=False)
    except RuntimeError as error:  # what torch raises where it cannot follow, of several kinds
        raise ValueError(f"torch.export cannot follow {type(model).__name__}: {str(error).strip()[:300]}") from error

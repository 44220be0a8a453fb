"""Pictures of where a model with attention looks in its supports."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from experiments.pictures import GAP, LINE, PAPER, grey
from metadensity import FewShotModel
from metadensity.episode import Episode


@torch.no_grad()
def attention_maps(model: FewShotModel, episode: Episode) -> tuple[Tensor, Tensor] | None:
    """Where the first query of each task looks on average over its ink, or over all its pixels where it has none.

    Returns maps ``(S, tasks, H, W)`` over the pixels of each support, which sum to 1 together with the second value:
    the share ``(tasks,)`` of the learned null entry. None for models without attention, for other than 2-D images, and
    for episodes without support.
    """
    density: Any = _density(model, episode)
    network = getattr(density, "network", None)
    if network is None or getattr(network, "attention", None) is None or len(model.event_shape) != 3:
        return None
    shots, tasks = episode.support.shape[:2]
    if not shots or density.condition.memory is None:
        return None
    query = episode.query[0].to(next(model.parameters()).device)
    weights = network.attention_weights(query, density.condition)[0]  # (tasks, J, H, W)
    ink = query.float().mean(1)  # (tasks, H, W)
    ink = torch.where(ink.sum((1, 2), keepdim=True) > 0, ink, torch.ones_like(ink))
    share = (weights * ink[:, None]).sum((2, 3)) / ink.sum((1, 2))[:, None]  # (tasks, J)
    grid = tuple(model.patches.grid)  # type: ignore[union-attr,arg-type]
    patches = share[:, :-1].reshape(tasks * shots, 1, *grid)
    size = model.event_shape[1:]
    spread = F.interpolate(patches, size=size, mode="nearest")
    spread = spread * (patches.sum((2, 3), keepdim=True) / spread.sum((2, 3), keepdim=True).clamp_min(1e-30))
    return spread.view(tasks, shots, *size).transpose(0, 1).cpu(), share[:, -1].cpu()


def attention_picture(model: FewShotModel, episode: Episode) -> NDArray[np.uint8] | None:
    """One row a task: the query, a line, its supports with what is looked at in red. Returns ``(H', W', 3)`` or None.

    The strongest red of a row is its largest weight, so rows do not compare in strength.
    """
    found = attention_maps(model, episode)
    if found is None or model.event_shape[0] not in (1, 3):
        return None
    maps, _ = found
    supports = grey(episode.support, model.levels).expand(-1, -1, 3, -1, -1).float()
    strength = (maps / maps.amax((0, 2, 3), keepdim=True).clamp_min(1e-30))[:, :, None]
    red = torch.tensor([220.0, 30.0, 30.0]).view(3, 1, 1)
    supports = supports * (1 - 0.7 * strength) + 0.7 * strength * red
    query = grey(episode.query[:1], model.levels).expand(-1, -1, 3, -1, -1).float()
    rows = []
    for task in range(supports.shape[1]):
        cells = [F.pad(image, (GAP // 2,) * 4, value=PAPER) for image in (*query[:, task], *supports[:, task])]
        line = torch.full((3, cells[0].shape[1], 1), float(LINE))
        rows.append(torch.cat([cells[0], line, *cells[1:]], dim=2))
    return torch.cat(rows, dim=1).permute(1, 2, 0).round().to(torch.uint8).numpy()


def _density(model: FewShotModel, episode: Episode) -> Any:
    training = model.training
    model.eval()
    try:
        return model(episode.support.to(next(model.parameters()).device))
    finally:
        model.train(training)

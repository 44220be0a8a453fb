"""Attention maps: the weight of each support patch, for single pixels and on average over the foreground."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from experiments.figures.images import GAP, LINE, PAPER
from metadensity import Density, FewShotModel
from metadensity.density import SequentialDensity
from metadensity.episode import Episode
from metadensity.nn.encoders import SupportPatchEncoder
from tasks.media import as_shown

RED = torch.tensor([220.0, 30.0, 30.0])


@torch.no_grad()
def patch_attention(model: FewShotModel, support: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Attention weights of each pixel of one image a task over the patches of its supports.

    support: ``(S, tasks, C, *space)``; value: ``(tasks, C, *space)``. Returns the weight on each patch of each support,
    ``(tasks, S, *grid, *space)``, and the weight on the learned null entry, ``(tasks, *space)``; they sum to one.
    None for models without attention, and for episodes without support.
    """
    device = next(model.parameters()).device
    encoder = next((module for module in model.modules() if isinstance(module, SupportPatchEncoder)), None)
    density = _density(model, support.to(device))
    if encoder is None or not isinstance(density, SequentialDensity) or not density.has_attention or not len(support):
        return None
    weights = density.attention_weights(value.to(device))
    patches = weights[:, :-1].unflatten(1, (len(support), *encoder.grid))
    return patches.cpu(), weights[:, -1].cpu()


def attention_maps(model: FewShotModel, episode: Episode, ink: bool = False) -> tuple[Tensor, Tensor] | None:
    """Mean attention of the first query of each task over its foreground, or over all pixels where it has none.

    Returns maps ``(S, tasks, H, W)`` over the pixels of each support, which sum to 1 together with the second value:
    the share ``(tasks,)`` of the learned null entry. None for models without attention, for other than 2-D images, and
    for episodes without support.
    """
    found = patch_attention(model, episode.support, episode.query[0]) if len(model.event_shape) == 3 else None
    if found is None:
        return None
    patches, nowhere = found
    weight = foreground(episode.query[0], ink)
    weight = torch.where(weight.sum((1, 2), keepdim=True) > 0, weight, torch.ones_like(weight))
    weight = weight / weight.sum((1, 2), keepdim=True)
    shares = (patches * weight[:, None, None, None]).sum((-2, -1))  # (tasks, S, *grid)
    size = model.event_shape[1:]
    spread = F.interpolate(shares, size=size, mode="nearest")
    spread = spread * (shares.sum((2, 3), keepdim=True) / spread.sum((2, 3), keepdim=True).clamp_min(1e-30))
    return spread.transpose(0, 1), (nowhere * weight).sum((1, 2))


def foreground(images: Tensor, ink: bool = False) -> Tensor:
    """How much each pixel of ``(tasks, C, H, W)`` differs from the background, ``(tasks, H, W)``.

    Where the last level is ``ink``, how much of it there is; otherwise the distance to the image's median level,
    channel by channel: that of the paper of a drawing, be it white or black.
    """
    x = images.float()
    paper = 0.0 if ink else x.flatten(2).median(-1).values[..., None, None]
    return (x - paper).abs().mean(1)


def attention_picture(model: FewShotModel, episode: Episode, ink: bool = False) -> NDArray[np.uint8] | None:
    """One row a task: the query, a line, its supports with what is looked at marked. Returns ``(H', W', 3)`` or None.

    Marked in red; in colour images, which red would hide, what is not looked at is dark instead. The strongest mark of
    a row is its largest weight, so rows do not compare in strength.
    """
    found = attention_maps(model, episode, ink)
    if found is None or model.event_shape[0] not in (1, 3):
        return None
    maps, _ = found
    query = _in_colour(episode.query[:1], model.levels, ink)
    return _rows([(query, _marked(episode.support, maps, model.levels, ink))])


def pixel_picture(model: FewShotModel, episode: Episode, pixels: int, ink: bool = False) -> NDArray[np.uint8] | None:
    """Where single pixels look. Returns ``(H', W', 3)``, or None where there is no attention to show.

    One row a task. For each of so many pixels, spread over the ink of the query in the order of drawing: the query as
    it stands when that pixel (red) comes, what is still to come being pale, then the supports, marked as in
    ``attention_picture``. Raises ValueError unless ``pixels`` is at least 1.
    """
    if pixels < 1:
        raise ValueError(f"pixels={pixels}; show at least 1.")
    if len(model.event_shape) != 3 or model.event_shape[0] not in (1, 3):
        return None
    found = patch_attention(model, episode.support, episode.query[0])
    if found is None:
        return None
    query = episode.query[0]
    size = query.shape[2:]
    blocks = []
    for places in zip(*(_spread(mask, pixels) for mask in foreground(query, ink)), strict=True):
        maps = torch.stack([found[0][(task, ..., *divmod(place, size[1]))] for task, place in enumerate(places)], 1)
        maps = F.interpolate(maps, size=size, mode="nearest")
        drawn = _in_colour(query[None], model.levels, ink)
        coming = torch.arange(size.numel()) > torch.tensor(places)[:, None]
        drawn = torch.where(coming.view(-1, 1, *size), 0.25 * drawn + 0.75 * PAPER, drawn)
        for task, place in enumerate(places):
            drawn[(0, task, slice(None), *divmod(place, size[1]))] = RED
        blocks.append((drawn, _marked(episode.support, maps, model.levels, ink)))
    return _rows(blocks)


def _spread(mask: Tensor, count: int) -> list[int]:
    """So many places of the strongest ink of an image ``(H, W)``, evenly in the order of drawing."""
    inked = (mask >= mask.max() / 2).flatten().nonzero().flatten().tolist()
    return [inked[(2 * k + 1) * len(inked) // (2 * count)] for k in range(count)]


def _in_colour(images: Tensor, levels: int, ink: bool) -> Tensor:
    return as_shown(images, levels, ink).expand(-1, -1, 3, -1, -1).float()


def _marked(support: Tensor, maps: Tensor, levels: int, ink: bool) -> Tensor:
    """Supports ``(S, tasks, 3, H, W)`` with what is looked at marked; a task's strongest mark is its largest weight."""
    supports = _in_colour(support, levels, ink)
    strength = (maps / maps.amax((0, 2, 3), keepdim=True).clamp_min(1e-30))[:, :, None]
    if support.shape[2] == 3:
        return supports * (0.2 + 0.8 * strength)
    return supports * (1 - 0.7 * strength) + 0.7 * strength * RED.view(3, 1, 1)


def _rows(blocks: list[tuple[Tensor, Tensor]]) -> NDArray[np.uint8]:
    """One row a task; in it each block's query ``(1, tasks, 3, H, W)``, a line, and its supports."""
    rows = []
    for task in range(blocks[0][0].shape[1]):
        pieces: list[Tensor] = []
        for query, supports in blocks:
            cells = [F.pad(image, (GAP // 2,) * 4, value=PAPER) for image in (*query[:, task], *supports[:, task])]
            line = torch.full((3, cells[0].shape[1], 1), float(LINE))
            space = torch.full((3, cells[0].shape[1], 3 * GAP), float(PAPER))
            pieces += [*([space] if pieces else []), cells[0], line, *cells[1:]]
        rows.append(torch.cat(pieces, dim=2))
    return torch.cat(rows, dim=1).permute(1, 2, 0).round().to(torch.uint8).numpy()


def _density(model: FewShotModel, support: Tensor) -> Density:
    training = model.training
    model.eval()
    try:
        return model(support)
    finally:
        model.train(training)

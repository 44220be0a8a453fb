"""Scoring many images against one support: the support encoded once (ours), and for each image anew (peer)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.timing import Row, interleaved, row
from metadensity import FewShotModel
from metadensity.models import MODELS


def rows(quick: bool) -> list[Row]:
    """1,000 images against 8 supports, in batches of 100 on both sides."""
    images, batch, side, repeats = (6, 3, 6, 2) if quick else (1000, 100, 26, 3)
    sizes: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4} if quick else {}
    found = []
    for name, options in (("conditional", {}), ("attention", {"attention": "dot"}), ("attention", {})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MODELS[name]((1, side, side), 2, **sizes, **options)
            support = torch.randint(2, (8, 1, 1, side, side), dtype=torch.uint8)
            values = torch.randint(2, (images, 1, 1, side, side), dtype=torch.uint8)
        given = (model, support, values, batch)
        torch.testing.assert_close(once(*given), anew(*given))
        seconds = interleaved({"once": partial(once, *given), "anew": partial(anew, *given)}, repeats, warm=False)
        kind = "" if name == "conditional" else f", {options.get('attention', 'additive')}"
        title = f"likelihood: {images} images given one support of 8, {name}{kind}; encoded once, for each image"
        found.append(row(title, seconds["once"], seconds["anew"], images_per_s=images / seconds["once"]))
    return found


@torch.no_grad()
def once(model: FewShotModel, support: Tensor, values: Tensor, batch: int) -> Tensor:
    """Nats of ``values`` ``(N, 1, C, *space)`` given ``support`` ``(S, 1, C, *space)``: ``(N,)``."""
    density = model(support)
    return torch.cat([density.log_prob(part).squeeze(1) for part in values.split(batch)])


@torch.no_grad()
def anew(model: FewShotModel, support: Tensor, values: Tensor, batch: int) -> Tensor:
    """The same where each image comes with the support, as a task of its own."""
    parts = [part.squeeze(1) for part in values.split(batch)]
    return torch.cat([model(support.expand(-1, len(part), *support.shape[2:])).log_prob(part) for part in parts])

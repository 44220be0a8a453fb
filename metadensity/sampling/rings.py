"""The cached sampler of networks over symbols, which give the features of one place after another."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from metadensity.drawing import Draws
from metadensity.networks.bytenet import SymbolNetwork
from metadensity.networks.conditioning import Conditioning


def sample_with_rings(network: SymbolNetwork, condition: Conditioning, draws: Draws) -> Tensor:
    """Sample a place at a time, at a cost that grows with neither field nor length; see ``sample_by_logits``."""
    pixels = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
    flat, draws, step = pixels.flatten(2), draws.map(lambda part: part.flatten(2)), network.steps(condition)
    with torch.inference_mode():
        for place in range(flat.shape[2]):
            features, here = step(flat, place), flat[..., place]
            for channel in range(flat.shape[1]):
                index: Any = (slice(None), channel, place)
                logits = network.head.logits_at(features, here, channel)
                flat[index] = draws.map(operator.itemgetter(index)).levels(logits)
    return pixels

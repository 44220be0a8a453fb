"""The cached sampler of a network that speaks relative to a linear prediction."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from metadensity.drawing import Draws
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.predicted import PredictedPixelCNN, given_by, predictor_of
from metadensity.nn.linear_prediction import Predicting
from metadensity.sampling.cached import CachedSampler
from metadensity.sampling.naive import sample_by_logits


def sample_predicted(network: PredictedPixelCNN, condition: Conditioning, draws: Draws) -> Tensor:
    """Sample a place at a time, at a cost that grows with neither field nor length; see ``sample_by_logits``."""
    if not network.is_plain:
        return sample_by_logits(lambda pixels: network(pixels, condition), draws)
    codes = torch.zeros(draws.uniforms.shape, dtype=torch.long, device=draws.uniforms.device)
    predictor, batch = predictor_of(condition), len(codes)
    with torch.inference_mode():
        sampler = CachedSampler(network, condition, batch, compiled=False)
        predicting = Predicting(predictor, batch // condition.tasks)
        sampler.begin_line(())
        for place in range(codes.shape[-1]):
            mean, scale = predicting.next()
            given = torch.stack(given_by(predictor, mean, scale), -1).flatten(0, 1)
            features = torch.cat([sampler.step((), place).to(given), given], 1)
            index: Any = (slice(None), 0, place)
            logits = network.head.logits_at(features, codes[..., place], 0)
            codes[index] = draws.map(operator.itemgetter(index)).levels(logits)
            here = codes[index].view_as(mean)
            x = predicting.put(here, mean)
            inputs = torch.stack(network.input.relative(here, x, mean, scale), -1).flatten(0, 1)
            sampler.put(0, place, inputs.to(features))
    return codes

"""What a network is given of the supports."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadensity.nn.attention import Memory
from metadensity.nn.linear_prediction import Predictor


@dataclass(frozen=True)
class Conditioning:
    """All a network needs of the supports of a batch of tasks, computed once.

    tasks: number of tasks in the batch.
    biases: for each layer and stack what is added to its gates, ``(tasks, 2 * planes, 1, ...)``;
        empty lists where nothing is.
    memory: what attention looks at, or None.
    prior: scores of the prototypes before any pixel, ``(tasks, prototypes)``, or None.
    predictor: the linear prediction that the network speaks relative to, or None.
    """

    tasks: int
    biases: list[list[Tensor]]
    memory: Memory | None = None
    prototype_logits: Tensor | None = None
    predictor: Predictor | None = None

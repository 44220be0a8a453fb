"""Few-shot likelihoods with intervals that respect the grouping of the images."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from metadensity.episode import Episode
from metadensity.models.base import FewShotModel


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihoods of queries at one number of shots, in nats/image.

    nats: ``(n,)``. clusters: ``(n,)`` int64, the class of each query (each task its own where ids are unknown).
    groups, queries: ``(n,)`` int64, the group of the class and the id of the image, or -1 where unknown.
    """

    nats: NDArray[np.float64]
    clusters: NDArray[np.int64]
    groups: NDArray[np.int64]
    queries: NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """The likelihood at one number of shots. interval: 95 %, in nats/image, over ``classes`` clusters."""

    shots: int
    nats_per_image: float
    interval: tuple[float, float]
    nats_per_dim: float
    bits_per_dim: float
    images: int
    classes: int


@dataclass(frozen=True)
class Evaluation:
    """Rows by number of shots, ascending, and the scores behind them."""

    rows: list[Row]
    scores: dict[int, Scores] = field(repr=False)

    def row(self, shots: int) -> Row:
        """The row of one number of shots. Raises KeyError where it was not evaluated."""
        for row in self.rows:
            if row.shots == shots:
                return row
        raise KeyError(f"shots={shots} was not evaluated; there are {[row.shots for row in self.rows]}.")


def evaluate(model: FewShotModel, episodes: Iterable[Episode], precision: str = "float32") -> Evaluation:
    """Score the queries of ``episodes`` given their supports, one row for each number of shots among them.

    The model's mode and torch's random state are as before afterwards. Raises ValueError where there is no query to
    score, and where a score is not a number.
    """
    parts: dict[int, list[Scores]] = defaultdict(list)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tasks_seen = 0
    with evaluating(model), torch.no_grad(), autocast(device, precision):
        for episode in episodes:
            on_device = episode.to(device)
            nats = -model(on_device.support).log_prob(on_device.query)
            parts[episode.shots].append(_scores(episode, nats, tasks_seen))
            tasks_seen += episode.tasks
    if not any(len(part.nats) for found in parts.values() for part in found):
        raise ValueError("There is nothing to evaluate: no episode held a query. Pass at least one Episode with one.")
    for shots, found in parts.items():
        if bad := sum(int(np.isnan(part.nats).sum()) for part in found):
            raise ValueError(
                f"log p is nan for {bad} of {sum(len(part.nats) for part in found)} queries at shots={shots}: the "
                "weights are damaged or the numbers too large. Use an earlier checkpoint, or precision='float32'."
            )
    dims = math.prod(model.event_shape)
    scores = {
        shots: Scores(
            *(np.concatenate([getattr(part, name) for part in found]) for name in Scores.__dataclass_fields__)
        )
        for shots, found in sorted(parts.items())
    }
    return Evaluation([summarise(shots, found, dims) for shots, found in scores.items()], scores)


def summarise(shots: int, scores: Scores, dims: int) -> Row:
    """Mean and 95 % interval of scores in nats/image; ``dims`` is the number of pixels times channels."""
    mean, (low, high) = clustered_mean(scores.nats, scores.clusters)
    return Row(
        shots=shots,
        nats_per_image=mean,
        interval=(low, high),
        nats_per_dim=mean / dims,
        bits_per_dim=mean / dims / math.log(2),
        images=len(scores.nats),
        classes=len(np.unique(scores.clusters)),
    )


def clustered_mean(
    values: NDArray[np.float64], clusters: NDArray[np.int64], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Mean and its cluster-robust interval: values of one cluster may depend on each other in any way.

    The variance is G / (G - 1) * sum_g (sum of the residuals of cluster g)^2 / n^2 over G clusters, the quantile
    Student's with G - 1 degrees of freedom (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust
    Inference", section II). One cluster has no interval: it is infinite.
    """
    mean = float(values.mean())
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    if count < 2:
        return mean, (-math.inf, math.inf)
    error = math.sqrt(count / (count - 1) * float(np.square(sums).sum())) / len(values)
    half = float(student_t.ppf((1 + level) / 2, count - 1)) * error
    return mean, (mean - half, mean + half)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, outside the mode of every module from before."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:  # one by one, as a part may be frozen
            module.training = training


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 autocast where ``precision`` says so. Raises ValueError for a precision there is not."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision={precision!r}; choose one of 'float32', 'bfloat16'.")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _scores(episode: Episode, nats: torch.Tensor, tasks_seen: int) -> Scores:
    shape = tuple(nats.shape)

    def spread(ids: torch.Tensor | None, default: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.broadcast_to(default if ids is None else ids.numpy(), shape).ravel().astype(np.int64)

    unknown = np.full(shape, -1, np.int64)
    return Scores(
        nats.double().cpu().numpy().ravel(),
        spread(episode.class_ids, np.arange(tasks_seen, tasks_seen + shape[1])),
        spread(episode.group_ids, unknown),
        spread(episode.query_ids, unknown),
    )

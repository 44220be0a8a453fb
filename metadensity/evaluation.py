"""Few-shot likelihoods with intervals that respect the grouping of the images."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from metadensity.cost import Cost, measured
from metadensity.episode import Episode
from metadensity.leaks import guard_support
from metadensity.models.base import FewShotModel


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihoods of queries at one number of shots, in nats/image.

    One value a query, by task and then by query, in the order of the episodes however they were batched. nats:
    ``(n,)``. clusters: ``(n,)`` int64, the class of each query (each task its own where ids are unknown).
    groups, queries: ``(n,)`` int64, the group of the class and the id of the image, or -1 where unknown.
    """

    nats: NDArray[np.float64]
    clusters: NDArray[np.int64]
    groups: NDArray[np.int64]
    queries: NDArray[np.int64]

    def of(self, which: NDArray[np.bool_]) -> Scores:
        """Those of the queries that ``which``, ``(n,)``, picks."""
        return Scores(*(getattr(self, name)[which] for name in Scores.__dataclass_fields__))


@dataclass(frozen=True)
class Row:
    """The likelihood at one number of shots. interval: 95 %, in nats/image, over ``classes`` clusters.

    group_interval: the same over ``groups`` clusters, for classes of one group depend on each other as well (the
    characters of an alphabet); None where there are fewer than two. identical: how many queries had the pixels of an
    image of their support (see ``metadensity.leaks``).
    """

    shots: int
    nats_per_image: float
    interval: tuple[float, float]
    nats_per_dim: float
    bits_per_dim: float
    images: int
    classes: int
    groups: int = 0
    group_interval: tuple[float, float] | None = None
    identical: int = 0


@dataclass(frozen=True)
class GroupRow:
    """The likelihood of one group (an alphabet) at one number of shots. interval: 95 %, over its classes."""

    shots: int
    group: int
    nats_per_image: float
    interval: tuple[float, float]
    images: int
    classes: int


@dataclass(frozen=True)
class Evaluation:
    """Rows by number of shots, ascending, the scores behind them, and what they cost."""

    rows: list[Row]
    scores: dict[int, Scores] = field(repr=False)
    cost: Cost | None = field(default=None, repr=False, compare=False)

    def row(self, shots: int) -> Row:
        """The row of one number of shots. Raises KeyError where it was not evaluated."""
        for row in self.rows:
            if row.shots == shots:
                return row
        raise KeyError(f"shots={shots} was not evaluated; there are {[row.shots for row in self.rows]}.")

    def by_group(self) -> list[GroupRow]:
        """One row for each group and number of shots, by group; groups of unknown id (-1) are left out."""
        found = []
        for group in sorted({int(group) for part in self.scores.values() for group in part.groups} - {-1}):
            for shots, part in self.scores.items():
                inside = part.groups == group
                if inside.any():
                    clusters = part.clusters[inside]
                    mean, interval = clustered_mean(part.nats[inside], clusters)
                    classes = len(np.unique(clusters))
                    found.append(GroupRow(shots, group, mean, interval, int(inside.sum()), classes))
        return found


def evaluate(
    model: FewShotModel, episodes: Iterable[Episode], precision: str = "float32", duplicates: str = "trust_ids"
) -> Evaluation:
    """Score the queries of ``episodes`` given their supports, one row for each number of shots among them.

    The model's mode and torch's random state are as before afterwards. duplicates: what to do about a query with the
    pixels of a support image, see ``metadensity.leaks.guard_support``; "drop" leaves it out of the scores.

    Raises SupportLeakError where a query is in its own support, ValueError where there is no query to score, and
    where a score is not a number.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def log_prob(episode: Episode) -> torch.Tensor:
        return model(episode.support).log_prob(episode.query)

    with measured(model, device) as cost, evaluating(model), torch.no_grad(), autocast(device, precision):
        result = score(log_prob, episodes, device, duplicates)
        cost.images = sum(row.images for row in result.rows)
    return replace(result, cost=cost)


def score(
    log_prob: Callable[[Episode], torch.Tensor],
    episodes: Iterable[Episode],
    device: torch.device | str = "cpu",
    duplicates: str = "trust_ids",
) -> Evaluation:
    """The evaluation of any function that gives log p ``(Q, tasks)`` of an episode's queries, in nats.

    It is given episodes with their pixels on ``device``. Raises as ``evaluate`` does.
    """
    parts: dict[int, list[Scores]] = defaultdict(list)
    identical: dict[int, int] = defaultdict(int)
    tasks_seen, dims = 0, 1
    for episode in episodes:
        same = guard_support(episode, duplicates).cpu().T.numpy().ravel()
        nats = -log_prob(episode.to(device))
        part = _scores(episode, nats, tasks_seen)
        parts[episode.shots].append(part.of(~same) if duplicates == "drop" else part)
        identical[episode.shots] += int(same.sum())
        tasks_seen, dims = tasks_seen + episode.tasks, math.prod(episode.event_shape)
    if not any(len(part.nats) for found in parts.values() for part in found):
        raise ValueError("There is nothing to evaluate: no episode held a query. Pass at least one Episode with one.")
    for shots, found in parts.items():
        if bad := sum(int(np.isnan(part.nats).sum()) for part in found):
            raise ValueError(
                f"log p is nan for {bad} of {sum(len(part.nats) for part in found)} queries at shots={shots}: the "
                "weights are damaged or the numbers too large. Use an earlier checkpoint, or precision='float32'."
            )
    scores = {
        shots: Scores(
            *(np.concatenate([getattr(part, name) for part in found]) for name in Scores.__dataclass_fields__)
        )
        for shots, found in sorted(parts.items())
    }
    return Evaluation([summarise(shots, found, dims, identical[shots]) for shots, found in scores.items()], scores)


def summarise(shots: int, scores: Scores, dims: int, identical: int = 0) -> Row:
    """Mean and 95 % intervals of scores in nats/image; ``dims`` is the number of pixels times channels."""
    mean, interval = clustered_mean(scores.nats, scores.clusters)
    groups = count_groups(scores.groups)
    return Row(
        shots=shots,
        nats_per_image=mean,
        interval=interval,
        nats_per_dim=mean / dims,
        bits_per_dim=mean / dims / math.log(2),
        images=len(scores.nats),
        classes=len(np.unique(scores.clusters)),
        groups=groups,
        group_interval=clustered_mean(scores.nats, scores.groups)[1] if groups > 1 else None,
        identical=identical,
    )


def count_groups(groups: NDArray[np.int64]) -> int:
    """How many groups there are; 0 where the group of any image is unknown."""
    return 0 if (groups < 0).any() else len(np.unique(groups))


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
        # By task first, so that the order is the same however the tasks are batched.
        return np.broadcast_to(default if ids is None else ids.numpy(), shape).T.ravel().astype(np.int64)

    unknown = np.full(shape, -1, np.int64)
    return Scores(
        nats.double().cpu().numpy().T.ravel(),
        spread(episode.class_ids, np.arange(tasks_seen, tasks_seen + shape[1])),
        spread(episode.group_ids, unknown),
        spread(episode.query_ids, unknown),
    )

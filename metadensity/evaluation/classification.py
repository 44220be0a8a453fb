"""A few-shot density as a classifier: the posterior over n classes from p(query | support of each class)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import require_count
from metadensity.evaluation.distances import pixel_distances
from metadensity.evaluation.intervals import Floats, bounded_mean, clustered_mean
from metadensity.evaluation.likelihood import autocast, evaluating
from metadensity.evaluation.nway import NWayEpisodes
from metadensity.model import FewShotModel
from metadensity.processes import current


@dataclass(frozen=True)
class ReliabilityBin:
    """Queries whose top posterior lies in ``[low, high)``, the last bin including 1."""

    low: float
    high: float
    queries: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Classification:
    """How well a posterior over ``ways`` classes does, with 95 % intervals.

    over: what the intervals are over, and how many: further "classes", further "images" of the same classes, or only
        further "episodes" of the same images. See ``NWayEpisodes.dependence``.

    accuracy: share of queries whose class has the highest posterior; k tied classes count 1 / k. Chance is 1 / ways.
    nll: mean of -log posterior of the true class, nats; a uniform posterior has log(ways).
    ece: expected calibration error of the top posterior, sum over bins of share * |accuracy - confidence|
        (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3). Not below 0, so its noise adds up:
        compare it only at equal numbers of queries.
    per_episode: ``(episodes,)`` accuracies.
    """

    ways: int
    episodes: int
    queries: int
    chance: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    nll: float
    nll_interval: tuple[float, float]
    ece: float
    bins: list[ReliabilityBin] = field(repr=False)
    per_episode: Floats = field(repr=False)
    over: tuple[int, str] = (0, "episodes")


@torch.no_grad()
def class_log_probs(
    model: FewShotModel,
    episodes: NWayEpisodes,
    images_per_batch: int = 64,
    precision: str = "float32",
    both_ways: bool = False,
) -> Floats:
    """log p(query | support of each way) in nats, ``(episodes, queries, ways)``.

    The ways of an episode are the tasks of a batch, so each support is encoded once for all queries. Several episodes
    share a batch where they fit: about ``images_per_batch`` pairs of a query and a way go through the model at a time.
    both_ways: whether what the query says of the supports is added, log p(support | query) - log p(support), each
    support image by itself: a score, no longer a log-probability, for ``1 + shots`` times the work.
    The model's mode and torch's random state are as before afterwards. Of sequences with lengths the real places count.
    Several processes (``metadensity.processes``) share the batches.

    Raises ValueError where the images do not fit the model, a log-probability is nan, or the density is a bound.
    """
    episodes.require_fit(model.event_shape, model.levels)
    require_count("images_per_batch", images_per_batch, 1)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    together = max(1, images_per_batch // (episodes.ways * episodes.queries))
    processes, own = current(), {}
    with evaluating(model), autocast(device, precision):
        for batch, start in enumerate(range(0, len(episodes), together)):
            if not processes.does(batch):
                continue
            part = episodes[start : start + together]
            support = part.support.to(device).movedim(2, 0).flatten(1, 2)  # (shots, episodes * ways, C, *space)
            lengths = part.support_lengths
            density = model(support, None if lengths is None else lengths.to(device).movedim(2, 0).flatten(1, 2))
            if not density.exact:
                raise ValueError(
                    f"{type(model).__name__} gives a {density.quantity}: a bound is off by another amount for each "
                    "class, so it makes no posterior. Classify with a model whose density is exact."
                )
            query = part.query.to(device).transpose(0, 1)  # (queries, episodes, C, *space)
            query = query[:, :, None].expand(-1, -1, part.ways, *query.shape[2:])
            chunk = max(1, images_per_batch // (len(part) * part.ways))
            if part.query_lengths is None:
                scores = [density.log_prob(piece.flatten(1, 2)) for piece in query.split(chunk)]
            else:
                real = part.query_lengths.to(device).T[:, :, None].expand(-1, -1, part.ways)
                pieces = zip(query.split(chunk), real.split(chunk), strict=True)
                scores = [density.prefix_log_prob(one.flatten(1, 2), own.flatten(1, 2)) for one, own in pieces]
            log_probs = torch.cat(scores).unflatten(1, (len(part), part.ways)).transpose(0, 1)
            if both_ways and part.shots:
                log_probs = log_probs + torch.stack(
                    [_of_supports(model, part[i : i + 1], images_per_batch, device) for i in range(len(part))]
                )
            own[batch] = log_probs.double().cpu().tolist()
    known = {int(batch): found for each in processes.values(own) for batch, found in each.items()}
    return _require_numbers(np.concatenate([np.array(known[batch], np.float64) for batch in sorted(known)]))


def _of_supports(model: FewShotModel, one: NWayEpisodes, images_per_batch: int, device: torch.device) -> Tensor:
    """log p(supports of each way | query) - log p(supports) of one episode, ``(queries, ways)``; a query is a task."""
    supports, query = one.support[0].flatten(0, 1).to(device), one.query.to(device)  # (ways * shots, C, *space)
    lengths = None if one.support_lengths is None else one.support_lengths[0].flatten().to(device)
    given, nothing = None if one.query_lengths is None else one.query_lengths.to(device), query[:0, :1]
    found = []
    for density, tasks in ((model(query, given), one.queries), (model(nothing), 1)):
        parts = []
        for chosen in torch.arange(len(supports), device=device).split(max(1, images_per_batch // tasks)):
            value = supports[chosen].unsqueeze(1).expand(-1, tasks, *supports.shape[1:])
            if lengths is None:
                parts.append(density.log_prob(value))
            else:
                parts.append(density.prefix_log_prob(value, lengths[chosen].unsqueeze(1).expand(-1, tasks)))
        found.append(torch.cat(parts))
    gain = found[0] - found[1]  # (images, queries)
    return gain.unflatten(0, (one.ways, one.shots)).sum(1).T


@torch.no_grad()
def class_log_probs_reference(model: FewShotModel, episodes: NWayEpisodes) -> Floats:
    """``class_log_probs`` with one support set and one query at a time: the oracle."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found = np.zeros((len(episodes), episodes.queries, episodes.ways))
    with evaluating(model):
        for e, q, w in np.ndindex(*found.shape):
            lengths, real = episodes.support_lengths, episodes.query_lengths
            given = None if lengths is None else lengths[e, w, :, None].to(device)
            density = model(episodes.support[e, w, :, None].to(device), given)
            query = episodes.query[e, q][None].to(device)
            if real is None:
                own = density.log_prob(query)
            else:
                own = density.prefix_log_prob(query, real[e, q, None].to(device))
            found[e, q, w] = own.item()
    return _require_numbers(found)


def nearest_neighbour_scores(episodes: NWayEpisodes, levels: int) -> Floats:
    """Minus the distance of each query to the nearest support image of each way, ``(episodes, queries, ways)``.

    The baseline without a model: its highest score is the pixel-space nearest neighbour. For the distance see
    ``pixel_distances``; sequences with lengths hold the middle level, silence in mu-law, beyond them.
    Raises ValueError without supports.
    """
    if not episodes.shots:
        raise ValueError("shots=0: without supports there is no nearest neighbour. Use episodes with at least 1 shot.")
    episodes = episodes.filled(levels // 2)
    references = episodes.support.flatten(1, 2).transpose(0, 1)
    distances = pixel_distances(episodes.query.transpose(0, 1), references, levels)  # (queries, episodes, ways * shots)
    nearest = distances.unflatten(2, (episodes.ways, episodes.shots)).amin(3)
    return -nearest.transpose(0, 1).numpy()


def posterior(log_probs: Floats) -> Floats:
    """Log posterior over the last dimension, under a uniform prior: ``log p_c - log sum_k p_k``.

    A query that is impossible under every class says nothing about them: its posterior is uniform.
    """
    impossible = (log_probs == -np.inf).all(-1, keepdims=True)
    safe = np.where(impossible, 0.0, log_probs)
    from scipy.special import logsumexp  # takes half a second to import

    return np.asarray(safe - logsumexp(safe, axis=-1, keepdims=True))


def tie_aware_accuracy(scores: Floats, label: NDArray[np.int64]) -> Floats:
    """1 where the true class alone has the highest score, 1 / k where it shares it with others, else 0.

    This is the expected accuracy when ties are broken at random: scores that ignore the support get exactly chance.
    scores: ``(..., ways)``; label: ``(...)``.
    """
    top = scores == scores.max(-1, keepdims=True)
    return np.asarray(np.take_along_axis(top, label[..., None], -1)[..., 0] / top.sum(-1))


def classification(
    log_probs: Floats,
    label: NDArray[np.int64],
    bins: int = 10,
    dependence: tuple[NDArray[np.int64], str] | None = None,
) -> Classification:
    """Accuracy and calibration of the posterior under a uniform prior over the classes.

    log_probs: ``(episodes, queries, ways)`` nats. label: ``(episodes, queries)``. bins: equal widths over [0, 1].
    dependence: what the intervals are over, of ``NWayEpisodes.dependence``; None takes episodes for independent, which
        they are not where images or classes come again.
    Raises ValueError for shapes that do not fit, labels out of range, nan, or fewer than one bin.
    """
    if log_probs.ndim != 3 or label.shape != log_probs.shape[:2] or not log_probs.size:
        raise ValueError(
            f"log_probs {log_probs.shape} and label {label.shape}; give (episodes, queries, ways) and "
            "(episodes, queries), at least one of each."
        )
    episodes, queries, ways = log_probs.shape
    if label.min() < 0 or label.max() >= ways:
        raise ValueError(f"label holds {label.min()} to {label.max()}; with {ways} ways give 0 to {ways - 1}.")
    log_posterior = posterior(_require_numbers(log_probs))
    right = tie_aware_accuracy(log_probs, label)
    ids, noun = (np.arange(episodes), "episodes") if dependence is None else dependence
    accuracy, accuracy_interval = bounded_mean(*by_cluster(right, ids))
    surprise = -np.take_along_axis(log_posterior, label[..., None], -1)[..., 0]
    # A class ruled out wrongly costs infinitely much: then so does the mean, and no interval holds it.
    nll, nll_interval = clustered_mean(*by_cluster(surprise, ids))
    ece, found = reliability(np.exp(log_posterior.max(-1)).ravel(), right.ravel(), bins)
    return Classification(
        ways=ways,
        episodes=episodes,
        queries=episodes * queries,
        chance=1 / ways,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        nll=nll,
        nll_interval=nll_interval,
        ece=ece,
        bins=found,
        per_episode=right.mean(1),
        over=(len(np.unique(ids)), noun),
    )


def by_cluster(values: Floats, ids: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Values ``(episodes, queries)`` and what they hang on, as ``clustered_mean`` takes them.

    ids: of each query, ``(episodes, queries, k)``, or of each episode, ``(episodes, k)`` or ``(episodes,)``, which then
    counts as one value.
    """
    return (values.ravel(), ids.reshape(-1, ids.shape[-1])) if ids.ndim == 3 else (values.mean(1), ids)


def reliability(confidence: Floats, right: Floats, bins: int = 10) -> tuple[float, list[ReliabilityBin]]:
    """Expected calibration error and its bins, the empty ones left out. Both arguments ``(n,)`` in [0, 1]."""
    require_count("bins", bins, 1)
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    mean_confidence, accuracy = (
        np.bincount(index, weights=x, minlength=bins) / np.maximum(count, 1) for x in (confidence, right)
    )
    error = float((count * np.abs(accuracy - mean_confidence)).sum() / len(confidence))
    found = [
        ReliabilityBin(b / bins, (b + 1) / bins, int(count[b]), float(mean_confidence[b]), float(accuracy[b]))
        for b in np.flatnonzero(count).tolist()
    ]
    return error, found


def _require_numbers(log_probs: Floats) -> Floats:
    if bad := int(np.isnan(log_probs).sum()):
        raise ValueError(
            f"log p is nan for {bad} of {log_probs.size} pairs of a query and a class: the weights are damaged or the "
            "numbers too large. Use an earlier checkpoint, or precision='float32'."
        )
    return log_probs

"""Few-shot likelihoods with intervals that respect the grouping of the images."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metadensity.density import EXACT, Density
from metadensity.episode import Episode
from metadensity.evaluation.cost import measured
from metadensity.evaluation.intervals import clustered_mean, count_groups
from metadensity.evaluation.leaks import guard_support
from metadensity.evaluation.scores import ARRAYS, Evaluation, LikelihoodRow, Scores
from metadensity.model import FewShotModel
from metadensity.processes import current


def evaluate(
    model: FewShotModel,
    episodes: Iterable[Episode],
    precision: str = "float32",
    duplicates: str = "trust_ids",
    seed: int = 0,
    given: int = 0,
) -> Evaluation:
    """Score the queries of ``episodes`` given their supports, one row for each number of shots among them.

    The model's mode and torch's random state are as before afterwards. duplicates: what to do about a query with the
    pixels of a support image, see ``metadensity.evaluation.leaks.guard_support``; "drop" leaves it out of the scores.
    seed: of what a bound draws: each task on its own, by its place among all tasks, however they are batched.
    given: how many of the first places of each sequence are not scored but known, so that the others are scored with a
    past: log p(x[given:] | x[:given], support).
    Several processes (``metadensity.processes``) share the episodes, each of which one of them scores.

    Raises SupportLeakError where a query is in its own support, ValueError where there is no query to score, where a
    score is not a number, and where no place of a query would be scored, TypeError for one Episode in no list.
    """
    if isinstance(episodes, Episode):
        raise TypeError("episodes is one Episode; give a list of them: evaluate(model, [episode]).")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found: dict[int, set[str]] = defaultdict(set)  # quantities by shots
    tasks_seen: dict[int, int] = defaultdict(int)  # before the episode that is scored

    def counted() -> Iterator[Episode]:
        for episode in episodes:
            yield episode
            tasks_seen[episode.shots] += episode.tasks

    def log_prob(episode: Episode) -> torch.Tensor:
        first = tasks_seen[episode.shots]
        if found[episode.shots] <= {EXACT} or not episode.tasks:
            density = model(episode.support, episode.support_lengths)
            found[episode.shots].add(density.quantity)
            if density.exact or not episode.tasks:
                return _log_prob(density, episode, None, given)
        parts = []
        for i in range(episode.tasks):
            alone = episode.take_tasks(slice(i, i + 1))
            density = model(alone.support, alone.support_lengths)
            parts.append(_log_prob(density, alone, generator_of(seed, first + i, device), given))
        return torch.cat(parts, 1)

    with measured(model, device) as cost, evaluating(model), torch.no_grad(), autocast(device, precision):
        result = score(log_prob, counted(), device, duplicates, given)
        cost.images = sum(row.images for row in result.rows)
    known = current().values(sorted(set().union(*found.values())))
    quantity = " or ".join(sorted(set().union(*known))) or EXACT
    rows = [replace(row, quantity=quantity) for row in result.rows]
    scores = {shots: replace(part, quantity=quantity) for shots, part in result.scores.items()}
    return replace(result, rows=rows, scores=scores, cost=cost)


def generator_of(seed: int, task: int, device: torch.device) -> torch.Generator:
    """What the bound of one task draws from: a pure function of (seed, task)."""
    state = np.random.SeedSequence([seed, task]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def _log_prob(density: Density, episode: Episode, generator: torch.Generator | None, given: int) -> torch.Tensor:
    if episode.query_lengths is None:
        whole = density.log_prob(episode.query, generator)
    else:
        whole = density.prefix_log_prob(episode.query, episode.query_lengths)
    if not given:
        return whole
    return whole - density.prefix_log_prob(episode.query, torch.full(whole.shape, given, device=whole.device))


def score(
    log_prob: Callable[[Episode], torch.Tensor],
    episodes: Iterable[Episode],
    device: torch.device | str = "cpu",
    duplicates: str = "trust_ids",
    given: int = 0,
) -> Evaluation:
    """The evaluation of any function that gives log p ``(Q, tasks)`` of an episode's queries, in nats, exactly.

    It is given episodes with their pixels on ``device``. given: places at the beginning of each query that log p does
    not speak of. Raises as ``evaluate`` does.
    """
    parts: dict[int, list[Scores]] = defaultdict(list)
    sizes: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    identical: dict[int, int] = defaultdict(int)
    tasks_seen: dict[int, int] = defaultdict(int)  # by shots, so that tasks of unknown class pair up between them
    processes = current()
    own: dict[int, list[float]] = {}
    waiting: list[tuple[int, NDArray[np.bool_], Scores]] = []
    for index, episode in enumerate(episodes):
        same = guard_support(episode, duplicates).cpu().T.numpy().ravel()
        if processes.does(index):
            own[index] = (-log_prob(episode.to(device))).double().cpu().T.flatten().tolist()
        waiting.append((episode.shots, same, _unscored(episode, tasks_seen[episode.shots])))
        size = _sizes(episode, given)
        sizes[episode.shots].append(size[~same] if duplicates == "drop" else size)
        identical[episode.shots] += int(same.sum())
        tasks_seen[episode.shots] += episode.tasks
    found_by = [{int(index): nats for index, nats in each.items()} for each in processes.values(own)]
    for index, (shots, same, unscored) in enumerate(waiting):
        part = replace(unscored, nats=np.array(found_by[index % processes.size][index], np.float64))
        parts[shots].append(part.select(~same) if duplicates == "drop" else part)
    if not any(len(part.nats) for found in parts.values() for part in found):
        raise ValueError("There is nothing to evaluate: no episode held a query. Pass at least one Episode with one.")
    for shots, found in parts.items():
        if bad := sum(int(np.isnan(part.nats).sum()) for part in found):
            raise ValueError(
                f"log p is nan for {bad} of {sum(len(part.nats) for part in found)} queries at shots={shots}: the "
                "weights are damaged or the numbers too large. Use an earlier checkpoint, or precision='float32'."
            )
    scores = {shots: _joined(found) for shots, found in sorted(parts.items())}
    rows = [
        summarise(shots, found, float(np.concatenate(sizes[shots]).mean()), identical[shots])
        for shots, found in scores.items()
    ]
    return Evaluation(rows, scores)


def _sizes(episode: Episode, given: int) -> NDArray[np.int64]:
    """How many numbers of each query are scored, by task and then by query."""
    sizes = episode.query_sizes.cpu().T.numpy().ravel() - given * episode.event_shape[0]
    if given and (sizes.size and sizes.min() < 1):
        raise ValueError(f"given={given}, but a query has no place after as many; leave at least one to score.")
    return sizes


def _joined(parts: list[Scores]) -> Scores:
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Scores(**arrays)


def summarise(shots: int, scores: Scores, event_size: float, identical: int = 0) -> LikelihoodRow:
    """Mean and 95 % intervals of scores in nats/image; ``event_size``: pixels times channels, a mean."""
    mean, interval = clustered_mean(scores.nats, scores.class_ids)
    groups = count_groups(scores.group_ids)
    return LikelihoodRow(
        shots=shots,
        nats_per_image=mean,
        interval=interval,
        nats_per_dim=mean / event_size,
        bits_per_dim=mean / event_size / math.log(2),
        images=len(scores.nats),
        classes=len(np.unique(scores.class_ids)),
        groups=groups,
        group_interval=clustered_mean(scores.nats, scores.group_ids)[1] if groups > 1 else None,
        identical=identical,
        quantity=scores.quantity,
        impossible=int(np.isinf(scores.nats).sum()),
    )


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


def _unscored(episode: Episode, tasks_seen: int) -> Scores:
    """The ids of an episode's queries, without their nats."""
    shape = episode.queries, episode.tasks

    def spread(ids: torch.Tensor | None, default: NDArray[np.int64]) -> NDArray[np.int64]:
        # By task first, so that the order is the same however the tasks are batched.
        return np.broadcast_to(default if ids is None else ids.numpy(), shape).T.ravel().astype(np.int64)

    unknown = np.full(shape, -1, np.int64)
    return Scores(
        np.zeros(0),
        spread(episode.class_ids, np.arange(tasks_seen, tasks_seen + shape[1])),
        spread(episode.group_ids, unknown),
        spread(episode.query_ids, unknown),
    )

"""Contrast: how surely each query is told, by likelihood alone, from the supports of its rivals.

A density that is trained by likelihood spends what it learns where the nats are, and what tells classes apart may be a
thousandth of them. The contrast of a step is the cross-entropy of the posterior over a query's own task and its rivals,
as of ``metadensity.evaluation.classification``; the loss alone changes, the model stays the exact density it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metadensity.density import Density
from metadensity.episode import Episode
from metadensity.model import FewShotModel

_NO_RIVAL = -torch.inf


def scored_against_rivals(
    model: FewShotModel, episode: Episode, rivals: int, first: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """log p of each query given its own support, ``(Q, tasks)``, and given those of its rivals, ``(R, Q, tasks)``.

    The third is whether there is such a rival, ``(R, tasks)``. The tasks of an episode are taken in blocks of
    ``1 + rivals``, the last one may be smaller, and all of a block are rivals, but for those of one class. Supports are
    encoded once, and all scores come from one pass. first: number of the first task, where the episode is the rest of
    one whose blocks began earlier.

    Raises ValueError where the density is a bound.
    """
    turns, there = _turns(episode, rivals, first)
    density = model(episode.support, episode.support_lengths)
    _require_exact(model, density)
    queries = torch.cat([episode.query, *(episode.query[:, turn] for turn in turns)])
    if episode.query_lengths is None:
        scores = density.log_prob(queries)
    else:
        lengths = episode.query_lengths
        scores = density.prefix_log_prob(queries, torch.cat([lengths, *(lengths[:, turn] for turn in turns)]))
    own, *others = scores.split(episode.queries)
    back = [other[:, turn.argsort()] for other, turn in zip(others, turns, strict=True)]  # by the task of the query
    return own, torch.stack(back) if back else own.new_zeros(0, *own.shape), there.to(own.device)


def contrast_of(own: Tensor, others: Tensor, there: Tensor, temperature: float = 1.0) -> Tensor:
    """The mean over queries that have a rival of -log of the posterior of their own task, in nats; nan where none has.

    The arguments are what ``scored_against_rivals`` gives. temperature: log-probabilities are divided by it.
    """
    logits = torch.cat([own.unsqueeze(0), others.masked_fill(~there.unsqueeze(1), _NO_RIVAL)]).float() / temperature
    surprise = logits.logsumexp(0) - logits[0]
    return surprise[:, there.any(0)].mean()


def contrast_reference(model: FewShotModel, episode: Episode, rivals: int, temperature: float = 1.0) -> Tensor:
    """``contrast_of`` with one support set and one query at a time: the oracle."""
    found, size = [], 1 + rivals
    for task in range(episode.tasks):
        block = range(task - task % size, min(episode.tasks, task - task % size + size))
        ids = episode.class_ids
        others = [i for i in block if i != task and (ids is None or ids[i] != ids[task])]
        for query in range(episode.queries if others else 0):
            logits = torch.stack([_alone(model, episode, each, query, task) for each in (task, *others)]) / temperature
            found.append(-logits.log_softmax(0)[0])
    return torch.stack(found).mean()


def _alone(model: FewShotModel, episode: Episode, given: int, query: int, task: int) -> Tensor:
    one = episode.take_tasks(slice(given, given + 1))
    density = model(one.support, one.support_lengths)
    value = episode.query[query, task : task + 1]
    if episode.query_lengths is None:
        return density.log_prob(value)[0]
    return density.prefix_log_prob(value, episode.query_lengths[query, task : task + 1])[0]


def _turns(episode: Episode, rivals: int, first: int) -> tuple[list[Tensor], Tensor]:
    """For each rival in turn, whose query each task scores, ``(tasks,)``; and whether a query's scorer is a rival."""
    number = torch.arange(first, first + episode.tasks)
    block = number // (1 + rivals)
    size = torch.bincount(block)[block]
    begin = torch.searchsorted(block, block)
    place = torch.arange(episode.tasks) - begin
    turns, there = [], []
    for turn in range(1, int(size.max())):
        turns.append(torch.where(turn < size, begin + (place + turn) % size, begin + place))
        scorer = turns[-1].argsort()
        other = turn < size
        if episode.class_ids is not None:
            other = other & (episode.class_ids[scorer] != episode.class_ids)
        there.append(other)
    return turns, torch.stack(there) if there else torch.zeros(0, episode.tasks, dtype=torch.bool)


def _require_exact(model: FewShotModel, density: Density) -> None:
    if not density.exact:
        raise ValueError(
            f"contrast with {type(model).__name__}, which gives a {density.quantity}: a bound is off by another amount "
            "for each class, so it makes no posterior. Leave contrast=0."
        )

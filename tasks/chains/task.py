"""Synthetic sequences whose optimum is known: each task is a random Markov chain."""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from tasks.base import TaskDistribution
from tasks.chains.density import UrnDensity
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import sha256_of_json

SMALLEST, LARGEST = 0.05, 100.0  # concentrations for which all rows are drawn to full precision


class ChainTasks(TaskDistribution):
    """A task is a Markov chain: its rows, and what comes first in a sequence, are Dirichlet draws; see ``chains``.

    concentration: of each row, a symmetric Dirichlet. recipe: what determines the chains, as JSON-able values.

    No two tasks are alike, so there are no classes: episodes have no class_ids, and each task counts for itself.
    support_ids and query_ids are 53-bit random numbers, functions of (seed, split, index) as the sequences are.
    """

    def __init__(self, split: str, seed: int, *, length: int, levels: int, concentration: float) -> None:
        super().__init__("chains", split, seed, (1, length), levels)
        self.concentration = concentration
        self.class_names, self.group_names, self.class_group = [], [], np.empty(0, dtype=np.int64)
        self.recipe: dict[str, Any] = {
            "task": "chains",
            "version": 1,
            "length": length,
            "levels": levels,
            "concentration": concentration,
        }
        self._stream = sum(2 ** SPLITS.index(part) for part in split_parts("chains", split))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over what the chains are drawn from. It does not depend on the seed."""
        return sha256_of_json(self.recipe)

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``; see ``TaskDistribution.episode``. Task t is the same for any number of tasks.

        Sequences are independent given the chain, queries first: short ones of few levels are often equal by chance.
        """
        shots, queries = require_count("shots", shots, 0), require_count("queries", queries, 1)
        sequences, length = queries + shots, self.event_shape[-1]
        rows, chance = self._uniforms(index, tasks, sequences * (1 + length))
        chance = chance.reshape(len(rows), sequences, 1 + length).swapaxes(0, 1)
        cumulated = self._rows(rows).cumsum(-1)
        cumulated /= cumulated[..., -1:]  # ends at 1 exactly, which no uniform number reaches
        task = np.arange(len(rows))
        drawn = np.empty((sequences, len(rows), 1, length), dtype=np.uint8)
        before: NDArray[Any] = np.full((sequences, len(rows)), self.levels)
        for place in range(length):
            before = (cumulated[task, before] <= chance[..., 1 + place, None]).sum(-1)
            drawn[:, :, 0, place] = before
        pixels, numbers = torch.from_numpy(drawn), torch.from_numpy((chance[..., 0] * 2**53).astype(np.int64))
        return Episode(
            support=pixels[queries:],
            query=pixels[:queries],
            support_ids=numbers[queries:],
            query_ids=numbers[:queries],
        )

    def rows(self, index: int, tasks: int) -> NDArray[np.float64]:
        """The chains of episode ``index``: ``(tasks, levels + 1, levels)`` probabilities of the next symbol.

        The row of a symbol is what may come after it, the last row what may come first.
        """
        return self._rows(self._uniforms(index, tasks, 0)[0])

    def _rows(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Dirichlet rows from uniform numbers, as gamma variables by their quantile function."""
        from scipy.special import gammaincinv  # takes half a second to import

        gamma = gammaincinv(self.concentration, uniform) + np.finfo(float).tiny
        return np.asarray(gamma / gamma.sum(-1, keepdims=True))

    def _uniforms(self, index: int, tasks: int, more: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(tasks, levels + 1, levels)`` and ``(tasks, more)`` numbers in [0, 1), each task from its own stream."""
        key = np.array([self.seed, require_uint64("index", index)], dtype=np.uint64)
        first = (self.levels + 1) * self.levels
        uniform = np.empty((require_count("tasks", tasks, 1), first + more))
        for task, row in enumerate(uniform):
            bits = np.random.Philox(key=key, counter=(self._stream << 192) + (task << 128))
            np.random.Generator(bits).random(out=row)
        return uniform[:, :first].reshape(-1, self.levels + 1, self.levels), uniform[:, first:]

    def counts(self, support: Tensor) -> Tensor:
        """How often each symbol came after each, and first, in supports ``(S, tasks, 1, T)``.

        ``(tasks, levels + 1, levels)`` float64, rows as those of ``rows``. Raises ValueError for sequences of another
        shape, or symbols that are none.
        """
        if tuple(support.shape[2:]) != self.event_shape or support.ndim != 4:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; {self.name} takes (shots, tasks, "
                f"{', '.join(map(str, self.event_shape))})."
            )
        if support.numel() and not 0 <= int(support.min()) <= int(support.max()) < self.levels:
            raise ValueError(
                f"support holds symbols from {int(support.min())} to {int(support.max())}; {self.name} has 0 to "
                f"{self.levels - 1}."
            )
        x = support[:, :, 0].long()
        before = torch.cat([torch.full_like(x[..., :1], self.levels), x[..., :-1]], -1)
        cells = (before * self.levels + x).movedim(1, 0).flatten(1)  # (tasks, S * T)
        found = torch.zeros(len(cells), (self.levels + 1) * self.levels, dtype=torch.float64, device=x.device)
        found.scatter_add_(1, cells, torch.ones_like(cells, dtype=torch.float64))
        return found.view(-1, self.levels + 1, self.levels)

    def optimum(self, episode: Episode) -> UrnDensity:
        """p(x | support): Dirichlet-multinomial rows whose parameters are the prior's and the support's counts; exact.

        Raises as ``counts`` does.
        """
        return UrnDensity(self.concentration + self.counts(episode.support), self.event_shape[-1])


def chains(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    length: int = 32,
    levels: int = 4,
    concentration: float = 0.5,
) -> ChainTasks:
    """Sequences ``(1, length)`` of a random Markov chain, one for each task; the optimum is known.

    A task draws a distribution for the first symbol and one for what comes after each symbol, all from a symmetric
    Dirichlet; its sequences are independent given these. ``ChainTasks.optimum`` is the exact p(x | support).

    A split is a stream of chains of its own, all from the same prior, and no chain comes twice: what is measured is
    inference from the support, and from the beginning of the sequence.

    split: "train", "validation", "test", or several joined by "+", which is one more stream.
    data_root: not used; the sequences are drawn.
    seed: fixes the episodes.
    length: symbols in a sequence, from 1. levels: how many symbols there are, 2 to 256.
    concentration: of the Dirichlet, 0.05 to 100. Small: what comes next is nearly certain, and quickly learnt from a
        support; large: all chains are much like pure noise.

    Raises ValueError for options out of range.
    """
    split = "+".join(split_parts("chains", split))
    if not (math.isfinite(concentration) and SMALLEST <= concentration <= LARGEST):
        raise ValueError(
            f"concentration={concentration}; give that of the Dirichlet prior, from {SMALLEST} to {LARGEST}."
        )
    return ChainTasks(
        split,
        seed,
        length=require_count("length", length, 1),
        levels=require_count("levels", levels, 2),
        concentration=float(concentration),
    )

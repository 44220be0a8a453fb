"""Synthetic pairs of strings whose optimum is known: each task has a rule that turns sources into targets."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metadensity.checks import require_count, require_uint64
from metadensity.episode import Episode
from tasks.base import TaskDistribution
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import sha256_of_json
from tasks.transduction.density import RULES, Transduction, TransductionDensity


class TransductionTasks(TaskDistribution):
    """A task is a rule that turns sources into targets; see ``transduction``.

    separator, end: the two levels after the symbols. recipe: what determines the strings, as JSON-able values.

    Episodes have no class_ids, and each task counts for itself. query_lengths count a string's places up to the end, it
    included; a support ends by itself. support_ids and query_ids are 53-bit random numbers, functions of (seed, split,
    index) as the strings are.
    """

    def __init__(self, split: str, seed: int, transduction: Transduction) -> None:
        super().__init__("transduction", split, seed, (1, transduction.places), transduction.symbols + 2)
        self.transduction = transduction
        self.separator, self.end = transduction.separator, transduction.end
        self.class_names, self.group_names, self.class_group = [], [], np.empty(0, dtype=np.int64)
        self.recipe: dict[str, Any] = {"task": "transduction", "version": 1, **asdict(transduction)}
        self._stream = sum(2 ** SPLITS.index(part) for part in split_parts("transduction", split))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over what the strings are drawn from. It does not depend on the seed."""
        return sha256_of_json(self.recipe)

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Episode number ``index``; see ``TaskDistribution.episode``. Task t is the same for any number of tasks.

        Strings are independent given the rule, queries first: short ones of few symbols are often equal by chance.
        """
        shots, queries = require_count("shots", shots, 0), require_count("queries", queries, 1)
        of, strings = self.transduction, queries + shots
        key = np.array([self.seed, require_uint64("index", index)], dtype=np.uint64)
        uniform = np.empty((require_count("tasks", tasks, 1), of.symbols + strings * (2 + 2 * of.longest)))
        for task, row in enumerate(uniform):  # each task from its own stream
            bits = np.random.Philox(key=key, counter=(self._stream << 192) + (task << 128))
            np.random.Generator(bits).random(out=row)
        rule = torch.from_numpy((uniform[:, : of.symbols] * of.symbols).astype(np.int64))  # (tasks, symbols)
        rest = torch.from_numpy(uniform[:, of.symbols :]).unflatten(1, (strings, -1)).transpose(0, 1)
        identity, chance, source, error = rest.split([1, 1, of.longest, of.longest], -1)
        length = of.shortest + (chance * (of.longest - of.shortest + 1)).long()  # (strings, tasks, 1)
        symbols = (source * of.symbols).long()
        j = torch.arange(of.longest).expand(symbols.shape)
        target = self._translated(of.source_of(symbols, length, j), rule)
        other = 1 + (error / of.noise * (of.symbols - 1)).long() if of.noise else j
        target = torch.where(error < of.noise, (target + other) % of.symbols, target)
        pixels = torch.full((strings, len(rule), of.places), of.end, dtype=torch.uint8)
        place = torch.arange(of.places)
        spread = torch.nn.functional.pad(symbols, (0, of.places - of.longest))
        before = (place - length - 1).clamp(0, of.longest - 1)
        pixels = torch.where(place <= 2 * length, target.gather(-1, before).to(pixels), pixels)
        pixels = torch.where(place == length, of.separator, pixels)
        pixels = torch.where(place < length, spread.to(pixels), pixels).unsqueeze(2)
        numbers, lengths = (identity[..., 0] * 2**53).long(), 2 * length[..., 0] + 2
        return Episode(
            support=pixels[queries:],
            query=pixels[:queries],
            support_ids=numbers[queries:],
            query_ids=numbers[:queries],
            query_lengths=lengths[:queries],
        )

    def _translated(self, symbols: Tensor, rule: Tensor) -> Tensor:
        """Symbols ``(strings, tasks, n)`` under rules ``(tasks, symbols)``: how far they shift first, or a table."""
        if self.transduction.rule == "shift":
            return (symbols + rule[:, :1]) % self.transduction.symbols
        if self.transduction.rule == "substitution":
            return rule.expand(len(symbols), -1, -1).gather(-1, symbols)
        return symbols

    def given(self, strings: Tensor) -> Tensor:
        """How many places of strings ``(*sample, tasks, 1, T)`` are the source and its separator, ``(*sample, tasks)``.

        ``density.rest_log_prob(strings, task.given(strings))`` is log p(target | source, supports).
        """
        found = self.transduction.lengths(strings.reshape(-1, self.event_shape[-1]))
        return (found + 1).clamp(max=self.event_shape[-1]).view(strings.shape[:-2])

    def optimum(self, episode: Episode) -> TransductionDensity:
        """p(x | support): the rule is known as far as the supports tell it, exactly.

        Raises ValueError for supports of another shape, or symbols that are none.
        """
        support = episode.support
        if tuple(support.shape[2:]) != self.event_shape:
            raise ValueError(
                f"support has shape {tuple(support.shape)}; {self.name} takes (shots, tasks, "
                f"{', '.join(map(str, self.event_shape))})."
            )
        if support.numel() and not 0 <= int(support.min()) <= int(support.max()) < self.levels:
            raise ValueError(
                f"support holds symbols from {int(support.min())} to {int(support.max())}; {self.name} has 0 to "
                f"{self.levels - 1}."
            )
        evidence = self.transduction.evidence(support[:, :, 0].transpose(0, 1).long())
        return TransductionDensity(self.transduction, evidence)


def transduction(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    rule: str = "copy",
    symbols: int = 8,
    shortest: int = 1,
    longest: int = 8,
    noise: float = 0.1,
) -> TransductionTasks:
    """Strings ``source, separator, target, end``, where the target is what a rule makes of the source; optimum known.

    The source has from ``shortest`` to ``longest`` symbols, all lengths and all symbols equally likely; the target as
    many; all places after it hold the end. The separator is the level after the symbols, the end the last one.
    ``TransductionTasks.optimum`` is the exact p(x | support), its ``rest_log_prob`` p(target | source, support).

    A split is a stream of rules and strings of its own, all from the same prior: what is measured is whether a model
    carries a source over, and infers its task's rule from supports.

    split: "train", "validation", "test", or several joined by "+", which is one more stream.
    data_root: not used; the strings are drawn.
    seed: fixes the episodes.
    rule: "copy"; "reverse"; "shift", by a number of symbols of its own for each task; or "substitution", by a table of
        its own for each task: what each symbol becomes is drawn independently, so that two may become one.
    symbols: how many there are, 2 to 254. shortest, longest: of the sources, from 1.
    noise: the probability, from 0 to below 1, that a symbol of the target is replaced by one of the others.

    Raises ValueError for options out of range.
    """
    split = "+".join(split_parts("transduction", split))
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}; give one of {', '.join(RULES)}.")
    if not 0 <= noise < 1:
        raise ValueError(f"noise={noise}; give the probability of another symbol in the target, from 0 to below 1.")
    symbols, shortest = require_count("symbols", symbols, 2), require_count("shortest", shortest, 1)
    if symbols > 254:
        raise ValueError(f"symbols={symbols}; with a separator and an end there are 256 levels, so give at most 254.")
    longest = require_count("longest", longest, shortest)
    return TransductionTasks(split, seed, Transduction(rule, symbols, shortest, longest, float(noise)))

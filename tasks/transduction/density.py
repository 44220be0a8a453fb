"""The posterior predictive of a source and its target under a rule that is known up to what supports tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metadensity.density import SequentialDensity
from metadensity.drawing import Draws

RULES = ("copy", "reverse", "shift", "substitution")
_IMPOSSIBLE = -1e9  # evidence of a hypothesis that noise=0 rules out: finite, so that none left is no NaN


@dataclass(frozen=True)
class Transduction:
    """How sources and targets come about; see ``tasks.transduction.transduction``. The options are checked there."""

    rule: str
    symbols: int
    shortest: int
    longest: int
    noise: float

    @property
    def separator(self) -> int:
        """The level between source and target."""
        return self.symbols

    @property
    def end(self) -> int:
        """The level after the target."""
        return self.symbols + 1

    @property
    def places(self) -> int:
        """Room for a source, a separator, a target and an end."""
        return 2 * self.longest + 2

    def likelihood(self) -> Tensor:
        """p(b | a, h), ``(symbols, hypotheses, symbols)`` float64: of b in the target where the source has a.

        A hypothesis is a rule, as far as it decides on a: none but one of ``copy`` and ``reverse``, how far ``shift``
        shifts, what ``substitution`` puts in place of a.
        """
        a = torch.arange(self.symbols)
        image = {"shift": (a[:, None] + a) % self.symbols, "substitution": a.expand(self.symbols, -1)}
        images = image.get(self.rule, a[:, None])
        exact = torch.eye(self.symbols, dtype=torch.float64)
        return (exact * (1 - self.noise) + (1 - exact) * self.noise / (self.symbols - 1))[images]

    @property
    def slots(self) -> int:
        """Parts of the rule that are drawn independently: what becomes of each symbol, or one."""
        return self.symbols if self.rule == "substitution" else 1

    def lengths(self, strings: Tensor) -> Tensor:
        """Symbols before the first separator of strings ``(n, T)``, ``(n,)``; T where there is none."""
        found = strings == self.separator
        return torch.where(found.any(-1), found.int().argmax(-1), strings.shape[-1])

    def source_of(self, strings: Tensor, length: Tensor, j: Tensor) -> Tensor:
        """The symbols of the source that decide on symbol j of the target, as ``j``, within its length."""
        at = length - 1 - j if self.rule == "reverse" else j
        return strings.gather(-1, at.clamp(0, strings.shape[-1] - 1))

    def evidence(self, strings: Tensor) -> Tensor:
        """log p(targets | sources, h) of strings ``(tasks, n, T)``: ``(tasks, slots, hypotheses)`` float64."""
        tasks, count, places = strings.shape
        flat, j = strings.reshape(-1, places), torch.arange(places, device=strings.device)
        length = self.lengths(flat).unsqueeze(1)
        a = self.source_of(flat, length, j.expand(len(flat), -1))
        b = flat.gather(1, (length + 1 + j).clamp(max=places - 1))
        real = (j < length) & (length + 1 + j < places) & (a < self.symbols) & (b < self.symbols)
        table = self.likelihood().log().clamp(min=_IMPOSSIBLE).to(strings.device)
        terms = table[a.clamp(max=self.symbols - 1), :, b.clamp(max=self.symbols - 1)] * real.unsqueeze(-1)
        slot = torch.where(real, a, 0) if self.slots > 1 else torch.zeros_like(a)
        found = torch.zeros(tasks, self.slots, table.shape[1], dtype=torch.float64, device=strings.device)
        index = slot.reshape(tasks, count * places, 1).expand(-1, -1, table.shape[1])
        return found.scatter_add_(1, index, terms.reshape(index.shape))


class TransductionDensity(SequentialDensity):
    """p(source) p(target | source, supports), the rule integrated out; exact, in float64.

    The target itself tells of the rule as well: each of its symbols is given those before it. How many symbols the
    target has is known once the source is.

    evidence: ``(tasks, slots, hypotheses)``, see ``Transduction.evidence``.
    """

    order: ClassVar[str] = "the order of the sequence"

    def __init__(self, recipe: Transduction, evidence: Tensor, validate_args: bool | None = None) -> None:
        self.recipe, self.evidence = recipe, evidence
        super().__init__(len(evidence), (1, recipe.places), recipe.symbols + 2, validate_args)

    @property
    def device(self) -> torch.device:
        """Where symbols are drawn."""
        return self.evidence.device

    def _conditional_log_probs(self, value: Tensor) -> Tensor:
        strings = value.reshape(-1, self.event_shape[-1]).long()
        walk = _Walk(self, len(strings))
        terms = []
        for place, symbol in enumerate(strings.unbind(-1)):
            terms.append(walk.log_probs(place).gather(1, symbol.unsqueeze(1)))
            walk.see(place, symbol)
        return torch.cat(terms, 1).view(value.shape)

    def _drawn(self, draws: Draws) -> Tensor:
        flat = draws.map(lambda part: part.reshape(-1, self.event_shape[-1]))
        walk = _Walk(self, len(flat.uniforms))
        for place in range(self.event_shape[-1]):
            logits = walk.log_probs(place)
            walk.see(place, flat.map(lambda part, place=place: part[:, place]).levels(logits))  # type: ignore[misc]
        return walk.strings.view(draws.uniforms.shape)


class _Walk:
    """Strings ``(n, T)``, tasks fastest, as far as they are known, and what is known of their rules by then."""

    def __init__(self, density: TransductionDensity, count: int) -> None:
        self.recipe, device = density.recipe, density.device
        self.likelihood = self.recipe.likelihood().to(device)
        self.evidence = density.evidence.repeat(count // density.tasks, 1, 1)
        self.rows = torch.arange(count, device=device)
        self.strings = torch.zeros(count, self.recipe.places, dtype=torch.long, device=device)
        self.length = torch.full((count,), -1, device=device)  # of the source, -1 before its separator
        self.ended = torch.zeros(count, dtype=torch.bool, device=device)

    def log_probs(self, place: int) -> Tensor:
        """Of all levels at ``place``, ``(n, levels)``."""
        recipe = self.recipe
        p = self.likelihood.new_zeros(len(self.rows), recipe.symbols + 2)
        more = max(0, recipe.longest - place)  # symbols that the source may still have
        stop = 0.0 if place < recipe.shortest else 1 / (more + 1)
        p[:, : recipe.symbols], p[:, recipe.separator] = (1 - stop) / recipe.symbols, stop
        translated, a, slot = self._translated(place)
        belief = self.evidence[self.rows, slot].softmax(-1).unsqueeze(1)
        target = (belief @ self.likelihood[a]).squeeze(1)
        p[translated] = torch.cat([target, target.new_zeros(len(target), 2)], 1)[translated]
        certain = self.ended | ((self.length >= 0) & ~translated)
        p[certain] = torch.nn.functional.one_hot(torch.tensor(recipe.end), recipe.symbols + 2).to(p)
        return p.log()

    def see(self, place: int, symbol: Tensor) -> None:
        """Go on, ``symbol`` ``(n,)`` being at ``place``."""
        translated, a, slot = self._translated(place)
        known = (translated & (symbol < self.recipe.symbols)).unsqueeze(1)
        terms = self.likelihood[a, :, symbol.clamp(max=self.recipe.symbols - 1)].log().clamp(min=_IMPOSSIBLE)
        self.evidence[self.rows, slot] += terms * known
        self.strings[:, place] = symbol
        self.ended |= symbol == self.recipe.end
        self.length[(self.length < 0) & (symbol == self.recipe.separator)] = place

    def _translated(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which strings have a symbol of the target here, which of the source it is of, and the slot that decides."""
        j = place - 1 - self.length
        translated = (self.length >= 0) & (j < self.length) & ~self.ended
        a = self.recipe.source_of(self.strings, self.length.unsqueeze(1), j.unsqueeze(1)).squeeze(1)
        a = torch.where(translated, a, 0).clamp(max=self.recipe.symbols - 1)
        return translated, a, a if self.recipe.slots > 1 else torch.zeros_like(a)

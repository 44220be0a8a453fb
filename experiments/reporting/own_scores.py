"""What examples of one's own cost a model, each given the others, and given nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.reporting.tables import bound_note, plain
from metadensity import FewShotModel, evaluate
from metadensity.density import EXACT
from tasks.media import Words
from tasks.own import OwnSupport

TOGETHER = 8  # examples scored at a time, each with all others as its support


@dataclass(frozen=True)
class OwnScores:
    """Nats of each example, ``(S,)``. given: by the others, or by itself where its mirror image is what is scored.

    given is None for a single example, which has no others. quantity: see ``Density.quantity``.
    """

    names: Sequence[str]
    given: NDArray[np.float64] | None
    prior: NDArray[np.float64]
    support: str
    quantity: str

    def table(self, words: Words) -> str:
        """One line an example and their mean, in nats an event, and what the numbers are."""
        headings = [words.noun, f"given nothing, {words.nats}"]
        columns = [self.prior]
        if self.given is not None:
            headings[1:1] = [f"given {self.support}, {words.nats}"]
            headings.append("saved, nats")
            columns = [self.given, self.prior, self.prior - self.given]
        rows = [[name, *(f"{column[row]:.2f}" for column in columns)] for row, name in enumerate(self.names)]
        if len(self.names) > 1:
            rows.append(["mean", *(f"{column.mean():.2f}" for column in columns)])
        notes = [] if self.given is not None else [f"One {words.noun} has no others to be given; give two or more."]
        notes += [] if self.quantity == EXACT else [f"The numbers are {self.quantity}. {bound_note(words)}"]
        return "\n".join([plain(headings, rows), *notes])

    def captions(self) -> list[str]:
        """The same of each example in two short lines, for a picture."""
        mark = "" if self.quantity == EXACT else f"\n{self.quantity}"
        if self.given is None:
            return [f"{prior:.1f} nats\ngiven nothing{mark}" for prior in self.prior]
        pairs = zip(self.given, self.prior, strict=True)
        return [f"{given:.1f} nats\ngiven {self.support}\n{prior:.1f} without{mark}" for given, prior in pairs]

    def record(self) -> dict[str, Any]:
        """The same as JSON values; what is infinite is None."""
        given, prior = (
            None if part is None else [float(value) if np.isfinite(value) else None for value in part]
            for part in (self.given, self.prior)
        )
        return {"names": list(self.names), "nats_given_others": given, "nats_prior": prior, "quantity": self.quantity}


def score_own(model: FewShotModel, own: OwnSupport, seed: int = 0) -> OwnScores:
    """Score each example as the query of ``own.leave_one_out()``, and without a support."""
    whole = own.leave_one_out()
    parts = [whole.take_tasks(slice(start, start + TOGETHER)) for start in range(0, whole.tasks, TOGETHER)]
    prior = evaluate(model, [part.with_shots(0) for part in parts], seed=seed).scores[0]
    given = evaluate(model, parts, seed=seed).scores[whole.shots] if whole.shots else None
    others = "itself" if own.mirrored else f"the {whole.shots} other{'s' if whole.shots > 1 else ''}"
    return OwnScores(own.names, None if given is None else given.nats, prior.nats, others, prior.quantity)

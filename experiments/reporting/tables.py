"""Tables of likelihoods as plain text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tabulate import tabulate

from metadensity import Evaluation
from metadensity.density import EXACT
from metadensity.evaluation.comparison import Difference, finite_difference
from metadensity.evaluation.cost import Cost
from metadensity.evaluation.scores import Scores
from tasks.media import OF_IMAGES, Words


def bound_note(words: Words) -> str:
    """To be read with every table that holds a bound."""
    return (
        f"A bound is no likelihood: its {words.nats} are at least those of the model itself, by an unknown amount. "
        "Beside exact numbers it ranks nothing but where the bound is the better one."
    )


@dataclass
class Section:
    """A part of a report: a title, a table, and lines to read with it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: list[str] = field(default_factory=list)

    def plain(self) -> str:
        """For the terminal."""
        table = [plain(self.headings, self.rows), ""] if self.rows else []
        return "\n".join([self.title, "", *table, *self.notes]).rstrip() + "\n"

    def markdown(self) -> str:
        """For a document."""
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"{self.title}\n\n{markdown(self.headings, self.rows) if self.rows else ''}{notes}"


def likelihood_headings(words: Words) -> list[str]:
    """Of the columns that every table of likelihoods begins with."""
    return ["shots", words.nats_per_dim, words.bits_per_dim, words.nats, "95 % interval"]


def likelihood_rows(
    evaluation: Evaluation,
    others: Mapping[str, Evaluation] | None = None,
    optimum: Evaluation | None = None,
    words: Words = OF_IMAGES,
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: one row for each number of shots, the others' nats an event beside it. words: of the task.

    Where the optimum is known, it and the gap to it follow, the gap with the interval of the paired difference.
    """
    others = others or {}
    headings = [*likelihood_headings(words), *(marked(name, other.scores) for name, other in others.items())]
    if optimum is not None:
        headings += ["optimum", "gap to optimum", "gap, 95 %"]
    cells = []
    for row in evaluation.rows:
        cells.append(
            [
                str(row.shots),
                f"{row.nats_per_dim:.4f}",
                f"{row.bits_per_dim:.4f}",
                f"{row.nats_per_image:.2f}",
                interval(row.interval),
                *(f"{other.row(row.shots).nats_per_image:.2f}" for other in others.values()),
            ]
        )
        if optimum is not None:
            best = optimum.row(row.shots).nats_per_image
            gap = finite_difference(optimum.scores[row.shots], evaluation.scores[row.shots])
            if gap is None:
                cells[-1] += [f"{best:.2f}", "inf", "none"]
                continue
            cells[-1] += [f"{best:.2f}", f"{gap.mean:.2f} ({gap.mean / best:.1%})", interval(gap.interval)]
    return headings, cells


def marked(name: str, scores: Mapping[int, Scores]) -> str:
    """The name of a model as it stands beside its numbers: what they are, where they are no exact likelihoods."""
    quantities = {part.quantity for part in scores.values()} - {EXACT}
    return f"{name}, {' or '.join(sorted(quantities))}" if quantities else name


def interval(bounds: tuple[float, float] | None, digits: int = 2) -> str:
    """``low to high``, or "none": one cluster gives no interval, nor do values that are all the same."""
    if bounds is None or not all(map(math.isfinite, bounds)) or bounds[0] == bounds[1]:
        return "none"
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def plain(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in columns, for the terminal."""
    return tabulate(rows, headings, "simple", stralign="right", disable_numparse=True)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right; without padding, so that a number that changes changes one line."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comma_separated(evaluations: Mapping[str, Evaluation], optimum: Evaluation | None = None) -> str:
    """CSV with one line for each model and number of shots; the cost is that of the model over all of them."""
    text = io.StringIO()
    writer: Any = None
    for record in records(evaluations, optimum):
        record |= cost_record(evaluations[record["model"]].cost)
        if writer is None:
            writer = csv.DictWriter(text, list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow(record)
    return text.getvalue()


def records(evaluations: Mapping[str, Evaluation], optimum: Evaluation | None = None) -> list[dict[str, Any]]:
    """Plain records, one for each model and number of shots; what is infinite is None."""
    found = []
    for name, evaluation in evaluations.items():
        for row in evaluation.rows:
            record = finite_record(row)
            low, high = bounds(record.pop("interval"))
            group_low, group_high = bounds(record.pop("group_interval"))
            record |= {"interval_low": low, "interval_high": high}
            record |= {"group_interval_low": group_low, "group_interval_high": group_high}
            if optimum is not None:
                record |= {"optimum": optimum.row(row.shots).nats_per_image, "gap": None}
                record |= {"gap_low": None, "gap_high": None}
                gap = finite_difference(optimum.scores[row.shots], evaluation.scores[row.shots])
                if gap is not None:
                    low, high = bounds(gap.interval)
                    record |= {"gap": gap.mean, "gap_low": low, "gap_high": high}
            found.append({"model": name, **record})
    return found


def finite_record(row: Any) -> dict[str, Any]:
    """A row of numbers as JSON values: what is infinite is None."""
    return {name: None if value == math.inf else value for name, value in asdict(row).items()}


def difference_record(found: Difference) -> dict[str, Any]:
    """A paired difference as JSON values."""
    record = asdict(found)
    low, high = bounds(record.pop("interval"))
    group_low, group_high = bounds(record.pop("group_interval"))
    return {
        **record,
        "interval_low": low,
        "interval_high": high,
        "group_interval_low": group_low,
        "group_interval_high": group_high,
    }


def cost_record(cost: Cost | None) -> dict[str, Any]:
    """A cost as JSON values."""
    return {} if cost is None else {**asdict(cost), "images_per_second": cost.images_per_second}


def bounds(given: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """The bounds of an interval, None for none: infinite ones, and for what has no width."""
    low, high = given or (math.inf, math.inf)
    if low == high:
        return None, None
    return (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)

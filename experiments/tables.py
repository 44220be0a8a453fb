"""Likelihood tables: for the eye, for a document, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from metadensity import Evaluation

HEADINGS = ("shots", "nats/dim", "bits/dim", "nats/image", "95 % interval")


def likelihood_rows(
    evaluation: Evaluation, others: Mapping[str, Evaluation] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: one row for each number of shots, the others' nats/image beside it."""
    others = others or {}
    headings = [*HEADINGS, *others]
    cells = []
    for row in evaluation.rows:
        low, high = row.interval
        cells.append(
            [
                str(row.shots),
                f"{row.nats_per_dim:.4f}",
                f"{row.bits_per_dim:.4f}",
                f"{row.nats_per_image:.2f}",
                f"{low:.2f} to {high:.2f}",
                *(f"{other.row(row.shots).nats_per_image:.2f}" for other in others.values()),
            ]
        )
    return headings, cells


def plain(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in columns."""
    widths = [max(len(line[i]) for line in (headings, *rows)) for i in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comma_separated(evaluations: Mapping[str, Evaluation]) -> str:
    """CSV with one line for each model and number of shots."""
    text = io.StringIO()
    writer: Any = None
    for record in records(evaluations):
        if writer is None:
            writer = csv.DictWriter(text, list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow(record)
    return text.getvalue()


def records(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """Plain records, one for each model and number of shots; an infinite interval is None."""
    found = []
    for name, evaluation in evaluations.items():
        for row in evaluation.rows:
            record = asdict(row)
            low, high = (bound if abs(bound) != float("inf") else None for bound in record.pop("interval"))
            found.append({"model": name, **record, "interval_low": low, "interval_high": high})
    return found

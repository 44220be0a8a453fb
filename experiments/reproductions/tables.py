"""Tables of a reproduction from its records: likelihoods, paired differences, gains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.reporting.tables import Section, interval
from experiments.reproductions.plan import Plan
from experiments.reproductions.records import Record
from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.intervals import clustered_mean


def sections(plan: Plan, records: Mapping[str, Record]) -> list[Section]:
    """The likelihoods, and the paired differences to the plan's baseline."""
    if not records:
        return []
    found = [_likelihoods(plan, records)]
    if plan.baseline in records and len(records) > 1:
        found.append(_differences(plan, records))
    if plan.gain is not None and set(plan.gain) <= records.keys():
        found.append(_gains(plan, records))
    return found


def markdown(plan: Plan, records: Mapping[str, Record]) -> str:
    """All of it, for a document."""
    return "\n".join(section.markdown() for section in sections(plan, records))


def _likelihoods(plan: Plan, records: Mapping[str, Record]) -> Section:
    """Test (train), in nats/image, or in nats/dim with bits/dim; what was published."""
    headings = ["model", *_columns(plan)]
    headings = [*headings, *(f"bits/dim, {heading}" for heading in headings[1:] if plan.per_dim), "steps", "parameters"]
    rows = []
    for name, record in records.items():
        values, paper = record.values, plan.entries[name].paper
        dims = _dims(record)
        unit, digits = (1, 3) if plan.per_dim else (dims, 2)
        found = {shots: _test_and_train(record, shots) for shots in plan.shots}
        counts = [
            " + ".join(f"{steps:,}" for steps in [*values.get("steps_before", []), values["steps"]]),
            f"{values['parameters']:,}",
        ]
        rows.append([plan.entries[name].title, *_cells(plan, found, unit, digits), *counts])
        if paper:
            rows.append([plan.published, *_cells(plan, paper, unit, digits - 1), "", ""])
    images = {record.row(plan.shots[0])["images"] for record in records.values()}  # type: ignore[index]
    notes = [f"{_unit(plan)}, test (train) where known; {max(images):,} test images."]
    return Section(plan.title, headings, rows, [*notes, *plan.notes])


def _columns(plan: Plan) -> list[str]:
    """Headings of the numbers of shots."""
    return [f"{shots} shot{'s' * (shots != 1)}" for shots in plan.shots]


def _unit(plan: Plan) -> str:
    return "nats/dim" if plan.per_dim else "nats/image"


def _dims(record: Record) -> int:
    return int(np.prod(record.values["pixels"]["event_shape"]))


def _test_and_train(record: Record, shots: int) -> tuple[float, float | None]:
    """nats/dim of test and training images."""
    test, train = record.row(shots), record.row(shots, "train_rows")
    assert test is not None
    return test["nats_per_image"] / _dims(record), None if train is None else train["nats_per_image"] / _dims(record)


def _cells(plan: Plan, found: Mapping[int, tuple[float, float | None]], unit: float, digits: int) -> list[str]:
    """A row of nats/dim in the plan's unit: test (train), then bits/dim where the plan shows them."""
    cells, bits = [], []
    for shots in plan.shots:
        test, train = found.get(shots, (None, None))
        shown = "" if test is None else f"{test * unit:.{digits}f}"
        cells.append(shown + ("" if train is None else f" ({train * unit:.{digits}f})"))
        bits.append("" if test is None else f"{test / np.log(2):.{digits}f}")
    return cells + bits * plan.per_dim


def _differences(plan: Plan, records: Mapping[str, Record]) -> Section:
    reference = records[plan.baseline]
    headings = ["model", *_columns(plan)]
    rows = []
    for name, record in records.items():
        if name != plan.baseline:
            found = [paired_difference(reference.scores[shots], record.scores[shots]) for shots in plan.shots]
            unit, digits = (_dims(record), 3) if plan.per_dim else (1, 2)
            shown = [
                f"{d.mean / unit:+.{digits}f} ({interval((d.interval[0] / unit, d.interval[1] / unit), digits)})"
                for d in found
            ]
            rows.append([plan.entries[name].title, *shown])
    title = f"Difference to {plan.entries[plan.baseline].title} on the same queries, {_unit(plan)}, 95 % over classes"
    return Section(title, headings, rows)


def _gains(plan: Plan, records: Mapping[str, Record]) -> Section:
    """The gain of a model over the baseline in per cent of the baseline, with the interval of a ratio of means."""
    assert plan.gain is not None
    model, baseline = plan.gain
    headings = ["gain in %", *_columns(plan)]
    ours, theirs = [], []
    for shots in plan.shots:
        one, other = records[baseline].scores[shots], records[model].scores[shots]
        mean, bounds = gain(one.nats, other.nats, one.class_ids)
        ours.append(f"{mean:.1f} ({interval(bounds, 1)})")
        paper = [plan.entries[name].paper.get(shots) for name in (baseline, model)]
        theirs.append(f"{100 * (1 - paper[1][0] / paper[0][0]):.1f}" if paper[0] and paper[1] else "")
    title = f"What {plan.entries[model].title} gains over {plan.entries[baseline].title}"
    rows = [["here", *ours], [plan.published, *theirs]]
    return Section(title, headings, rows if any(theirs) else rows[:1])


def gain(baseline: np.ndarray, model: np.ndarray, clusters: np.ndarray) -> tuple[float, tuple[float, float]]:
    """100 * (1 - mean(model) / mean(baseline)) and its 95 % interval, clustered; by linearisation of the ratio."""
    ratio = float(model.mean() / baseline.mean())
    residuals = (model - ratio * baseline) / baseline.mean()
    _, (low, high) = clustered_mean(residuals, clusters)
    return 100 * (1 - ratio), (100 * (1 - ratio - high), 100 * (1 - ratio - low))

"""Tables of a reproduction from its records: likelihoods, gaps to the optimum, paired differences, gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.reporting.tables import Section, interval
from experiments.reproductions.plan import Plan
from experiments.reproductions.records import Record
from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.intervals import clustered_mean


def sections(plan: Plan, records: Mapping[str, Record]) -> list[Section]:
    """The likelihoods, the gaps to the optimum, and the paired differences to the plan's baseline."""
    if not records:
        return []
    found = [_likelihoods(plan, records)]
    if len(records) > 1 and any(plan.entries[name].optimum for name in records):
        found.append(_gaps(plan, records))
    if plan.baseline in records and len(records) > 1:
        found.append(_differences(plan, records))
    if plan.gain is not None and set(plan.gain) <= records.keys():
        found.append(_gains(plan, records))
    return found


def mean_section(plans: Sequence[Plan], records: Mapping[str, Mapping[str, Record]]) -> Section:
    """The mean of several tables alike, each weighed the same. records: by the name of the plan and the entry.

    Of entries that all of them have a record of. Raises ValueError where there is none.
    """
    first = plans[0]
    common = [name for name in first.rows if all(name in records[plan.name] for plan in plans)]
    if not common:
        raise ValueError(f"{', '.join(plan.name for plan in plans)} have no record in common; make the same of each.")
    rows = []
    for name in common:
        each = [records[plan.name][name] for plan in plans]
        means = (
            np.mean([_test_and_train(record, shots)[0] * _per_dim(first, record) for record in each])
            for shots in first.shots
        )
        rows.append([first.entries[name].title, *(f"{mean:.{_digits(first)}f}" for mean in means)])
    return Section(f"Mean of {', '.join(plan.name for plan in plans)}, {first.unit}", ["model", *_columns(first)], rows)


def markdown(plan: Plan, records: Mapping[str, Record]) -> str:
    """All of it, for a document."""
    return "\n".join(section.markdown() for section in sections(plan, records))


def _likelihoods(plan: Plan, records: Mapping[str, Record]) -> Section:
    """Test (train), or with its interval, in the plan's unit; what was published."""
    headings = ["model", *_columns(plan)]
    headings = [*headings, *(f"bits/dim, {heading}" for heading in headings[1:] if _both(plan)), "steps", "parameters"]
    headings += ["seconds to score"] * plan.timed
    rows = []
    for name, record in records.items():
        values, paper = record.values, plan.entries[name].paper
        found = {shots: _test_and_train(record, shots) for shots in plan.shots}
        cells = _with_intervals(plan, record) if plan.train_limit == 0 else _cells(plan, found, _per_dim(plan, record))
        steps = [*values.get("steps_before", []), values["steps"]] if "steps" in values else []
        counts = [" + ".join(f"{each:,}" for each in steps), f"{values['parameters']:,}" if steps else ""]
        seconds = [f"{values['cost']['seconds']:.0f}"] if plan.timed else []
        rows.append([plan.entries[name].title, *cells, *counts, *seconds])
        if paper:
            rows.append([plan.published, *_cells(plan, paper, _per_dim(plan, record), 1), "", "", *[""] * plan.timed])
    row = next(iter(records.values())).row(plan.shots[0])
    assert row is not None
    beside = "test, with 95 % intervals over classes" if plan.train_limit == 0 else "test (train) where known"
    scored = f", given the first {plan.given} places of each" if plan.given else ""
    notes = [f"{plan.unit}, {beside}; {row['images']:,} test {_noun(plan)}{scored}."]
    return Section(plan.title, headings, rows, [*notes, *plan.notes])


def _columns(plan: Plan) -> list[str]:
    """Headings of the numbers of shots."""
    return [f"{shots} shot{'s' * (shots != 1)}" for shots in plan.shots]


def _both(plan: Plan) -> bool:
    """Whether nats and bits are shown side by side."""
    return plan.unit == "nats/dim"


def _noun(plan: Plan) -> str:
    """What the queries are."""
    return "images" if plan.unit in ("nats/image", "nats/dim") else "sequences"


def _digits(plan: Plan) -> int:
    return 2 if plan.unit == "nats/image" else 3


def _per_dim(plan: Plan, record: Record) -> float:
    """What nats/dim are multiplied by to have the plan's unit."""
    if plan.unit == "nats/image":
        return float(np.prod(record.values["pixels"]["event_shape"]))
    return 1 / np.log(2) if plan.unit.startswith("bits") else 1.0


def _per_image(plan: Plan, record: Record, shots: int) -> float:
    """What nats of one query are multiplied by: sizes, where they differ, are taken as known without error."""
    row = record.row(shots)
    assert row is not None
    return _per_dim(plan, record) * row["nats_per_dim"] / row["nats_per_image"]


def _test_and_train(record: Record, shots: int) -> tuple[float, float | None]:
    """nats/dim of test and training images."""
    test, train = record.row(shots), record.row(shots, "train_rows")
    assert test is not None
    return test["nats_per_dim"], None if train is None else train["nats_per_dim"]


def _with_intervals(plan: Plan, record: Record) -> list[str]:
    """A row of the plan's unit, each number with its interval."""
    cells = []
    for shots in plan.shots:
        row, scale = record.row(shots), _per_image(plan, record, shots)
        assert row is not None
        ends = (row["interval_low"], row["interval_high"])
        known = None if None in ends else (ends[0] * scale, ends[1] * scale)
        digits = _digits(plan)
        cells.append(f"{row['nats_per_image'] * scale:.{digits}f} ({interval(known, digits)})")
    return cells


def _cells(plan: Plan, found: Mapping[int, tuple[float, float | None]], unit: float, fewer: int = 0) -> list[str]:
    """A row of nats/dim in the plan's unit: test (train), then bits/dim where the plan shows them."""
    cells, bits, digits = [], [], _digits(plan) - fewer
    for shots in plan.shots:
        test, train = found.get(shots, (None, None))
        shown = "" if test is None else f"{test * unit:.{digits}f}"
        cells.append(shown + ("" if train is None else f" ({train * unit:.{digits}f})"))
        bits.append("" if test is None else f"{test / np.log(2):.{digits}f}")
    return cells + bits * _both(plan)


def _differences(plan: Plan, records: Mapping[str, Record]) -> Section:
    reference = records[plan.baseline]
    headings = ["model", *_columns(plan)]
    rows = []
    for name, record in records.items():
        if name != plan.baseline:
            found = [paired_difference(reference.scores[shots], record.scores[shots]) for shots in plan.shots]
            scales, digits = [_per_image(plan, record, shots) for shots in plan.shots], _digits(plan)
            shown = [
                f"{d.mean * s:+.{digits}f} ({interval((d.interval[0] * s, d.interval[1] * s), digits)})"
                for d, s in zip(found, scales, strict=True)
            ]
            rows.append([plan.entries[name].title, *shown])
    title = f"Difference to {plan.entries[plan.baseline].title} on the same queries, {plan.unit}, 95 % over classes"
    return Section(title, headings, rows)


def _gaps(plan: Plan, records: Mapping[str, Record]) -> Section:
    """How far each model is above the optimum, in per cent of it."""
    optimum = next(record for name, record in records.items() if plan.entries[name].optimum)
    rows = []
    for name, record in records.items():
        if record is not optimum:
            cells = []
            for shots in plan.shots:
                best, own = optimum.scores[shots], record.scores[shots]
                less, (low, high) = gain(best.nats, own.nats, best.class_ids)
                cells.append(f"{-less:.2f} ({-high:.2f} to {-low:.2f})")
            rows.append([plan.entries[name].title, *cells])
    return Section("Above the optimum in %, 95 % over classes", ["model", *_columns(plan)], rows)


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

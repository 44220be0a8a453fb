"""The sections of an evaluation report: likelihood, groups, use of the support, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.reporting.tables import (
    Section,
    bound_note,
    bounds,
    cost_record,
    difference_record,
    finite_record,
    interval,
    likelihood_rows,
)
from metadensity import Evaluation
from metadensity.density import EXACT
from metadensity.evaluation.comparison import finite_difference
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.scores import Scores
from metadensity.evaluation.support_use import CONTROLS, SupportUse, cost_of_supports, supports_cost
from tasks import TaskDistribution
from tasks.media import OF_IMAGES, Words

FEW_GROUPS = 20  # below this, say how few: Student's quantile is not yet that of many


def evaluation_report(
    title: str,
    evaluations: Mapping[str, Evaluation],
    uses: Mapping[str, SupportUse],
    optimum: Evaluation | None,
    task: TaskDistribution,
    duplicates: str,
) -> list[Section]:
    """Likelihood, groups, use of the support and cost; the first model is the subject."""
    first, *rest = evaluations
    words = task.medium.words
    subject = evaluations[first]
    headings, rows = likelihood_rows(subject, {name: evaluations[name] for name in rest}, optimum, words)
    noun = task.group_noun
    notes = [*_quantity_notes(evaluations, words), *infinite_notes(evaluations, words)]
    notes += [*support_notes(evaluations, words), *_interval_notes(subject, task, noun)]
    notes.append(duplicate_note(subject, duplicates, words))
    sections = [Section(title, headings, rows, notes)]
    if 1 < subject.rows[-1].groups < subject.rows[-1].classes:
        sections.append(_groups(first, subject, task, noun))
    if uses:
        sections.append(_support_use(uses, words))
    sections.append(_cost(evaluations, words))
    return sections


def _quantity_notes(evaluations: Mapping[str, Evaluation], words: Words) -> list[str]:
    """What is no exact likelihood, by name; nothing where all are."""
    found = {name: evaluation.rows[0].quantity for name, evaluation in evaluations.items()}
    bounds_ = [f"{name} is a {quantity}." for name, quantity in found.items() if quantity != EXACT]
    return [*bounds_, bound_note(words)] if bounds_ else []


def infinite_notes(evaluations: Mapping[str, Evaluation], words: Words) -> list[str]:
    """Which models give an event probability 0, and how many of them at how many shots."""
    found = []
    for name, evaluation in evaluations.items():
        if counts := {row.shots: row.impossible for row in evaluation.rows if row.impossible}:
            said = ", ".join(f"{count} at {shots} shots" for shots, count in counts.items())
            found.append(
                f"{name} gives {said} of {evaluation.rows[0].images} {words.nouns} probability 0: its mean is infinite."
            )
    return found


def support_notes(evaluations: Mapping[str, Evaluation], words: Words) -> list[str]:
    """Which models are surely worse with supports than with none."""
    costs = {name: cost_of_supports(evaluation.scores) for name, evaluation in evaluations.items()}
    return [f"{name}: {supports_cost(found, words.nats)}." for name, found in costs.items() if found]


def _interval_notes(subject: Evaluation, task: TaskDistribution, noun: str) -> list[str]:
    row, words = subject.rows[-1], task.medium.words
    notes = [
        f"Intervals are over {row.classes} classes: for new ones from the same {noun}s."
        if 1 < row.groups < row.classes
        else f"Intervals are over {row.classes} class{'es' * (row.classes != 1)}."
    ]
    if row.classes > 1 and not row.impossible and not math.isfinite(row.interval[0]):
        notes.append(
            f"All {words.nouns} cost the same, to rounding: that tells nothing of others, so there is no interval."
        )
    if row.classes < FEW_GROUPS:
        notes.append(few_clusters(row.classes, f"{task.split} class", f"{task.split} classes"))
    if 1 < row.groups < row.classes:
        notes.append(
            f"For new {noun}s, over {row.groups} of them, at {row.shots} shots: "
            f"{interval(row.group_interval)} {words.nats}."
        )
        if row.groups < FEW_GROUPS:
            notes.append(few_clusters(row.groups, f"{task.split} {noun}", f"{task.split} {noun}s"))
    if row.groups == 1 < row.classes:
        notes.append(f"1 {task.split} {noun}: nothing can be said about other {noun}s.")
    return notes


def few_clusters(count: int, one: str, several: str) -> str:
    """What is to be known of an interval over so few. one, several: what they are called."""
    noun = several.split()[-1]
    if count == 1:
        return f"1 {one}: there is no interval over {noun}."
    degrees = "1 degree" if count == 2 else f"{count - 1} degrees"
    return f"{count} {several}: the interval over {noun} has {degrees} of freedom."


def duplicate_note(evaluation: Evaluation, duplicates: str, words: Words = OF_IMAGES) -> str:
    """How many queries were equal to an event of their support, and what was done about it."""
    counts = {row.shots: row.identical for row in evaluation.rows if row.identical}
    if not counts:
        return f"No query is equal to {words.one} of its support."
    said = ", ".join(f"{count} at {shots} shots" for shots, count in counts.items())
    done = "left out of the scores" if duplicates == "drop" else f"different {words.nouns} by their ids, and scored"
    done = "scored, as duplicates='allow' says" if duplicates == "allow" else done
    return f"Queries equal to {words.one} of their support: {said}; {done}."


def _groups(name: str, subject: Evaluation, task: TaskDistribution, noun: str) -> Section:
    shots = [row.shots for row in subject.rows]
    by_group: dict[int, dict[int, Any]] = {}
    for row in subject.by_group():
        by_group.setdefault(row.group, {})[row.shots] = row
    rows = []
    for group, found in by_group.items():
        any_row = next(iter(found.values()))
        means = [f"{found[s].nats_per_image:.2f}" if s in found else "" for s in shots]
        rows.append([task.group_names[group], str(any_row.classes), str(any_row.images), *means])
    last = subject.rows[-1]
    rows.append([f"95 % over {noun}s", "", "", *(interval(row.group_interval) for row in subject.rows)])
    headings = [noun, "classes", task.medium.words.nouns, *(f"{s} shot" if s == 1 else f"{s} shots" for s in shots)]
    return Section(f"By {noun}, {name}, {task.medium.words.nats} ({last.groups} {noun}s)", headings, rows)


def group_records(evaluations: Mapping[str, Evaluation], task: TaskDistribution) -> list[dict[str, Any]]:
    """Plain records, one for each model, group and number of shots."""
    found = []
    for name, evaluation in evaluations.items():
        for row in evaluation.by_group():
            record = finite_record(row)
            low, high = bounds(record.pop("interval"))
            record |= {"group": task.group_names[row.group], "interval_low": low, "interval_high": high}
            found.append({"model": name, **record})
    return found


def part_records(
    evaluations: Mapping[str, Evaluation],
    given: Mapping[str, Evaluation],
    optimum: Evaluation | None,
    given_optimum: Evaluation | None,
) -> list[dict[str, Any]]:
    """Plain records of what is given, a source, and of the rest given it, a target: a part of each model and shots."""
    best = {} if optimum is None or given_optimum is None else _parts(optimum, given_optimum)
    found = []
    for name, evaluation in evaluations.items():
        for (shots, part), scores in _parts(evaluation, given[name]).items():
            mean, within = clustered_mean(scores.nats, scores.class_ids)
            record: dict[str, Any] = {"model": name, "shots": shots, "part": part, "nats_per_image": mean}
            record["interval_low"], record["interval_high"] = bounds(within)
            gap = finite_difference(best[shots, part], scores) if best else None
            if gap is not None:
                record["optimum"] = float(best[shots, part].nats.mean())
                record["gap"], (record["gap_low"], record["gap_high"]) = gap.mean, bounds(gap.interval)
            found.append(record)
    return found


def _parts(whole: Evaluation, given: Evaluation) -> dict[tuple[int, str], Scores]:
    """The scores of sources, and of targets given them, by shots."""
    found = {}
    for shots, scores in whole.scores.items():
        source = given.scores[shots]
        found[shots, "source"] = source
        found[shots, "target"] = replace(scores, nats=scores.nats - source.nats)
    return found


def part_section(records: list[dict[str, Any]], words: Words) -> Section:
    """Each part of the sequences by itself, beside the optimum where it is known."""
    best = any("optimum" in record for record in records)
    headings = ["part", "shots", "model", words.nats, "95 % interval"]
    headings += ["optimum", "gap to optimum", "gap, 95 %"] if best else []
    rows = []
    for record in sorted(records, key=lambda record: record["part"], reverse=True):  # targets first
        within = (record["interval_low"], record["interval_high"])
        cells = [record["part"], str(record["shots"]), record["model"], f"{record['nats_per_image']:.3f}"]
        cells.append("none" if None in within else interval(within, 3))
        if best and "optimum" in record:
            around = (record["gap_low"], record["gap_high"])
            share = f" ({record['gap'] / record['optimum']:.1%})" if record["optimum"] else ""
            cells += [f"{record['optimum']:.3f}", f"{record['gap']:.3f}{share}"]
            cells.append("none" if None in around else interval(around, 3))
        rows.append(cells)
    return Section(f"Source, and target given its source, {words.nats}", headings, rows)


def _support_use(uses: Mapping[str, SupportUse], words: Words) -> Section:
    shots = next(iter(uses.values())).shots
    headings = ["model", "true support"]
    for control in CONTROLS:
        headings += [control, "difference, 95 %"]
    rows = []
    for name, use in uses.items():
        cells = [name, f"{use.nats_per_image:.2f}"]
        for control in CONTROLS:
            found = use.controls.get(control)
            if found is None:
                cells += ["", ""]
            else:
                cells += [f"{found.nats_per_image:.2f}", interval(found.difference.interval, 3)]
        rows.append(cells)
    title = f"Use of the support at {shots} shots, {words.nats}; differences to the true support, in pairs"
    return Section(title, headings, rows, [f"{name} {use.said(words.nats)}." for name, use in uses.items()])


def support_record(use: SupportUse, words: Words) -> dict[str, Any]:
    """The use of the support as JSON values."""
    return {
        "shots": use.shots,
        "nats_per_image": use.nats_per_image if math.isfinite(use.nats_per_image) else None,
        "uses_support": use.uses_support,
        "costs_more_than_none": use.costs_more_than_none,
        "verdict": use.said(words.nats),
        "controls": {
            name: {"nats_per_image": control.nats_per_image, **difference_record(control.difference)}
            for name, control in use.controls.items()
        },
    }


def _cost(evaluations: Mapping[str, Evaluation], words: Words) -> Section:
    headings = ["model", "parameters", "seconds", f"{words.nouns}/s", "peak memory, MiB", "device", "threads"]
    rows = []
    for name, evaluation in evaluations.items():
        cost = cost_record(evaluation.cost)
        rows.append(
            [
                name,
                f"{cost['parameters']:,}",
                f"{cost['seconds']:.2f}",
                f"{cost['images_per_second']:,.0f}",
                f"{cost['peak_memory'] / 2**20:,.0f}",
                cost["device"],
                str(cost["threads"]),
            ]
        )
    note = "Peak memory is torch's own on CUDA; elsewhere that of the process so far, training of baselines included."
    return Section("Cost of scoring, over all numbers of shots", headings, rows, [note])

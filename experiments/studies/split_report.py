"""The tables of a study of splits: each split, their spread beside the interval of one, and what kinds differ by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.recording.trained_model import TrainedModel
from experiments.reporting.tables import Section, bounds, interval
from metadensity import Evaluation
from metadensity.evaluation.comparison import finite_difference
from metadensity.evaluation.spread import Spread, difference, spread
from tasks.media import OF_IMAGES, Words

KINDS = {"class": "within groups", "group": "across groups", "committed": "committed"}
ByShots = dict[int, tuple[float, tuple[float, float], int]]  # value, 95 % interval, classes it is over


@dataclass(frozen=True)
class Scored:
    """A run, the kind and seed of its split, and how it did there. shared: test groups in training, of how many."""

    run: TrainedModel
    kind: str
    split_seed: int
    train_classes: int
    episodes_sha256: str
    pixels: dict[str, Any]
    evaluation: Evaluation
    shared: tuple[int, int] = (0, 0)


def spreads(scored: Sequence[Scored]) -> tuple[dict[str, dict[int, Spread]], dict[str, dict[int, Spread]]]:
    """By kind and shots: the spread of the likelihood, and of the gain over the fewest shots.

    The gain is in pairs on the same queries, so it is free of how hard the characters of a split are.
    """
    likelihoods, gains = {}, {}
    for kind in dict.fromkeys(one.kind for one in scored):
        evaluations = [one.evaluation for one in scored if one.kind == kind]
        likelihoods[kind] = _by_shots([_likelihoods(found) for found in evaluations])
        gains[kind] = _by_shots([_gains(found) for found in evaluations])
    return likelihoods, {kind: found for kind, found in gains.items() if found}


def _by_shots(splits: Sequence[ByShots]) -> dict[int, Spread]:
    in_all = [shots for shots in splits[0] if all(shots in found for found in splits)]
    return {shots: spread(*zip(*(found[shots] for found in splits), strict=True)) for shots in in_all}


def _likelihoods(evaluation: Evaluation) -> ByShots:
    return {row.shots: (row.nats_per_image, row.interval, row.classes) for row in evaluation.rows}


def _gains(evaluation: Evaluation) -> ByShots:
    first, *rest = evaluation.scores
    found = {shots: finite_difference(evaluation.scores[shots], evaluation.scores[first]) for shots in rest}
    return {shots: (gain.mean, gain.interval, gain.classes) for shots, gain in found.items() if gain is not None}


def report(
    title: str,
    scored: Sequence[Scored],
    likelihoods: Mapping[str, Mapping[int, Spread]],
    gains: Mapping[str, Mapping[int, Spread]],
    words: Words = OF_IMAGES,
) -> list[Section]:
    """The splits one by one, the spread of likelihood and gain, and what the kinds differ by."""
    shots = [row.shots for row in scored[0].evaluation.rows]
    said = [f"{number} shot" if number == 1 else f"{number} shots" for number in shots]
    rows = [
        [
            *(KINDS[one.kind], str(one.split_seed), str(one.train_classes), str(one.evaluation.rows[0].classes)),
            "{} of {}".format(*one.shared),
            *(f"{row.nats_per_image:.2f} ({interval(row.interval)})" for row in one.evaluation.rows),
        ]
        for one in scored
    ]
    headings = ["held out", "split seed", "train classes", "test classes", "test groups in training", *said]
    sections = [
        Section(f"{title}: each split, {words.nats}, 95 % over its classes", headings, rows),
        _spread_section(f"{words.nats.capitalize()} over the splits", likelihoods),
    ]
    if gains:
        sections.append(_spread_section(f"Gain over {shots[0]} shots, {words.nats}, in pairs, over the splits", gains))
    sections[-1].notes.append(
        "Between splits: the standard deviation of the number over splits. Within: the standard error that the classes "
        "of one split give it. Where the first is much the larger, the interval of one split says too little of "
        "others: they differ in their groups and in what was trained, not only in the classes drawn. It may be the "
        "smaller within groups, where every group has its share in every split."
    )
    others = list(likelihoods)[1:]
    if others:
        sections.append(_kinds_section(next(iter(likelihoods)), likelihoods, gains, words))
    return sections


def _spread_section(title: str, spreads: Mapping[str, Mapping[int, Spread]]) -> Section:
    headings = ["held out", "shots", "splits", "mean", "95 % over splits", "SD between splits"]
    headings += ["SE within", "between / within", "half width of one split's 95 %"]
    rows = [
        [
            *(KINDS[kind], str(shots), str(found.splits), f"{found.mean:.2f}", interval(found.interval)),
            *(_number(value) for value in (found.between, found.within, found.ratio, found.half_width)),
        ]
        for kind, by_number in spreads.items()
        for shots, found in by_number.items()
    ]
    return Section(title, headings, rows)


def _kinds_section(
    first: str, likelihoods: Mapping[str, Mapping[int, Spread]], gains: Mapping[str, Mapping[int, Spread]], words: Words
) -> Section:
    rows = []
    for kind in list(likelihoods)[1:]:
        for shots, found in likelihoods[kind].items():
            mean, ends = difference(likelihoods[first][shots], found)
            cells = [KINDS[kind], str(shots), f"{mean:+.2f}" if math.isfinite(mean) else "none", interval(ends)]
            if shots in gains.get(kind, {}) and shots in gains.get(first, {}):
                mean, ends = difference(gains[first][shots], gains[kind][shots])
                cells += [f"{mean:+.2f}", interval(ends)]
            rows.append([*cells, *[""] * (6 - len(cells))])
    headings = ["held out", "shots", words.nats, "95 % over splits", "gain", "95 % over splits"]
    note = "Splits of different kinds are not paired: the interval is Welch's, over splits."
    return Section(f"Difference to {KINDS[first]}", headings, rows, [note])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def spread_records(spreads: Mapping[str, Mapping[int, Spread]], of: str) -> list[dict[str, Any]]:
    """Plain records, one for each kind and number of shots. of: what the spread is of, "nats/image" or "gain"."""
    found = []
    for kind, by_number in spreads.items():
        for shots, one in by_number.items():
            low, high = bounds(one.interval)
            record = {"of": of, "kind": kind, "shots": shots, "splits": one.splits}
            record |= {"mean": one.mean if math.isfinite(one.mean) else None}
            record |= {"interval_low": low, "interval_high": high, "between_splits_sd": one.between}
            record |= {"within_split_se": one.within, "within_split_half_width": one.half_width, "ratio": one.ratio}
            found.append(record)
    return found

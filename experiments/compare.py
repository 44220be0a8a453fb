"""Paired comparison of evaluated runs: ``python -m experiments.compare with runs='["runs/4","runs/7"]'``.

Each is the folder of a run of experiments.evaluate. The first is the reference; every difference is taken query by
query, so that how hard the queries are drops out. What the trained runs differ in is shown beside it. A single run is
compared within: its other models with its subject.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacred.run import Run

from experiments.figures.shot_curves import difference_curve, save_figure
from experiments.recording import lineage
from experiments.recording.command_line import main, make_experiment
from experiments.recording.flat_configs import differences
from experiments.recording.root import runs_root
from experiments.recording.run_folder import folder_of
from experiments.recording.score_files import FILE as SCORES
from experiments.recording.score_files import load_scores
from experiments.reporting.evaluation_report import FEW_GROUPS, few_clusters
from experiments.reporting.tables import Section, bound_note, difference_record, interval, marked
from metadensity.density import EXACT
from metadensity.evaluation.comparison import (
    Difference,
    IncomparableError,
    differences_by_group,
    paired_difference,
    require_comparable,
)
from metadensity.evaluation.scores import Scores
from metadensity.files import DamagedFileError, write_atomically
from tasks.media import OF_IMAGES, Words

SHOWN_GROUPS = 20  # more make no table that is read; comparison.json has them all
experiment = make_experiment("compare", named_configs={"fast": {}})


@experiment.config
def _defaults() -> None:
    runs = ["latest"]  # runs of experiments.evaluate: paths, numbers in runs/, or "latest"


@dataclass(frozen=True)
class Evaluated:
    """A model that a run of experiments.evaluate scored.

    groups: names by id, of the groups its queries are of. fitted: by the evaluation itself, as a baseline.
    words: of its task.
    """

    label: str
    scores: dict[int, Scores]
    identity: dict[str, Any]
    config: dict[str, Any]
    groups: dict[int, str]
    fitted: bool = False
    words: Words = OF_IMAGES


@experiment.main
def compare(runs: list[str | int], _run: Run) -> dict[str, Any]:
    """Print the paired differences; write JSON, Markdown and a plot. Returns the differences by model and shots."""
    runs = as_list(runs)
    if not runs:
        raise ValueError(
            'runs is empty; give folders of experiments.evaluate, for example runs=\'["runs/4","runs/7"]\'.'
        )
    folder = folder_of(_run)
    evaluations = [find_evaluation(str(run)) for run in runs]
    found = [read_evaluation(evaluation) for evaluation in evaluations]
    models = found[0] if len(found) == 1 else [several[0] for several in found]
    if len(models) < 2:
        raise ValueError(f"{models[0].label} stands alone, so there is nothing to compare it with. Give several runs.")
    if len({model.label for model in models}) < len(models):
        raise ValueError(f"runs={runs} names a run twice. Give each run once.")
    reference, *others = models
    parents = [lineage.parent_of(folder, path, path / SCORES) for path in evaluations]
    lineage.record(_run, folder, "compared", parents, reference.identity["episodes_sha256"])
    by_model = {other.label: paired(reference, other) for other in others}
    configs = {
        other.label: {key: list(values) for key, values in differences(reference.config, other.config).items()}
        for other in others
    }
    by_group = {
        other.label: {
            shots: differences_by_group(reference.scores[shots], other.scores[shots]) for shots in by_model[other.label]
        }
        for other in others
    }
    sections = [
        _difference_section(reference, by_model),
        _config_section(reference.label, configs, [other.label for other in others if other.fitted]),
    ]
    if 1 < len(reference.groups) <= SHOWN_GROUPS:
        sections.insert(1, _group_section(reference, by_group))
    print("\n" + "\n".join(section.plain() for section in sections))
    result = {
        "reference": reference.label,
        **reference.identity,
        "words": reference.words.record(),
        "rows": [
            {"model": name, "shots": shots, **difference_record(value)}
            for name, by_shots in by_model.items()
            for shots, value in by_shots.items()
        ],
        "groups": [
            {"model": name, "shots": shots, "group": reference.groups[group], **difference_record(value)}
            for name, by_shots in by_group.items()
            for shots, found_groups in by_shots.items()
            for group, value in found_groups.items()
        ],
        "config_differences": configs,
        "folder": str(folder),
    }
    write_atomically(folder / "comparison.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(folder / "comparison.md", "\n".join(section.markdown() for section in sections).encode())
    figure = difference_curve(by_model, reference.label, f"Paired differences to {reference.label}", reference.words)
    save_figure(figure, folder / "comparison.png")
    return result


def as_list(runs: str | int | Sequence[str | int]) -> list[str | int]:
    """Runs, of which there may be one, as a list. Raises TypeError for text that stands for several."""
    if isinstance(runs, str) and runs.strip().startswith(("(", "[")):
        raise TypeError(
            f"{runs!r} is text that looks like several runs: papermill hands a tuple over as text, and so does -r. "
            """Give a list, as -y 'evaluations: ["4", "7"]', or parameters={"evaluations": ["4", "7"]} in Python."""
        )
    return [runs] if isinstance(runs, str | int) else list(runs)


def find_evaluation(run: str) -> Path:
    """The folder of an evaluation by its path, its number under the runs folder, or "latest": the newest one.

    Raises FileNotFoundError where there is no such run, or it is no evaluation.
    """
    if run == "latest":
        newest = sorted(runs_root().glob("*/evaluation.json"), key=lambda path: path.stat().st_mtime)
        if not newest:
            raise FileNotFoundError(
                f"There is no evaluation in {runs_root()}. Make one: python -m experiments.evaluate with run=latest"
            )
        return newest[-1].parent
    folder = Path(run) if Path(run).is_dir() else runs_root() / run
    if not (folder / "evaluation.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no run of experiments.evaluate: it has no evaluation.json. Give the folder that evaluate "
            "printed, not that of a training run; a model is evaluated first: "
            f"python -m experiments.evaluate with run={run}"
        )
    return folder


def read_evaluation(folder: Path) -> list[Evaluated]:
    """The models of an evaluation, its subject first.

    Raises DamagedFileError where the report or the scores are damaged or do not belong together.
    """
    path = folder / "evaluation.json"
    try:
        report = json.loads(path.read_text())
        models = report["models"]
        stated = {key: report[key] for key in ("units", "pixels", "split", "episodes_sha256")}
        names = list(dict.fromkeys(row["group"] for row in report["groups"]))  # by id, as the rows are
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{path} is damaged or of another version ({error!r}). Evaluate the run again."
        ) from error
    scores, identity = load_scores(folder / SCORES)
    ids = {int(group) for found in scores.values() for part in found.values() for group in part.group_ids} - {-1}
    if stated != identity or len(ids) != len(names):
        raise DamagedFileError(f"{path} and {SCORES} beside it are of different evaluations. Evaluate the run again.")
    groups = dict(zip(sorted(ids), names, strict=True))
    return [
        Evaluated(
            f"{marked(name, scores[name])} ({folder.name})",
            scores[name],
            identity,
            model["config"],
            groups,
            model.get("run", "") is None,
            Words.of_record(report.get("words")),
        )
        for name, model in models.items()
    ]


def paired(reference: Evaluated, other: Evaluated) -> dict[int, Difference]:
    """The difference at every number of shots that both have. Raises IncomparableError, saying why there is none."""
    require_comparable(reference.identity, other.identity, (reference.label, other.label))
    both = sorted(reference.scores.keys() & other.scores.keys())
    if not both:
        raise IncomparableError(
            f"{reference.label} has shots {sorted(reference.scores)}, {other.label} {sorted(other.scores)}: none in "
            "common. Evaluate both with one number of shots at least that is the same."
        )
    found = {}
    for shots in both:
        try:
            found[shots] = paired_difference(reference.scores[shots], other.scores[shots])
        except IncomparableError as error:
            raise IncomparableError(f"{reference.label} and {other.label} at {shots} shots: {error}") from error
    return found


def _difference_section(reference: Evaluated, by_model: dict[str, dict[int, Difference]]) -> Section:
    rows = []
    for name, by_shots in by_model.items():
        for shots, found in by_shots.items():
            one = float(reference.scores[shots].nats.mean())
            rows.append(
                [
                    name,
                    str(shots),
                    f"{one:.2f}",
                    f"{one + found.mean:.2f}",
                    f"{found.mean:+.3f}",
                    interval(found.interval, 3),
                    interval(found.group_interval, 3),
                    _said(found),
                ]
            )
    headings = [
        "model",
        "shots",
        "reference",
        reference.words.nats,
        "difference",
        "95 %",
        "95 % over groups",
        "model is",
    ]
    some = next(iter(next(iter(by_model.values())).values()))
    notes = [
        f"Differences on the same {some.images} queries of {some.classes} classes in {some.groups} groups, below 0 "
        "where the model is better than the reference. Each interval is for itself: of 20 differences that are none, "
        "one is called one."
    ]
    if some.classes < FEW_GROUPS:
        notes.append(few_clusters(some.classes, "class", "classes"))
    if 1 < some.groups < FEW_GROUPS and some.groups < some.classes:
        notes.append(few_clusters(some.groups, "group", "groups"))
    if any(_differs_evenly(found) for by_shots in by_model.values() for found in by_shots.values()):
        notes.append("Where all classes differ by the same amount there is no interval, as nothing tells of others.")
    if any(found.quantity != EXACT for by_shots in by_model.values() for found in by_shots.values()):
        notes.append(bound_note(reference.words))
    return Section(f"Reference: {reference.label}; {reference.words.nats}, in pairs", headings, rows, notes)


def _group_section(reference: Evaluated, by_group: dict[str, dict[int, dict[int, Difference]]]) -> Section:
    """A row for each model and group: the difference at each number of shots, with half its interval."""
    shots = sorted({count for by_shots in by_group.values() for count in by_shots})
    rows = []
    for name, by_shots in by_group.items():
        for group, known_as in reference.groups.items():
            found = {count: by_shots[count][group] for count in by_shots if group in by_shots[count]}
            if found:
                classes = str(next(iter(found.values())).classes)
                rows.append([name, known_as, classes, *(_with_error(found.get(count)) for count in shots)])
    headings = ["model", "group", "classes", *(f"{count} shot{'s' * (count != 1)}" for count in shots)]
    return Section(
        f"By group, differences to {reference.label}, {reference.words.nats}, with half of the 95 %", headings, rows
    )


def _with_error(found: Difference | None) -> str:
    if found is None:
        return ""
    half = (found.interval[1] - found.interval[0]) / 2
    return f"{found.mean:+.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "")


def _said(found: Difference) -> str:
    return _verdict(found) if found.quantity == EXACT else f"{_verdict(found)} ({found.quantity})"


def _verdict(found: Difference) -> str:
    if found.identical:
        return "the same"
    if not math.isfinite(found.interval[0]):
        return "not sure: no interval"
    if found.includes_zero:
        return "not surely different"
    return "better" if found.mean < 0 else "worse"


def _differs_evenly(found: Difference) -> bool:
    return found.classes > 1 and not math.isfinite(found.interval[0])


def _config_section(reference: str, configs: dict[str, dict[str, list[Any]]], fitted: Collection[str]) -> Section:
    """A row for each setting; baselines that the evaluation fitted share none with a training."""
    trained = {name: changed for name, changed in configs.items() if name not in fitted}
    rows = [
        [name, key, _short(before), _short(after)]
        for name, changed in trained.items()
        for key, (before, after) in changed.items()
    ]
    notes = [f"{name} was trained with the same settings." for name, changed in trained.items() if not changed]
    if fitted:
        notes.append(f"{', '.join(fitted)}: fitted by the evaluation itself, with the named configuration baseline.")
    headings = ["model", "setting", "reference", "model's"]
    return Section(f"What the training differed in, from {reference}", headings, rows, notes)


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


if __name__ == "__main__":
    main(experiment)

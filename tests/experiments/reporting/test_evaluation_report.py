"""What an evaluation reports: groups, use of the support, cost, duplicates, the optimum; tables and plots."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import evaluate, train
from experiments.figures.shot_curves import difference_curve, save_figure, shot_curve
from experiments.ingredients.baselines import BASELINES
from experiments.reporting.evaluation_report import duplicate_note, evaluation_report
from experiments.reporting.tables import Section, bounds, comma_separated, likelihood_rows
from metadensity import Evaluation
from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.cost import Cost
from metadensity.evaluation.likelihood import summarise
from metadensity.evaluation.scores import Scores
from tasks import TASKS


@pytest.fixture(scope="module")
def run(script: Any) -> Any:
    """An attention net and an unconditional one, on 24 characters of 6 fonts."""
    one, other = (
        script(train.experiment, "hershey", m, "fast", task={"size": 12}) for m in ("attention", "unconditional")
    )
    settings = {"run": one.result["folder"], "against": [other.result["folder"]]}
    return script(evaluate.experiment, shots=[0, 1, 3], limit=24, baseline_steps=20, **settings)


def test_the_files_are_there_and_say_the_same(run: Any) -> None:
    folder = Path(run.result["folder"])
    report = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert report == run.result
    with (folder / "evaluation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], float(line["nats_per_image"])) for line in lines] == [
        (row["model"], row["nats_per_image"]) for row in report["rows"]
    ]
    for line in lines:
        cost = report["cost"][line["model"]]
        assert int(line["parameters"]) == cost["parameters"] > 0
        assert float(line["images_per_second"]) == cost["images_per_second"] > 0
        assert int(line["peak_memory"]) > 2**20
        assert (line["device"], int(line["threads"])) == ("cpu", torch.get_num_threads())
    text = (folder / "evaluation.md").read_text()
    for heading in ("By font, attention", "Use of the support at 3 shots", "Cost of scoring"):
        assert heading in text
    with Image.open(folder / "evaluation.png") as picture:
        assert picture.width > 400
    assert report["units"] == "nats/image"
    assert report["pixels"]["event_shape"] == [1, 12, 12]
    assert report["models"]["unconditional"]["config"]["model"]["name"] == "unconditional"


def test_groups_are_reported_and_few_are_called_few(run: Any) -> None:
    text = (Path(run.result["folder"]) / "evaluation.md").read_text()
    task = TASKS["hershey"](split="test", size=12)
    groups = [row for row in run.result["groups"] if row["model"] == "attention" and row["shots"] == 3]
    assert len(groups) > 1
    assert {row["group"] for row in groups} <= set(task.group_names)
    assert sum(row["images"] for row in groups) == 96
    assert f"{len(groups)} test fonts: the interval over fonts has {len(groups) - 1} degrees of freedom." in text
    row = next(row for row in run.result["rows"] if row["model"] == "attention" and row["shots"] == 3)
    assert row["groups"] == len(groups)
    mean = sum(row["images"] * row["nats_per_image"] for row in groups) / 96
    assert row["nats_per_image"] == pytest.approx(mean)
    assert row["group_interval_low"] < row["nats_per_image"] < row["group_interval_high"]


def test_a_model_that_ignores_the_support_is_reported_as_such(run: Any) -> None:
    use = run.result["support_use"]
    assert set(use) == {"attention", "unconditional", *BASELINES}
    for name in ("unconditional", "independent"):
        assert use[name]["uses_support"] is False
        for control in use[name]["controls"].values():
            assert (control["mean"], control["identical"]) == (0, True)
    assert use["support_mixture"]["uses_support"] is True
    text = (Path(run.result["folder"]) / "evaluation.md").read_text()
    assert "unconditional does not use the support: every likelihood is the same to the last bit" in text
    assert "support_mixture uses the support: one of another class costs +" in text


def test_the_size_of_batches_does_not_matter(run: Any, script: Any) -> None:
    settings = {**run.config, "tasks_per_batch": 5, "against": [], "baselines": False}
    again = script(evaluate.experiment, **{key: value for key, value in settings.items() if key != "progress"})
    assert again.result["episodes_sha256"] == run.result["episodes_sha256"]
    rows = [row for row in run.result["rows"] if row["model"] == "attention"]
    for one, other in zip(rows, again.result["rows"], strict=True):
        for key in ("nats_per_image", "nats_per_dim", "bits_per_dim"):
            assert one[key] == pytest.approx(other[key], rel=1e-6, abs=1e-6)
        assert one["interval_low"] == pytest.approx(other["interval_low"], rel=1e-6)
    both = (result["support_use"]["attention"]["controls"] for result in (run.result, again.result))
    for one, other in zip(*(found.values() for found in both), strict=True):
        assert one["nats_per_image"] == pytest.approx(other["nats_per_image"], rel=1e-6)


def test_images_without_supports_have_no_use_of_them(run: Any, script: Any) -> None:
    settings = {"run": run.config["run"], "baselines": False, "shots": [0], "limit": 4}
    assert script(evaluate.experiment, **settings).result["support_use"] == {}


def test_the_gap_to_the_optimum_is_reported_where_it_is_known(script: Any) -> None:
    trained = script(train.experiment, "templates", "conditional", "fast").result["folder"]
    settings = {"run": trained, "shots": [0, 2], "baseline_steps": 3, "limit": 40}
    result = script(evaluate.experiment, **settings).result
    assert result["episodes"]["number"] == 40
    for row in result["rows"]:
        assert row["gap"] == pytest.approx(row["nats_per_image"] - row["optimum"])
        assert row["gap_low"] < row["gap"] < row["gap_high"]
        assert row["gap_low"] > 0, "a net of four steps cannot come close"
    best = {row["shots"]: row["optimum"] for row in result["rows"]}
    assert best[2] < best[0]
    text = (Path(result["folder"]) / "evaluation.md").read_text()
    assert "| optimum | gap to optimum | gap, 95 % |" in text
    assert (
        script(evaluate.experiment, **settings, tasks_per_batch=7).result["episodes_sha256"]
        == result["episodes_sha256"]
    )
    with pytest.raises(ValueError, match=r"templates has no finite set of images; leave episodes=None"):
        script(evaluate.experiment, **settings, episodes="set.npz")


def made(shift: float = 0.0, classes: int = 3, groups: int = 1, identical: int = 0) -> Evaluation:
    clusters = np.repeat(np.arange(classes), 4)
    scores = {
        s: Scores(np.arange(4.0 * classes) - s + shift, clusters, clusters % groups, np.arange(4 * classes))
        for s in (0, 4)
    }
    rows = [summarise(s, part, 10, identical if s else 0) for s, part in scores.items()]
    return Evaluation(rows, scores, Cost(1, "cpu", 1, 1.0, 24, 2**20))


def test_likelihood_columns_come_in_their_order() -> None:
    headings, rows = likelihood_rows(made(), {"other": made(1)}, made(-2))
    assert headings[:6] == ["shots", "nats/dim", "bits/dim", "nats/image", "95 % interval", "other"]
    assert headings[6:] == ["optimum", "gap to optimum", "gap, 95 %"]
    assert rows[0][:4] == ["0", "0.5500", f"{0.55 / math.log(2):.4f}", "5.50"]
    assert rows[0][5:] == ["6.50", "3.50", "2.00 (57.1%)", "none"]  # the same for all
    assert comma_separated({"a": made()}, made(-2)).splitlines()[0].startswith("model,shots,nats_per_image,")


def test_five_alphabets_are_said_to_be_five() -> None:
    task = TASKS["hershey"](split="test", size=12)
    (first, *_) = evaluation_report("title", {"m": made(classes=30, groups=5)}, {}, None, task, "trust_ids")
    assert "5 test fonts: the interval over fonts has 4 degrees of freedom." in first.notes
    (first, *_) = evaluation_report("title", {"m": made(classes=2)}, {}, None, task, "trust_ids")
    assert "2 test classes: the interval over classes has 1 degree of freedom." in first.notes
    assert "1 test font: nothing can be said about other fonts." in first.notes
    (first, *_) = evaluation_report("title", {"m": made(classes=1)}, {}, None, task, "trust_ids")
    assert "1 test class: there is no interval over classes." in first.notes
    assert first.rows[0][4] == "none"


def test_images_that_look_the_same_are_counted() -> None:
    assert duplicate_note(made(), "trust_ids") == "No query is equal to an image of its support."
    for duplicates, said in {
        "trust_ids": "different images by their ids, and scored",
        "drop": "left out of the scores",
        "allow": "scored, as duplicates='allow' says",
    }.items():
        expected = f"Queries equal to an image of their support: 2 at 4 shots; {said}."
        assert duplicate_note(made(identical=2), duplicates) == expected


def test_sections_print_and_read() -> None:
    section = Section("Title", ["a", "b"], [["1", "22"]], ["A note."])
    assert section.plain() == "Title\n\n  a    b\n---  ---\n  1   22\n\nA note.\n"
    assert section.markdown() == "Title\n\n| a | b |\n| ---: | ---: |\n| 1 | 22 |\n\nA note.\n"
    assert bounds((-math.inf, math.inf)) == bounds(None) == (None, None)


def test_plots_hold_every_curve_and_its_intervals(tmp_path: Path) -> None:
    figure = shot_curve({"one": made(), "two": made(1, classes=1)}, "title", made(-2))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two", "optimum"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "4"]
    row = made().row(0)
    bars = axes.containers[0].lines[2][0].get_segments()[0]
    assert bars[:, 1].tolist() == pytest.approx(list(row.interval))
    differences = {s: paired_difference(made().scores[s], made(1).scores[s]) for s in (0, 4)}
    varied = {s: replace(found, interval=(-math.inf, math.inf)) for s, found in differences.items()}
    figure = difference_curve({"two": differences, "alone": varied}, "one", "title")
    path = save_figure(figure, tmp_path / "figure.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"

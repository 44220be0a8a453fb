"""Train shots x test shots: one model an entry, one set of episodes, differences to the diagonal."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, shots_grid, train
from experiments.recording.lineage import read
from experiments.recording.run_folder import RunFolder
from experiments.recording.score_files import load_scores
from experiments.reporting.tables import Section
from metadensity.evaluation.intervals import clustered_mean

SMALL: dict[str, Any] = {"task": {"size": 12}, "test_shots": [0, 1, 2], "limit": 10, "queries": 2}


@pytest.fixture(scope="module")
def grid(script: Any) -> Any:
    # A learning rate at which four steps make models that differ.
    return script(
        *(shots_grid.experiment, "hershey", "conditional", "fast"),
        **(SMALL | {"train_shots": [[0, 1, 2], [1], [2]], "training": {"learning_rate": 0.3, "warmup": 0}}),
        seed=3,
    )


def test_every_entry_is_a_recorded_run_of_its_own_shots(grid: Any, runs: Path) -> None:
    assert grid.status == "COMPLETED"
    trained = list(dict.fromkeys(row["run"] for row in grid.result["rows"]))
    assert [RunFolder(run).config()["training"]["shots"] for run in trained] == [[0, 1, 2], [1], [2]]
    for run in trained:
        assert Path(run).parent == runs
        assert (Path(run) / "metrics.jsonl").is_file()
        config = RunFolder(run).config()
        assert (config["training"]["steps"], config["training"]["learning_rate"], config["seed"]) == (4, 0.3, 3)
        assert json.loads((Path(run) / "run.json").read_text())["status"] == "COMPLETED"
    lineage = read(Path(grid.result["folder"]))
    assert lineage is not None
    assert [parent.run for parent in lineage.parents] == [Path(run).name for run in trained]


def test_its_numbers_are_those_of_evaluate_on_the_same_episodes(grid: Any, script: Any) -> None:
    by_cell = {(row["model"], row["shots"]): row for row in grid.result["rows"]}
    assert list(by_cell) == [(name, shots) for name in ("0,1,2", "1", "2") for shots in (0, 1, 2)]
    settings = {"shots": [0, 1, 2], "queries": 2, "limit": 10, "seed": 3, "baselines": False}
    for name in ("0,1,2", "1", "2"):
        alone = script(evaluate.experiment, run=by_cell[name, 0]["run"], **settings).result
        assert alone["episodes_sha256"] == grid.result["episodes_sha256"]
        for row in alone["rows"]:
            cell = by_cell[name, row["shots"]]
            assert {key: cell[key] for key in row if key != "model"} == {k: v for k, v in row.items() if k != "model"}


def test_differences_are_paired_and_to_the_specialist(grid: Any) -> None:
    scores = load_scores(Path(grid.result["folder"]) / "scores.npz")[0]
    for row in grid.result["rows"]:
        specialist = str(row["shots"])
        found = [row[f"to_diagonal_{key}"] for key in ("mean", "interval_low", "interval_high")]
        if specialist not in scores or specialist == row["model"]:
            assert found == [None, None, None]
        else:
            one, other = scores[specialist][row["shots"]], scores[row["model"]][row["shots"]]
            mean, (low, high) = clustered_mean(other.nats - one.nats, one.class_ids)
            assert found == [mean, low, high]
            assert mean != 0, "the models of this test do differ"


def test_its_files_say_the_same(grid: Any) -> None:
    folder = Path(grid.result["folder"])
    assert json.loads((folder / "shots_grid.json").read_text(), parse_constant=pytest.fail) == grid.result
    with (folder / "shots_grid.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["nats_per_image"]) for line in lines] == [row["nats_per_image"] for row in grid.result["rows"]]
    assert lines[0]["train_shots"] == "0 1 2"
    text = (folder / "shots_grid.md").read_text()
    assert "| trained with | 0 shots | 1 shot | 2 shots |" in text
    assert text.count("| 0,1,2 |") == 2
    assert "differ in more than" not in text
    with Image.open(folder / "shots_grid.png") as picture:
        assert picture.width > 400


def test_finished_runs_give_the_same_grid_without_training(grid: Any, script: Any, runs: Path) -> None:
    trained = list(dict.fromkeys(row["run"] for row in grid.result["rows"]))
    before = {path.name for path in runs.iterdir()}
    again = script(shots_grid.experiment, runs=trained, seed=3, **{k: v for k, v in SMALL.items() if k != "task"})
    assert again.result["rows"] == grid.result["rows"]
    assert {path.name for path in runs.iterdir()} - before == {Path(again.result["folder"]).name}


def test_runs_that_differ_in_more_are_labelled_and_said(grid: Any, script: Any, capsys: Any) -> None:
    one = grid.result["rows"][3]["run"]
    other = script(
        *(train.experiment, "hershey", "conditional", "fast"),
        **{"task": {"size": 12}, "training": {"shots": [1], "steps": 6}, "seed": 3},
    ).result["folder"]
    again = script(shots_grid.experiment, runs=[one, other], test_shots=[1], limit=4).result
    names = [f"1 (run {Path(run).name})" for run in (one, other)]
    assert [row["model"] for row in again["rows"]] == names
    assert again["other_settings"]["training.steps"] == [4, 6]
    assert again["rows"][0]["to_diagonal_mean"] is None
    assert again["rows"][1]["to_diagonal_mean"] is not None
    assert "The models differ in more than their shots (" in capsys.readouterr().out


def test_fast_works_as_it_stands(script: Any) -> None:
    before = list(train.experiment.observers)
    result = script(shots_grid.experiment, "hershey", "conditional", "fast").result
    assert train.experiment.observers == before, "a train of the same process is observed as it was"
    assert {row["model"] for row in result["rows"]} == {"0,2", "1"}
    assert {row["images"] for row in result["rows"]} == {16}


def test_mistakes_are_named_before_anything_is_trained(grid: Any, script: Any, runs: Path) -> None:
    run = grid.result["rows"][0]["run"]
    other = script(train.experiment, "hershey", "conditional", "fast", task={"size": 14}).result["folder"]
    trained = len(list(runs.glob("*/checkpoints")))
    names = (shots_grid.experiment, "hershey", "conditional", "fast")
    for settings, message in (
        ({"train_shots": [1, 2]}, r"train_shots holds 1; each entry is the list"),
        ({"train_shots": [[1], []]}, r"train_shots holds \[\]; each entry"),
        ({"train_shots": [[1], [-1]]}, r"shots=\(-1,\); name at least one number of supports"),
        ({"train_shots": []}, r"train_shots is empty and so is runs"),
        ({"test_shots": []}, r"shots is empty"),
        ({"test_shots": [0, 40]}, r"shots=40 and queries=2 need 42 different images"),
        ({"runs": [run, run]}, r"names a run twice"),
        ({"runs": [run, other]}, r"model different pixels \(size: 12 and 14\)"),
    ):
        with pytest.raises(ValueError, match=message):
            script(*names, **settings)
    with pytest.raises(FileNotFoundError, match=r"holds no trained model"):
        script(*names, runs=[grid.result["folder"]])
    assert len(list(runs.glob("*/checkpoints"))) == trained


def test_a_model_gets_the_worse_the_further_it_is_from_its_shots() -> None:
    # The differences' sign, on made scores: a model trained with 1 shot, worse by 2 nats at 4 than the one for 4.
    from metadensity import Evaluation
    from metadensity.evaluation.likelihood import summarise
    from metadensity.evaluation.scores import Scores

    def made(nats: dict[int, float]) -> Evaluation:
        ids = np.arange(6)
        noise = np.linspace(-1, 1, 6)
        scores = {shots: Scores(mean + noise, ids, ids, ids) for shots, mean in nats.items()}
        return Evaluation([summarise(shots, part, 4) for shots, part in scores.items()], scores)

    evaluations = {"1": made({1: 5.0, 4: 6.0}), "4": made({1: 8.0, 4: 4.0})}
    trained = {"1": (1,), "4": (4,)}
    found = shots_grid.differences_to_diagonal(evaluations, trained)
    assert {name: {s: round(d.mean, 6) for s, d in row.items()} for name, row in found.items()} == {
        "1": {4: 2.0},
        "4": {1: 3.0},
    }
    grid, differences = shots_grid.grid_sections("title", evaluations, found, {})
    assert isinstance(grid, Section)
    assert differences.rows[0][1] == ""
    assert differences.rows[0][2].startswith("+2.000 (")

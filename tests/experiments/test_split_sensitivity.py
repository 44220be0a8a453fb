"""Split sensitivity, whole: each split trained and scored on its own, and the spread over them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import split_sensitivity, train
from experiments.ingredients import build_task
from experiments.recording.run_folder import RunFolder
from metadensity.evaluation.comparison import IncomparableError


@pytest.fixture(scope="module")
def study(script: Any) -> Any:
    return script(
        *(split_sensitivity.experiment, "hershey", "support_mean", "fast"),
        **{"task": {"size": 12}, "kinds": ["class", "group", "committed"], "shots": [0, 1, 2]},
        training={"learning_rate": 0.3, "warmup": 0},
    )


def test_each_split_is_trained_and_scored_on_its_own(study: Any, runs: Path) -> None:
    assert study.status == "COMPLETED"
    splits = study.result["splits"]
    assert [(one["kind"], one["split_seed"]) for one in splits] == [
        *(("class", 0), ("class", 1), ("group", 0), ("group", 1), ("committed", 0))
    ]
    for one in splits:
        run = RunFolder(one["run"])
        assert run.path.parent == runs
        config = run.config()
        assert (config["task"].get("split_by") or "committed") == one["kind"]
        assert config["task"].get("split_seed", 0) == one["split_seed"]
        assert config["training"]["steps"] == 4
        trained, tested = (build_task(config["task"], split) for split in ("train", "test"))
        assert one["pixels"]["fingerprint"] == tested.fingerprint
        assert one["train_classes"] == len(trained.class_names)
        assert not set(trained.class_names) & set(tested.class_names)
        shared = set(trained.group_names) & set(tested.group_names)
        assert (shared == set(tested.group_names)) == (one["kind"] == "class")
        assert bool(shared) == (one["kind"] == "class")
        assert run.model().provenance["task"].get("split_by") == config["task"].get("split_by")
    assert len({one["episodes_sha256"] for one in splits}) == 5
    assert len({one["pixels"]["fingerprint"] for one in splits}) == 5


def test_the_spread_is_that_of_the_rows(study: Any) -> None:
    for record in study.result["spread"]:
        rows = [r for r in study.result["rows"] if (r["kind"], r["shots"]) == (record["kind"], record["shots"])]
        assert record["splits"] == len(rows) == (1 if record["kind"] == "committed" else 2)
        values = [row["nats_per_image"] for row in rows]
        if record["of"] == "gain":
            first = [r for r in study.result["rows"] if (r["kind"], r["shots"]) == (record["kind"], 0)]
            values = [one["nats_per_image"] - other for one, other in zip(first, values, strict=True)]
        assert record["mean"] == pytest.approx(np.mean(values), abs=1e-9)
        if len(rows) > 1:
            assert record["between_splits_sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
            assert record["interval_low"] < record["mean"] < record["interval_high"]
            assert record["between_splits_sd"] > 0
        else:
            assert record["between_splits_sd"] is record["interval_low"] is None
    assert {(r["of"], r["shots"]) for r in study.result["spread"]} == {
        *(("nats/image", 0), ("nats/image", 1), ("nats/image", 2), ("gain", 1), ("gain", 2))
    }


def test_its_files_say_the_same(study: Any) -> None:
    folder = Path(study.result["folder"])
    assert json.loads((folder / "split_sensitivity.json").read_text(), parse_constant=pytest.fail) == study.result
    with (folder / "split_sensitivity.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["nats_per_image"]) for line in lines] == [row["nats_per_image"] for row in study.result["rows"]]
    text = (folder / "split_sensitivity.md").read_text()
    assert "| test groups in training |" in text
    for one in study.result["splits"]:  # all of them where classes are held out, none where groups are
        assert one["test_groups_in_training"] == (one["test_groups"] if one["kind"] == "class" else 0)
        assert one["test_groups"] > 1
    assert "SD between splits | SE within" in text
    assert "Difference to within groups" in text
    with Image.open(folder / "split_sensitivity.png") as picture:
        assert picture.width > 400


def test_finished_runs_give_the_same_without_training(study: Any, script: Any, runs: Path) -> None:
    before = len(list(runs.glob("*/checkpoints")))
    trained = [one["run"] for one in study.result["splits"]]
    again = script(split_sensitivity.experiment, runs=trained, shots=[0, 1, 2], limit=8, queries=2).result
    assert {k: v for k, v in again.items() if k != "folder"} == {k: v for k, v in study.result.items() if k != "folder"}
    assert len(list(runs.glob("*/checkpoints"))) == before


def test_mistakes_are_named_before_anything_is_trained(study: Any, script: Any, runs: Path) -> None:
    other = script(train.experiment, "hershey", "support_mean", "fast", task={"size": 12}, seed=1).result["folder"]
    before = len(list(runs.glob("*/checkpoints")))
    with pytest.raises(IncomparableError, match=r"differ in more than their split \(.*seed: 0, 1"):
        script(split_sensitivity.experiment, runs=[study.result["splits"][0]["run"], other])
    names = (split_sensitivity.experiment, "hershey", "conditional", "fast")
    for settings, message in (
        ({"kinds": ["class", "alphabet"]}, r"kinds=\['class', 'alphabet'\]; choose of class, group, committed"),
        ({"kinds": []}, r"kinds=\[\]; give a list of at least one"),
        ({"split_seeds": [1, 1]}, r"split_seeds=\[1, 1\]; give a list of at least one, each once"),
        ({"shots": [0, 40]}, r"shots=40 and queries=2 need 42 different images"),
    ):
        with pytest.raises(ValueError, match=message):
            script(*names, **settings)
    with pytest.raises(ValueError, match=r"digits has no random splits"):
        script(split_sensitivity.experiment, "digits", "conditional", "fast")
    assert len(list(runs.glob("*/checkpoints"))) == before

"""Split sensitivity: the statistics against known answers and in simulation, and the whole command."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import split_sensitivity, train
from experiments.ingredients import build_task
from experiments.recording.run_folder import RunFolder
from metadensity.evaluation.comparison import IncomparableError
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.spread import difference, spread


def test_the_spread_of_three_splits_by_hand() -> None:
    # t(0.975; 2) = 4.302653, t(0.975; 4) = 2.776445
    found = spread([1.0, 2.0, 6.0], [(0.0, 2.0), (1.0, 3.0), (4.0, 8.0)], [5, 5, 5])
    assert (found.splits, found.mean) == (3, 3.0)
    assert found.between == pytest.approx(math.sqrt(7))
    assert found.interval == pytest.approx((3 - 4.302653 * math.sqrt(7 / 3), 3 + 4.302653 * math.sqrt(7 / 3)), rel=1e-6)
    assert found.within == pytest.approx(math.sqrt((1 + 1 + 4) / 3) / 2.776445, rel=1e-6)
    assert found.half_width == pytest.approx(4 / 3)
    assert found.ratio == pytest.approx(math.sqrt(7) / (math.sqrt(2) / 2.776445), rel=1e-6)


def test_one_split_has_no_spread_and_one_class_no_interval() -> None:
    one = spread([1.0], [(0.0, 2.0)], [5])
    assert (one.between, one.interval, one.ratio) == (None, None, None)
    assert one.within is not None
    unknown = spread([1.0, 2.0], [(0.0, 2.0), (-math.inf, math.inf)], [5, 1])
    assert (unknown.within, unknown.half_width, unknown.ratio) == (None, None, None)
    assert unknown.between == pytest.approx(math.sqrt(0.5))
    assert difference(one, unknown) == (0.5, None)
    with pytest.raises(ValueError, match=r"0 values, 0 intervals"):
        spread([], [], [])
    with pytest.raises(ValueError, match=r"2 values, 1 intervals"):
        spread([1.0, 2.0], [(0.0, 1.0)], [2, 2])


def test_welch_by_scipy() -> None:
    from scipy.stats import ttest_ind

    one, other = [1.0, 2.0, 6.0, 3.0], [2.0, 2.5, 4.0]
    nothing = [(0.0, 1.0)] * 4
    mean, interval = difference(spread(one, nothing, [3] * 4), spread(other, nothing[:3], [3] * 3))
    expected = ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(other) - np.mean(one))
    assert interval == pytest.approx((expected.low, expected.high))
    same = spread([1.0, 1.0], nothing[:2], [3, 3])
    assert difference(same, same) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("group_effect", [0.0, 2.0])
def test_the_intervals_cover_and_the_ratio_tells_whether_splits_matter(group_effect: float) -> None:
    """1,000 studies of 4 splits, each of 30 classes with sd 3; the splits' own effect has sd ``group_effect``.

    The interval over splits covers at 95 % in both cases (binomial, five standard errors: false alarm below 1e-6); that
    of one split covers the mean over all splits only where splits have no effect of their own.
    """
    random = np.random.default_rng(0)
    studies, splits, classes = 1000, 4, 30
    covered = alone = 0
    ratios = []
    for _ in range(studies):
        effects = group_effect * random.standard_normal(splits)
        data = effects[:, None] + 3 * random.standard_normal((splits, classes))
        scored = [clustered_mean(row, np.arange(classes)) for row in data]
        found = spread([mean for mean, _ in scored], [ends for _, ends in scored], [classes] * splits)
        assert found.interval is not None
        assert found.ratio is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        alone += scored[0][1][0] <= 0 <= scored[0][1][1]
        ratios.append(found.ratio**2)
    slack = 5 * math.sqrt(0.95 * 0.05 / studies)
    assert abs(covered / studies - 0.95) < slack
    if group_effect:
        assert alone / studies < 0.5, "one split's interval says nothing of others"
        assert np.mean(ratios) == pytest.approx(1 + group_effect**2 / (9 / classes), rel=0.1)
    else:
        assert abs(alone / studies - 0.95) < slack
        assert np.mean(ratios) == pytest.approx(1, rel=0.1)


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

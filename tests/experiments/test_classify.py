"""``experiments.classify``, whole: from a run to tables, on drawn episodes and on files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import classify, train
from experiments.ingredients import build_task
from metadensity.evaluation.nway import NWayEpisodes
from tasks.episodes.nway import draw_nway


@pytest.fixture(scope="module")
def trained(script: Any) -> Path:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12})
    return Path(run.result["folder"])


@pytest.fixture(scope="module")
def scored(trained: Path, script: Any) -> Any:
    return script(classify.experiment, "fast", run=str(trained), shots=2)


def test_it_completes_and_its_configuration_took_effect(scored: Any, trained: Path) -> None:
    assert scored.status == "COMPLETED"
    result = scored.result
    assert (result["ways"], result["shots"], result["episodes"], result["queries"]) == (3, 2, 4, 4 * 3 * 5)
    assert result["run"] == str(trained)
    assert result["chance"] == pytest.approx(1 / 3)
    assert len(result["per_episode"]) == len(result["nearest_neighbour"]["per_episode"]) == 4
    assert np.mean(result["per_episode"]) == pytest.approx(result["accuracy"])
    low, high = result["accuracy_interval"]
    assert 0 <= low <= result["accuracy"] <= high <= 1
    assert sum(b["queries"] for b in result["bins"]) == result["queries"]
    # The simple baseline knows Hershey glyphs well, four steps of training do not.
    assert result["nearest_neighbour"]["accuracy"] > 0.6


def test_what_it_writes(scored: Any) -> None:
    folder = Path(scored.result["folder"])
    kept = json.loads((folder / "classification.json").read_text(), parse_constant=pytest.fail)
    assert kept == json.loads(json.dumps(scored.result))
    text = (folder / "classification.md").read_text()
    for line in ("| classifier |", "| attention |", "| nearest neighbour |", "| chance | 33.3 |", "| top posterior |"):
        assert line in text
    assert f"{math.log(3):.3f}" in text
    assert "in pairs" in text
    assert "Intervals are over" in text


def test_the_seed_and_nothing_else_decides_the_episodes(trained: Path, scored: Any, script: Any) -> None:
    again = script(classify.experiment, "fast", run=str(trained), shots=2, images_per_batch=3)
    assert again.result["episodes_sha256"] == scored.result["episodes_sha256"]
    assert again.result["accuracy"] == scored.result["accuracy"]
    assert again.result["nll"] == pytest.approx(scored.result["nll"], abs=1e-4)
    other = script(classify.experiment, "fast", run=str(trained), shots=2, seed=1)
    assert other.result["episodes_sha256"] != scored.result["episodes_sha256"]


def test_episodes_from_a_file_give_the_same_numbers(trained: Path, scored: Any, script: Any, tmp_path: Path) -> None:
    path = tmp_path / "episodes.npz"
    script(classify.experiment, "fast", run=str(trained), shots=2, keep=str(path))
    from_file = script(classify.experiment, run=str(trained), file=str(path)).result
    for key in ("episodes_sha256", "ways", "shots", "episodes", "accuracy", "per_episode"):
        assert from_file[key] == scored.result[key]
    assert from_file["source"] == {"file": str(path)}


def test_within_one_group(trained: Path, script: Any) -> None:
    found = script(classify.experiment, "fast", run=str(trained), within_group=True).result
    assert found["source"] == {"split": "test", "within_group": True, "seed": 0}


def test_zero_shots_are_chance(trained: Path, script: Any) -> None:
    found = script(classify.experiment, "fast", run=str(trained), shots=0, episodes=40, ways=2).result
    assert found["nearest_neighbour"] is None
    assert found["nll"] == pytest.approx(math.log(2), abs=1e-3)


def test_a_query_that_is_its_own_support_is_counted(trained: Path, script: Any, tmp_path: Path) -> None:
    task = build_task(json.loads((trained / "config.json").read_text())["task"], "test")
    one = draw_nway(task, 0, 3, 1, 2)  # type: ignore[arg-type]
    leaky = NWayEpisodes(one.support, one.support[:, :, 0], torch.arange(3)[None])
    leaky.save(tmp_path / "leaky.npz")
    found = script(classify.experiment, run=str(trained), file=str(tmp_path / "leaky.npz")).result
    assert found["nearest_neighbour"]["identical_queries"] == 3
    assert found["nearest_neighbour"]["accuracy"] == 1
    assert found["accuracy_interval"] == [0, 1]  # one episode has no interval
    assert "they test nothing" in (Path(found["folder"]) / "classification.md").read_text()


def test_bad_input_is_named(trained: Path, script: Any, tmp_path: Path) -> None:
    run = str(trained)
    with pytest.raises(ValueError, match=r"ways=1000, but the test split of hershey has \d+ classes. Ask for at most"):
        script(classify.experiment, "fast", run=run, ways=1000)
    with pytest.raises(ValueError, match=r"shots=30 and queries=1 need 31 different images, but class"):
        script(classify.experiment, "fast", run=run, shots=30)
    with pytest.raises(ValueError, match=r"episodes=0; give at least 1"):
        script(classify.experiment, "fast", run=run, episodes=0)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing.npz"):
        script(classify.experiment, run=run, file=str(tmp_path / "nothing.npz"))
    zeros = torch.zeros(1, 2, 1, 1, 28, 28, dtype=torch.uint8)
    NWayEpisodes(zeros, zeros[:, 0], torch.zeros(1, 1, dtype=torch.int64)).save(tmp_path / "big.npz")
    with pytest.raises(ValueError, match=r"episodes of big.npz: images of shape \(1, 28, 28\).*is of \(1, 12, 12\)"):
        script(classify.experiment, run=run, file=str(tmp_path / "big.npz"))
    grey = torch.full((1, 2, 1, 1, 12, 12), 255, dtype=torch.uint8)
    NWayEpisodes(grey, grey[:, 0], torch.zeros(1, 1, dtype=torch.int64)).save(tmp_path / "grey.npz")
    with pytest.raises(ValueError, match=r"grey.npz: pixels up to 255, but the model has levels 0 to 1"):
        script(classify.experiment, run=run, file=str(tmp_path / "grey.npz"))


def test_tasks_without_stored_images_are_refused(script: Any) -> None:
    run = script(train.experiment, "templates", "independent", "fast")
    with pytest.raises(TypeError, match=r"templates draws its images anew.*file= with episodes"):
        script(classify.experiment, "fast", run=run.result["folder"])


def test_many_levels(script: Any) -> None:
    run = script(train.experiment, "digits", "support_mean", "fast")
    found = script(classify.experiment, "fast", run=run.result["folder"], ways=2).result
    assert found["nearest_neighbour"]["accuracy"] > 0.6
    with pytest.raises(ValueError, match=r"ways=3, but the test split of digits has 2 classes"):
        script(classify.experiment, "fast", run=run.result["folder"])

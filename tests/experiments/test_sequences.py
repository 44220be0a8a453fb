"""Experiments on tasks of sequences: they run unchanged, the optimum beside the numbers where it is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from experiments import classify, evaluate, memorisation, sample, train
from tasks import TASKS, ImageTasks
from tasks.data.notices import SAID


def test_chains_from_training_to_the_optimum(script: Any) -> None:
    run = script(train.experiment, "chains", "conditional", "fast", task={"length": 12}).result["folder"]
    result = script(evaluate.experiment, "fast", run=run, baselines=False, shots=[0, 2]).result
    assert [row["shots"] for row in result["rows"]] == [0, 2]
    for row in result["rows"]:
        assert 0 < row["optimum"] < row["nats_per_image"]
        assert row["classes"] == row["images"] // 4, "each chain counts for itself"
    copies = script(memorisation.experiment, "fast", run=run).result
    drawn = script(sample.experiment, "fast", run=run).result
    assert (drawn["picture"], drawn["samples"]) == (None, 4), "sequences are no picture"
    assert Path(drawn["tensors"]).is_file()
    assert copies["class_names"] is None
    assert copies["tests"]["support"]["classes"] == 4


def test_transduction_has_source_and_target_by_themselves(script: Any) -> None:
    """They add up to the whole, of the model, of a baseline and of the optimum; the target's is that of the noise."""
    task = {"rule": "reverse", "longest": 3, "noise": 0.25}
    run = script(train.experiment, "translate", "fast", task=task, training={"shots": [0, 1]}).result["folder"]
    result = script(evaluate.experiment, "fast", run=run, shots=[0, 1], generated_episodes=40, limit=40).result
    parts = {(part["model"], part["shots"], part["part"]): part for part in result["parts"]}
    assert len(parts) == 2 * len(result["rows"])
    for row in result["rows"]:
        source, target = (parts[row["model"], row["shots"], part] for part in ("source", "target"))
        for number in ("nats_per_image", "optimum", "gap"):
            assert source[number] + target[number] == pytest.approx(row[number], rel=1e-5)
        assert target["gap_low"] < target["gap"] < target["gap_high"]
        entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25 / 7)
        assert target["optimum"] / entropy == pytest.approx(2, abs=0.5), "nats a symbol, of 2 on average"
    report = (Path(result["folder"]) / "evaluation.md").read_text()
    assert "Source, and target given its source, nats/string" in report
    assert " classes; other models in nats/string" in report, "groups that are not known are not counted"


def test_speech_from_training_to_classification(script: Any, data_root: Path) -> None:
    options = {"length": 100, "data_root": str(data_root)}
    run = script(train.experiment, "speech", "independent", "fast", task=options).result["folder"]
    result = script(evaluate.experiment, "fast", run=run, shots=[0, 2], limit=8).result
    bits = {row["model"]: row["bits_per_dim"] for row in result["rows"] if row["shots"] == 2}
    assert bits["linear_prediction"] < bits["histogram"] - 1
    assert bits["histogram"] < min(bits["support_mean"], bits["support_mixture"]) - 0.1
    assert result["pixels"]["recipe"]["encoding"] == "mu-law-256"
    assert [row["recordings"] for row in result["offsets"]["rows"]] == [50] * 10
    report = (Path(result["folder"]) / "evaluation.md").read_text()
    assert "Offset of the recordings, by class" in report
    assert script(classify.experiment, run=run, episodes=2).status == "COMPLETED"


def test_names_cost_what_comes_before_their_end(script: Any) -> None:
    """Nats/dim are nats a character: over 4 to 12 places of a name, not over the 16 that there are."""
    run = script(train.experiment, "names", "independent", "fast").result["folder"]
    result = script(evaluate.experiment, "fast", run=run, shots=[0, 1], limit=8).result
    for row in result["rows"]:
        assert 4 < row["nats_per_image"] / row["nats_per_dim"] < 12
    assert result["models"]["ngram"]["config"]["model"] == {"name": "ngram", "end": True}
    nats = {row["model"]: row["nats_per_dim"] for row in result["rows"] if row["shots"] == 1}
    assert nats["ngram"] < nats["support_mean"] - 0.3, "counts after three letters know more than letters at places"
    assert script(classify.experiment, run=run, episodes=2).status == "COMPLETED"


def test_whole_recordings_are_classified(script: Any, data_root: Path) -> None:
    options = {"length": 400, "lengths": True, "by": "speaker", "data_root": str(data_root)}
    run = script(train.experiment, "speech", "linear_prediction", "fast", task=options, training={"shots": [0, 1]})
    kept = Path(run.result["folder"]) / "kept.npz"
    settings: dict[str, Any] = {"run": run.result["folder"], "episodes": 3, "queries": 2, "split": "train"}
    found = script(classify.experiment, keep=str(kept), **settings).result
    assert found["impossible"] == 0
    assert 0 < found["nll"] < 20
    again = script(classify.experiment, file=str(kept), run=run.result["folder"]).result
    assert (again["episodes_sha256"], again["nll"]) == (found["episodes_sha256"], found["nll"])


def test_drawings_are_strings_too(script: Any, data_root: Path) -> None:
    """ByteNet is told the end; the floor takes it from the task."""
    options = {"corpus": "omniglot", "length": 32, "data_root": str(data_root)}
    run = script(train.experiment, "pens", "bytenet", "fast", task=options, model={"end": 242}).result["folder"]
    result = script(evaluate.experiment, "fast", run=run, shots=[0, 1], limit=8).result
    assert result["models"]["ngram"]["config"]["model"] == {"name": "ngram", "end": True}
    for row in result["rows"]:
        assert 6 < row["nats_per_image"] / row["nats_per_dim"] < 28, "moves and the end, not places"
    assert script(train.experiment, "pens", "wavenet", "fast", task=options).status == "COMPLETED"


def test_chains_are_not_classified(script: Any) -> None:
    run = script(train.experiment, "chains", "independent", "fast", task={"length": 4}).result["folder"]
    with pytest.raises(TypeError, match="chains draws its sequences anew"):
        script(classify.experiment, run=run)


def test_a_model_that_is_not_told_of_the_end_is_named() -> None:
    names, chains = TASKS["names"](split="test"), TASKS["chains"]()
    SAID.clear()
    for model in ({"name": "bytenet", "end": None}, {"name": "ngram", "end": False}):
        train._say_what_ends(names, model)
    assert isinstance(names, ImageTasks)
    end = names.end
    assert {text.rsplit(" ", 1)[1] for text in SAID} == {f"model.end={end}.", "model.end=True."}
    for task, told in ((names, {"name": "bytenet", "end": end}), (names, {"name": "wavenet"}), (chains, model)):
        train._say_what_ends(task, told)
    assert len(SAID) == 2

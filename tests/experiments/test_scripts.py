"""The scripts, whole: they end well, return what they say, and their configuration took effect."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metadensity
from experiments import demo, evaluate, sample, train
from experiments.ingredients import NAMED_CONFIGS
from experiments.ingredients.baselines import BASELINES
from experiments.recording.command_line import make_experiment
from experiments.recording.event_files import read_events
from experiments.recording.headlines import LONGEST, last_line
from experiments.recording.run_folder import RunFolder
from metadensity.evaluation.cost import parameter_count
from metadensity.files import DamagedFileError, read_header, read_tensors
from metadensity.models import MODELS


@pytest.fixture(scope="module")
def trained(script: Any) -> Any:
    return script(train.experiment, "hershey", "attention", "fast", task={"size": 12}, model={"planes": 6}, seed=3)


def test_training_completes_and_its_configuration_took_effect(trained: Any) -> None:
    assert trained.status == "COMPLETED"
    assert trained.result.keys() == {
        "folder",
        "steps",
        "parameters",
        "validation/cautious",
        "seconds",
        "picture",
        "sounds",
        "film",
        "text",
        "words",
        "remarks",
    }
    folder = RunFolder(trained.result["folder"])
    model = folder.model()
    assert model.event_shape == (1, 12, 12)
    assert model.config["planes"] == 6
    assert model.config["layers"] == 2
    assert trained.result["steps"] == 4
    assert trained.result["parameters"] == parameter_count(model)
    assert model.provenance["seed"] == 3
    assert model.provenance["task"]["size"] == 12
    assert folder.config()["training"]["steps"] == 4


def test_the_run_folder_holds_metrics_checkpoints_curves_and_pictures(trained: Any) -> None:
    folder = RunFolder(trained.result["folder"])
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [r["step"] for r in records if "train/nats_per_dim" in r] == [1, 2, 3, 4]
    assert [r["step"] for r in records if "validation/cautious" in r] == [2, 4]
    assert {"validation/nats_per_dim_0_shots", "validation/nats_per_dim_1_shots"} <= set(records[-1])
    assert [path.name for path in folder.states()] == ["state-00000002.safetensors", "state-00000004.safetensors"]
    assert trained.result["validation/cautious"] == min(r.get("validation/cautious", math.inf) for r in records)
    curves = read_events(folder.path / "tensorboard")
    assert "train/nats_per_dim" in curves.Tags()["scalars"]
    assert sorted(curves.Tags()["images"]) == ["attention of the query over its supports", "support beside samples"]
    with Image.open(trained.result["picture"]) as picture:
        assert picture.width > 12 * 8


def test_the_best_checkpoint_is_what_validated_best(trained: Any) -> None:
    folder = RunFolder(trained.result["folder"])
    scores = {r["step"]: r["validation/cautious"] for r in folder.metrics() if "validation/cautious" in r}
    assert read_header(folder.best)["provenance"]["step"] == min(scores, key=lambda step: scores[step])


def test_evaluate_scores_all_models_on_the_same_episodes(trained: Any, script: Any) -> None:
    other = script(train.experiment, "hershey", "unconditional", "fast", task={"size": 12})
    settings = {"run": trained.result["folder"], "against": [other.result["folder"]]}
    run = script(evaluate.experiment, "fast", **settings)
    assert run.status == "COMPLETED"
    names = [row["model"] for row in run.result["rows"]]
    assert names == [n for n in ("attention", "unconditional", *BASELINES) for _ in range(5)]
    assert {row["shots"] for row in run.result["rows"]} == {0, 1, 2, 4, 8}
    assert {row["images"] for row in run.result["rows"]} == {16}
    folder = Path(run.result["folder"])
    assert json.loads((folder / "evaluation.json").read_text())["episodes_sha256"] == run.result["episodes_sha256"]
    assert (folder / "evaluation.csv").read_text().startswith("model,shots,nats_per_image")
    assert (
        "| shots | nats/dim | bits/dim | nats/image | 95 % interval | unconditional |"
        in (folder / "evaluation.md").read_text()
    )
    again = script(evaluate.experiment, "fast", **settings)
    assert again.result["rows"] == run.result["rows"]


def test_evaluate_refuses_to_compare_different_pixels(trained: Any, script: Any) -> None:
    other = script(train.experiment, "hershey", "unconditional", "fast", task={"size": 14})
    with pytest.raises(ValueError, match=r"different pixels \(size: 12 and 14\).*cannot be compared"):
        script(evaluate.experiment, "fast", run=trained.result["folder"], against=[other.result["folder"]])


def test_samples_are_a_function_of_the_seed(trained: Any, script: Any) -> None:
    runs = [script(sample.experiment, "fast", run=trained.result["folder"], seed=seed) for seed in (1, 1, 2)]
    drawn = [read_tensors(run.result["tensors"])[0]["samples"] for run in runs]
    assert drawn[0].shape == (2, 2, 1, 12, 12)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with Image.open(runs[0].result["picture"]) as picture:
        assert picture.mode == "RGB"
    assert runs[0].result["weights_sha256"] == RunFolder(trained.result["folder"]).model().provenance["weights_sha256"]


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains_on_digits(name: str, script: Any) -> None:
    run = script(train.experiment, "digits", name, "fast")
    assert run.status == "COMPLETED"
    model = metadensity.load(RunFolder(run.result["folder"]).best)
    assert type(model) is MODELS[name]
    assert (model.event_shape, model.levels) == ((1, 8, 8), 17)


def test_omniglot_trains(data_root: Path, script: Any) -> None:
    run = script(train.experiment, "omniglot", "attention", "fast", task={"data_root": str(data_root)})
    assert run.status == "COMPLETED"
    assert RunFolder(run.result["folder"]).model().event_shape == (1, 26, 26)


def test_half_precision_and_channels_last_train(script: Any) -> None:
    settings = {"precision": "bfloat16", "channels_last": True}
    run = script(train.experiment, "hershey", "conditional", "fast", task={"size": 12}, training=settings)
    assert run.status == "COMPLETED"


@pytest.mark.parametrize("name", list(NAMED_CONFIGS))
def test_every_named_configuration_can_be_built(name: str) -> None:
    run = train.experiment._create_run(named_configs=[name])
    for ingredient, settings in NAMED_CONFIGS[name].items():
        for key, value in settings.items():
            assert run.config[ingredient][key] == value


def test_the_demo_runs_end_to_end(script: Any, runs: Path) -> None:
    results = demo.demo(("fast",), shots=[0, 2], limit=4, baseline_steps=3, queries=2)
    assert results.keys() == {"unconditional", "attention", "evaluate", "sample"}
    assert Path(results["sample"]["picture"]).is_file()
    assert (Path(results["evaluate"]["folder"]) / "evaluation.md").is_file()
    assert all(runs in Path(result["folder"]).parents for result in results.values())
    assert RunFolder(Path(results["attention"]["folder"])).config()["initial"] == results["unconditional"]["folder"]


def test_a_long_result_is_recorded_whole_and_printed_in_part() -> None:
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    experiment = make_experiment("talkative")
    experiment.logger = logging.getLogger("talkative")
    experiment.logger.setLevel(logging.INFO)
    experiment.logger.addHandler(Keep())
    experiment.main(lambda: {"numbers": list(range(1000))})
    run = experiment.run()
    assert not [message for message in seen if message.startswith("Result: ")]
    line = last_line(experiment.path, run.result)
    assert line.endswith("... (whole in the record of the run)")
    assert len(line) < LONGEST + 100
    assert len(run.result["numbers"]) == 1000


def test_bad_input_is_named(script: Any, trained: Any, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.name='pixelrnn'; choose one of independent, "):
        script(train.experiment, "hershey", "fast", model={"name": "pixelrnn"})
    with pytest.raises(KeyError, match=r"no task 'mnist'; give one of chains, digits, emoji, films, folder, "):
        script(train.experiment, "fast", task={"name": "mnist"})
    with pytest.raises(ValueError, match=r"optimizer='sgd'; choose one of 'adamw', 'rmsprop', 'muon'"):
        script(train.experiment, "hershey", "fast", training={"optimizer": "sgd"})
    with pytest.raises(ValueError, match=r"shots"):
        script(train.experiment, "hershey", "fast", training={"shots": [30]})
    with pytest.raises(FileNotFoundError, match=r"no run at .*nowhere"):
        script(evaluate.experiment, "fast", run="nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DamagedFileError, match=r"config.json is missing or damaged"):
        RunFolder(empty).config()
    with pytest.raises(FileNotFoundError, match=r"no file .*best.safetensors"):
        RunFolder(empty).model()


def test_latest_without_any_run_says_how_to_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"python -m experiments.train with hershey"):
        RunFolder.find("latest")

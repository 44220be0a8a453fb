"""Settings of the command line are the options of the chosen model and task, at their own defaults."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import train
from experiments.ingredients import NAMED_CONFIGS, build_model, build_task, read_config
from experiments.recording.comparability import require_same_pixels
from experiments.recording.registered import UnknownOptionError
from experiments.recording.resume import ChangedConfigError, require_same_config
from experiments.reproductions.trained import same_config
from metadensity.files import read_header
from metadensity.models import MODELS, AlignedPixelCNN
from tasks import TASKS

EVENT = (1, 4, 4)


def settings(*named: str, **updates: Any) -> dict[str, Any]:
    return train.experiment.configuration(named, updates)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_its_name_alone_is_the_model_by_itself(name: str) -> None:
    config = settings(model={"name": name})["model"]
    assert config.keys() == {"name", *inspect.signature(MODELS[name]).parameters} - {"event_shape", "levels"}
    small = {key: size for key, size in {"planes": 3, "upscaler_layers": 2}.items() if key in config}
    assert build_model({**config, **small}, EVENT, 2, 0).config == MODELS[name](EVENT, 2, **small).config


@pytest.mark.parametrize("name", TASKS)
def test_a_task_by_its_name_alone_has_its_own_defaults(name: str) -> None:
    config = settings(task={"name": name})["task"]
    own = {key: each.default for key, each in inspect.signature(TASKS[name]).parameters.items() if key != "split"}
    assert config == {"name": name, **own}


def test_what_they_are() -> None:
    """The numbers that one default for all had overruled."""
    assert settings(model={"name": "aligned"})["model"]["attention"] == "dot"
    assert settings(model={"name": "attention"})["model"]["attention"] == "additive"
    sizes = {name: settings(task={"name": name})["task"]["size"] for name in ("omniglot", "mirror", "templates")}
    assert sizes == {"omniglot": 26, "mirror": 48, "templates": 8}


def test_what_is_typed_counts_and_named_configurations_after_it() -> None:
    config = settings("fast", "aligned", "hershey", model={"planes": 7}, task={"drawings": 5})
    assert config["model"].items() >= {"layers": 2, "planes": 7, "penultimate": 4, "attention": "dot"}.items()
    assert config["task"].items() >= {"size": 20, "drawings": 5}.items()


@pytest.mark.parametrize("order", [("fast", "dot", "logistic", "independent"), ("independent", "logistic", "fast")])
def test_named_configurations_leave_out_what_there_is_not(order: tuple[str, ...]) -> None:
    assert settings(*order)["model"] == {"name": "independent"}
    assert settings(*order)["training"]["steps"] == 4
    assert NAMED_CONFIGS["fast"]["model"], "the named configuration itself has become another"
    assert settings("fast")["model"]["layers"] == 2
    assert settings("demo", task={"name": "digits"})["task"] == {"name": "digits", "data_root": None, "seed": 0}


def test_a_configuration_in_a_file_counts_as_typed(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"model": {"name": "conditional", "planes": 5}}))
    config = settings("fast", "dot", str(path))["model"]
    assert config.items() >= {"name": "conditional", "layers": 2, "planes": 5}.items()
    assert "attention" not in config
    path.write_text(json.dumps({"model": {"name": "conditional", "attention": "dot"}}))
    with pytest.raises(UnknownOptionError, match=r"no model.attention"):
        settings(str(path))


@pytest.mark.parametrize(
    ("updates", "says"),
    [
        ({"model": {"layrs": 3}}, r"no model.layrs where model.name=attention; it takes layers, planes,"),
        (
            {"model": {"name": "independent", "layers": 3}},
            r"no model.layers where model.name=independent; it takes no",
        ),
        ({"task": {"name": "digits", "size": 9}}, r"no task.size where task.name=digits; it takes data_root, seed"),
        (
            {"model": {"name": "conditional", "map_every": 2, "patch_stride": 1}},
            "no model.map_every, model.patch_stride",
        ),
    ],
    ids=str,
)
def test_what_is_typed_and_not_taken_is_refused(updates: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownOptionError, match=says):
        settings("fast", **updates)


def test_the_kind_of_member_decides_what_an_ensemble_takes() -> None:
    config = settings("ensemble", model={"member": "aligned", "map_features": 3})["model"]
    assert config.items() >= {"members": 2, "map_features": 3, "attention": "dot"}.items()
    with pytest.raises(UnknownOptionError, match=r"no model.map_features where model.name=ensemble"):
        settings("ensemble", model={"map_features": 3})


def test_options_of_a_likelihood() -> None:
    for likelihood in (
        {"likelihood": "logistic", "components": 4},
        {"likelihood": {"name": "logistic", "components": 4}},
    ):
        config = settings("fast", model={"name": "conditional", **likelihood})["model"]
        assert build_model(config, EVENT, 2, 0).config.items() >= {"likelihood": "logistic", "components": 4}.items()


def test_recorded_options_that_were_not_taken_are_left_out_and_others_refused() -> None:
    old = {"name": "support_mean", "layers": 12, "planes": 24, "attention": "additive", "components": 10}
    assert build_model(old, EVENT, 2, 0).config == {"event_shape": [1, 4, 4], "levels": 2}
    assert build_task({"name": "digits", "size": 20, "drawings": 20, "protocol": "paper"}, "test").name == "digits"
    with pytest.raises(ValueError, match=r"no model.depth where model.name=support_mean"):
        build_model({**old, "depth": 3}, EVENT, 2, 0)
    with pytest.raises(ValueError, match=r"no task.sizes where task.name=digits"):
        build_task({"name": "digits", "sizes": 20}, "test")


def shipped(repo_root: Path) -> list[dict[str, Any]]:
    found = [read_header(path) for path in sorted((repo_root / "experiments/results/weights").glob("*.safetensors"))]
    return [header["provenance"]["config"] for header in found if "config" in header["provenance"]]


def test_runs_of_earlier_versions_go_on(repo_root: Path) -> None:
    """What they recorded, and what the same command records now, are the same settings, unless one is changed."""
    configs = shipped(repo_root)
    assert len(configs) > 15
    for old in configs:
        now = settings(**{key: read_config(old)[key] for key in ("task", "model", "training")}, seed=old["seed"])
        kept = {key: now[key] for key in ("task", "model", "training", "seed")}
        require_same_config(read_config(old), kept)
        old = {**old, "initial": None}  # its parent went by another path
        assert same_config(old, now), (old["task"]["name"], old["model"]["name"])
        for one, other in ((old, now), (now, old)):
            require_same_pixels(read_config(one), read_config(other))
        size = "planes" if "planes" in old["model"] else "taps"
        changed = {**old, "model": {**old["model"], size: 25}}
        assert not same_config(changed, now)
        with pytest.raises(ChangedConfigError, match=rf"model.{size}: 25 -> "):
            require_same_config(read_config(changed), kept)


def test_aligned_of_the_command_line_is_that_of_python() -> None:
    assert (
        build_model(settings(model={"name": "aligned"})["model"], (1, 26, 26), 2, 0).config
        == AlignedPixelCNN((1, 26, 26), 2).config
    )


OWN = """
import sys
import torch
from torch import nn
from metadensity.densities.independent import IndependentDensity
from metadensity.model import FewShotModel
from metadensity.models import MODELS
from tasks import TASKS

class Sharpened(FewShotModel):
    def __init__(self, event_shape, levels, sharpness: float = 2.5, names: tuple = ("a", "b")) -> None:
        super().__init__(event_shape, levels)
        self.sharpness = sharpness
        self.logits = nn.Parameter(torch.zeros(levels, *self.event_shape))

    def condition(self, support):
        return IndependentDensity(self.sharpness * self.logits[None], tasks=support.shape[1])

def tiny(split="train", data_root=None, seed=0, *, classes: int = 5, size: int = 6):
    return TASKS["templates"](split, data_root, seed, classes=classes, size=size)

MODELS["sharpened"], TASKS["tiny"] = Sharpened, tiny
from experiments import train
from experiments.recording.command_line import main
main(train.experiment)
"""


def test_a_model_and_a_task_of_the_users_own(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(repo_root)}
        command = [sys.executable, "-W", "ignore", str(tmp_path / "own.py"), "with", "fast", "progress=False"]
        names = ["model.name=sharpened", "task.name=tiny"]
        return subprocess.run(
            [*command, *names, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    done = run("model.sharpness=1.5", "task.size=5")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "runs/1/config.json").read_text())
    assert config["model"] == {"name": "sharpened", "sharpness": 1.5, "names": ["a", "b"]}
    assert config["task"] == {"name": "tiny", "data_root": None, "seed": 0, "classes": 5, "size": 5}
    header = read_header(tmp_path / "runs/1/checkpoints/best.safetensors")
    assert header["config"] == {"event_shape": [1, 5, 5], "levels": 2, "sharpness": 1.5, "names": ["a", "b"]}
    refused = run("model.sharpnes=1.5")
    assert refused.returncode != 0
    assert "There is no model.sharpnes where model.name=sharpened; it takes sharpness, names." in refused.stderr

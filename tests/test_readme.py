"""What the README shows is run: its program, its commands, and the names it lists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.ingredients import NAMED_CONFIGS
from metadensity import evaluate
from metadensity.evaluation.cost import parameter_count
from metadensity.models import MODELS
from metadensity.models.attention import AttentionPixelCNN
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, adapting = blocks("python")[:2]
    program = program.replace("steps=200", "steps=2").replace("progress=True", "progress=False")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "torch.Size([4, 16])" in printed
    assert "torch.Size([2, 16, 1, 14, 14])" in printed
    assert printed.count("nats/image, 95 % interval") == 3
    assert (tmp_path / "model.safetensors").is_file()
    exec(compile(adapting, "README.md", "exec"), names)
    assert len(names["steps"]) == 6  # type: ignore[arg-type]  before the first of five, and after each


def test_the_program_with_learn2learn_and_torchmeta_runs(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_DATA", str(data_root))
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[2], "README.md", "exec"), names)
    assert names["episode"].support.shape == (4, 40, 1, 13, 13)


def test_the_model_and_the_task_of_the_examples_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model_code, task_code = blocks("python")[3:5]
    monkeypatch.setattr("metadensity.models.MODELS", models := dict(MODELS))
    monkeypatch.setattr("tasks.TASKS", chosen := type(TASKS)(TASKS))
    names: dict[str, Any] = {}
    exec(compile(model_code, "README.md", "exec"), names)
    exec(compile(task_code, "README.md", "exec"), names)
    assert models.keys() - MODELS.keys() == {"counted_pixels"}
    train, test = (chosen["bars"](split=split) for split in ("train", "test"))
    model = models["counted_pixels"](event_shape=train.event_shape, levels=2)
    MetaTrainer(model, train, None, TrainingConfig(steps=60, warmup=0, learning_rate=0.1, shots=(0, 4))).run()
    few = [test.episode(i, tasks=4, shots=8, queries=2) for i in range(8)]
    rows = evaluate(model, (episode.with_shots(shots) for shots in (0, 8) for episode in few)).rows
    assert rows[1].nats_per_image < rows[0].nats_per_image - 3  # a bar of 8 pixels that only the support tells
    small = models["counted_pixels"](event_shape=(1, 1, 3), levels=2)
    images = torch.cartesian_prod(*[torch.arange(2)] * 3).view(8, 1, 1, 1, 3)
    total = small(images[:3]).log_prob(images).logsumexp(0).item()
    assert total == pytest.approx(0, abs=1e-6)


def test_the_experiment_of_the_example_runs(tmp_path: Path) -> None:
    script = tmp_path / "ink.py"
    script.write_text(blocks("python")[5])
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}
    for command in (["-m", "experiments.train", "with", "hershey", "fast"], [str(script), "with", "fast", "run=1"]):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert {"samples", "queries"} <= json.loads((tmp_path / "runs" / "2" / "run.json").read_text())["result"].keys()


def test_every_command_runs(tmp_path: Path, data_root: Path) -> None:
    """In one shell and in order, each with the named configuration "fast" added."""
    commands = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [line.removeprefix("python") for line in commands if line.startswith("python -m experiments.")]
    assert len(commands) >= 5
    commands = [f"{line} {'fast' if ' with ' in line else 'with fast'}" for line in commands]
    script = " && ".join(f"{sys.executable} -W ignore{command}" for command in commands)
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path), "METADENSITY_DATA": str(data_root)}
    done = subprocess.run(script, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("*/config.json"))) >= len(commands)  # some commands train runs of their own


def test_the_tables_list_what_there_is() -> None:
    for name in NAMED_CONFIGS:
        assert f"`{name}`" in README, f"the README does not name the configuration {name}"
    for name, kind in MODELS.items():
        assert f"| `{name}` | {kind.__name__}" in README
        assert f"{parameter_count(kind(event_shape=(1, 26, 26), levels=2)):,} |" in README
    for name in TASKS:
        assert f"| `{name}` |" in README


def test_the_size_of_the_published_net_is_explained() -> None:
    ours = parameter_count(AttentionPixelCNN(event_shape=(1, 26, 26), levels=2))
    assert abs(ours / 286_000 - 1) < 0.10
    assert f"{1 - ours / 286_000:.0%}".replace("%", " %") in README


def test_the_links_lead_somewhere() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose):
        assert (ROOT / target).exists(), f"the README links to {target}, which does not exist"

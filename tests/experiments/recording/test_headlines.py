"""What came out of a run, in a few words: in the list of runs, and as the last line of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import runs as command
from experiments.recording.headlines import command as typed
from experiments.recording.headlines import last_line, score

ROWS = [
    {"model": "attention", "shots": 0, "nats_per_image": 70.0},
    {"model": "attention", "shots": 1, "nats_per_image": 61.237},
    {"model": "independent", "shots": 1, "nats_per_image": 90.0},
]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"validation/cautious": 0.16812, "steps": 4, "seconds": 3.0}, "at most 0.1681 nats/dim in validation (95 %)"),
        ({"rows": ROWS, "weights_sha256": "a" * 64}, "61.24 nats/image at 1 shot"),
        ({"rows": [{"model": "b", "shots": 4, "mean": -0.5}], "reference": "a"}, "b: -0.500 nats/image at 4 shots"),
        ({"shots": 1, "ways": 5, "accuracy": 0.9404}, "94.0 % right of 5 ways"),
        ({"shots": 4, "tests": {"support": {"auc": 0.434}}}, "43.4 % of samples closer"),
        ({"seed": 3, "samples": 80, "picture": "x.png", "observed": None}, "80 samples"),
        ({"seed": 3, "samples": 8, "picture": "x.png", "observed": "top"}, "8 completions"),
        ({"seed": 3, "queries": 0.25}, "queries 0.25"),
        ({"rows": [{**ROWS[0], "nats_per_image": None}]}, "infinite nats/image at 0 shots"),
        ({"rows": [ROWS[0], {**ROWS[1], "nats_per_image": None}]}, "infinite nats/image at 1 shot"),
        ({"rows": []}, ""),
        (np.float32(1.5), "1.5"),
        (None, ""),
        ("text", ""),
    ],
)
def test_scores(result: Any, said: str) -> None:
    assert score(result) == said


def test_the_last_line_says_what_came_out_and_where() -> None:
    assert last_line("evaluate", {"rows": ROWS, "folder": "runs/7"}) == "evaluate: 61.24 nats/image at 1 shot (runs/7)"
    assert last_line("own", {"folder": "runs/7"}) == "own: done (runs/7)"
    assert last_line("own", ["anything"]) == "own: ['anything']"


def test_what_was_typed() -> None:
    assert typed({"options": {"UPDATE": ["digits", "fast", "task.seed=1"]}}) == "with digits fast task.seed=1"
    from_python = {"options": {}, "named_configs": ["fast"], "config_updates": {"task": {"size": 8}, "seed": 1}}
    assert typed(from_python) == "with fast task.size=8 seed=1"
    assert typed({"options": {"UPDATE": []}, "config_updates": {}}) == ""
    assert typed(None) == ""


def test_commands_end_with_their_result_and_runs_show_it(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path), "PYTHONPATH": str(repo_root)}
    words = ["-W", "ignore", "-m", "experiments.train", "-c", "a first try", "with", "digits", "support_mean", "fast"]
    done = subprocess.run(
        [sys.executable, *words, "progress=False"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Result: " not in done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("train: ")
    assert last.endswith(f" nats/dim in validation (95 %) ({tmp_path / '1'})")
    assert command.main(["--root", str(tmp_path)]) == 0
    head, _, row = capsys.readouterr().out.splitlines()[:3]
    assert {"score", "command", "comment"} <= set(head.split())
    for part in (last.split(": ")[1].split(" (")[0], "with digits support_mean fast progres...", "a first try"):
        assert part in row
    assert command.main(["--root", str(tmp_path), "show", "1"]) == 0
    assert "command: with digits support_mean fast progress=False" in capsys.readouterr().out

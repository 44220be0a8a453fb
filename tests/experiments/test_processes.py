"""Experiments as several processes of torchrun: one run, the same bits, one end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.recording.launched import place, require_equal
from experiments.recording.run_folder import RunFolder
from experiments.recording.settings import SettingError
from metadensity.files import read_tensors
from metadensity.processes import Processes

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TRAIN = ("train", "with", "hershey", "attention", "fast", "task.size=12", "training.parts=2", "progress=False")


def start(repo_root: Path, runs: Path, *words: str, by: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", *by, "-m", f"experiments.{words[0]}", *words[1:]]
    environment = {**os.environ, "METADENSITY_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"cwd": repo_root, "env": environment, "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_two_processes_make_the_run_of_one(tmp_path: Path, repo_root: Path) -> None:
    """Training and evaluation: the same metrics, weights and scores, and one run folder each."""
    for runs, by in (("one", ()), ("two", TWO)):
        for words in (TRAIN, ("evaluate", "with", "fast", "run=1", "limit=6", "tasks_per_batch=2", "progress=False")):
            said, error = (process := start(repo_root, tmp_path / runs, *words, by=by)).communicate(timeout=500)
            assert process.returncode == 0, error
            assert said.count("Started run") <= 1
    one, two = (RunFolder(tmp_path / runs / "1") for runs in ("one", "two"))
    assert (one.path / "metrics.jsonl").read_bytes() == (two.path / "metrics.jsonl").read_bytes()
    assert read_tensors(one.best)[1]["sha256"] == read_tensors(two.best)[1]["sha256"]
    assert read_tensors(one.states()[-1])[1]["sha256"] == read_tensors(two.states()[-1])[1]["sha256"]
    rows = [json.loads((tmp_path / runs / "2" / "evaluation.json").read_text())["rows"] for runs in ("one", "two")]
    assert rows[0] == rows[1]
    scores = [(tmp_path / runs / "2" / "scores.npz").read_bytes() for runs in ("one", "two")]
    assert scores[0] == scores[1]
    assert sorted(path.name for path in (tmp_path / "two").glob("[!_]*")) == ["1", "2"]


def test_a_signal_to_one_process_ends_all_and_the_run_goes_on_alone(tmp_path: Path, repo_root: Path) -> None:
    """It comes to the last process, of which torchrun says no more than that it failed."""
    more = ("training.steps=100000", "training.checkpoint_every=5")
    process = start(repo_root, tmp_path, *TRAIN, *more, by=TWO)
    folder, deadline = tmp_path / "1", time.monotonic() + 300
    while not list(folder.glob("checkpoints/state-*[1-9]?.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(max(map(int, workers.stdout.split())), signal.SIGUSR1)
    said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
    run = RunFolder(folder)
    step = int(read_tensors(run.states()[-1])[1]["step"])
    assert step == max(record["step"] for record in run.metrics())
    words = ("train", "with", "resume=1", f"training.steps={step + 1}", "allow=training.steps", "progress=False")
    going_on = start(repo_root, tmp_path, *words)
    said = going_on.communicate(timeout=300)
    assert going_on.returncode == 0, said


def test_where_there_are_several() -> None:
    assert place({}) == place({"RANK": "1", "WORLD_SIZE": "2"}) == (0, 1)  # set by others, for reasons of their own
    assert place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == (1, 2)
    assert place({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}) == (3, 4)
    assert place({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == (0, 1)  # the script of a job, which is one process


def test_programs_that_cannot_share_are_refused(tmp_path: Path, repo_root: Path) -> None:
    environment = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "METADENSITY_RUNS": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-m", "experiments.sample"]
    done = subprocess.run(
        command, cwd=repo_root, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "This is one of 2 processes that torchrun or srun started" in done.stderr
    assert "sample runs in one process" in done.stderr


def test_processes_with_other_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Processes):
        def values(self, own: Any) -> list[Any]:
            return [own, {**own, "episodes": "other"}]

    require_equal({"episodes": "one"})
    monkeypatch.setattr("experiments.recording.launched.current", lambda: Two(0, 2))
    with pytest.raises(SettingError, match="Process 1 has episodes='other', and the first 'one'"):
        require_equal({"episodes": "one"})

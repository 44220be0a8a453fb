"""A sweep on a real Slurm: killed, preempted and queued again, it is the sweep that nothing happened to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import sweep
from experiments.recording import lineage
from experiments.recording.run_folder import RunFolder
from experiments.studies.units import read_units, state_of
from metadensity.files import read_tensors
from tests.experiments.cluster.conftest import Slurm, until

SETTINGS = {"task.size": 8, "training.steps": 12, "training.checkpoint_every": 3, "training.validate_every": 6}


def submitted(script: str, slurm: Slurm, folder: Path) -> str:
    """The number of the job."""
    (folder / "batch.sh").write_text(script)
    return slurm("sbatch", "--parsable", str(folder / "batch.sh")).strip()


def test_a_sweep_on_slurm_survives_kills_and_preemption(
    slurm: Slurm,
    holding: tuple[str, Path],
    tmp_path: Path,
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    python, holds = holding
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setattr(sweep.sys, "executable", python)
    (tmp_path / "plan.json").write_text(
        json.dumps({"named": ["hershey", "conditional", "fast"], "updates": SETTINGS, "seeds": [0, 1]})
    )
    file = tmp_path / "seeds.jsonl"

    def script() -> str:
        capsys.readouterr()
        assert sweep.main(["submit", str(file), "--dry", "--sbatch=--time=30"]) == 0
        return capsys.readouterr().out

    # Two units on two nodes, with nothing in their way; the same array again has nothing to do.
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "whole"))
    assert sweep.main(["plan", str(tmp_path / "plan.json"), "--to", str(file)]) == 0
    units = read_units(file)
    both = script()
    assert sweep.main(["submit", str(file), "--sbatch=--time=30"]) == 0
    (first,) = re.findall(r"Submitted batch job (\d+)", capsys.readouterr().out)
    for time_submitted in (1, 2):
        job = first if time_submitted == 1 else submitted(both, slurm, tmp_path)
        for place in (0, 1):
            slurm.wait(f"{job}_{place}", "COMPLETED")
            said = (tmp_path / f"seeds-{job}_{place}.txt").read_text()
            assert ("nothing to do" in said) == (time_submitted == 2), said
    assert sorted(path.name for path in (tmp_path / "whole").glob("[0-9]*")) == ["1", "2"]
    capsys.readouterr()
    assert sweep.main(["submit", str(file)]) == 0
    assert "Nothing to do: all 2 units" in capsys.readouterr().out
    whole = finished(units[0])

    # The same unit, killed at step 6 and preempted at step 9.
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "broken"))
    for step in ("6", "9"):
        (holds / step).touch()
    job = submitted(re.sub("--array=0-1", "--array=0", script()), slurm, tmp_path)
    output = tmp_path / f"seeds-{job}_0.txt"

    def reached(step: int) -> None:
        pattern = f"*/checkpoints/state-{step:08d}.safetensors"
        until(lambda: any((tmp_path / "broken").glob(pattern)), lambda: output.read_text()[-3000:] + slurm.log())

    reached(6)
    state = state_of(units[0])
    assert (state.status, [run.status for run in state.runs]) == ("RUNNING", ["RUNNING"])
    (record,) = units[0].folder.glob("attempt-*.json")
    os.kill(json.loads(record.read_text())["process"]["pid"], signal.SIGKILL)
    slurm.wait(f"{job}_0", "FAILED")
    state = state_of(units[0])  # at once, though the last heartbeat was some seconds ago
    assert (state.status, [run.status for run in state.runs]) == ("DIED", ["DIED"])
    (holds / "6").unlink()
    slurm("scontrol", "requeue", f"{job}_0")
    # Not in the second in which it ended: the node would take the new start for the old.
    slurm("scontrol", "update", f"JobId={job}_0", "StartTime=now+2")
    reached(9)
    other = slurm("sbatch", "--parsable", "-p", "high", "-N2", "-n2", "-o", os.devnull, "--wrap", "true").strip()
    slurm.wait(other, "COMPLETED")
    slurm.wait(f"{job}_0", "PENDING")
    (holds / "9").unlink()
    slurm("scontrol", "update", f"JobId={job}_0", "StartTime=now+2")
    slurm.wait(f"{job}_0", "COMPLETED")

    broken = finished(units[0])
    links = lineage.chain(broken)
    assert [began for _, began in links] == [0, 6, 9]
    assert [run.status for run in state_of(units[0]).runs] == ["DIED", "INTERRUPTED", "COMPLETED"]
    assert lineage.joined_lines(broken) == lineage.joined_lines(whole) == (whole.path / "metrics.jsonl").read_bytes()
    for one, another in ((whole.best, broken.best), (whole.states()[-1], broken.states()[-1])):
        tensors, others = read_tensors(one)[0], read_tensors(another)[0]
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_two_nodes_train_and_score_as_one_process_does(
    slurm: Slurm, tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By srun: the same metrics, weights and scores, in one run folder each."""
    for name, value in {"PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)  # n1 and n2 are no names of hosts
    training = ("train", "with", "hershey", "conditional", "fast", "task.size=8", "training.parts=2", "progress=False")
    for words in (training, ("evaluate", "with", "fast", "run=1", "limit=4", "tasks_per_batch=2", "progress=False")):
        command = [sys.executable, "-W", "ignore", "-m", f"experiments.{words[0]}", *words[1:]]
        monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "two"))
        slurm("srun", "-N2", "-n2", "--kill-on-bad-exit=1", *command)
        monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "one"))
        subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "two").glob("[!_]*")) == ["1", "2"]
    one, two = (RunFolder(tmp_path / runs / "1") for runs in ("one", "two"))
    assert (one.path / "metrics.jsonl").read_bytes() == (two.path / "metrics.jsonl").read_bytes()
    for mine, theirs in ((one.best, two.best), (one.states()[-1], two.states()[-1])):
        assert read_tensors(mine)[1]["sha256"] == read_tensors(theirs)[1]["sha256"]
    scores = [(tmp_path / runs / "2" / "scores.npz").read_bytes() for runs in ("one", "two")]
    assert scores[0] == scores[1]


def finished(unit: Any) -> RunFolder:
    run = state_of(unit).finished
    assert run is not None
    return RunFolder(run.folder)


def test_ci_installs_slurm(repo_root: Path) -> None:
    """So that these tests skip on the machines of users alone."""
    (line,) = [line for line in (repo_root / ".ci" / "run").read_text().splitlines() if "apt-get install" in line]
    assert {"slurmctld", "slurmd", "slurm-client"} <= set(line.split())


def test_waiting_has_an_end() -> None:
    """The control of ``until``: what never is so fails the test."""
    began = time.monotonic()
    with pytest.raises(AssertionError, match="not so within 0 s: nothing"):
        until(lambda: False, lambda: "nothing", 0.1)
    assert time.monotonic() - began < 5

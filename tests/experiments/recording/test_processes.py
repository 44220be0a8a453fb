"""Whether the process of a record has ended: never said of one that may live, said at once where it is certain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from experiments.recording.processes import is_gone, named, this_process
from experiments.recording.run_table import read_run
from tests.experiments.test_runs import make


@pytest.fixture
def ended() -> dict[str, Any]:
    """The record of a process that has ended."""
    code = "import json; from experiments.recording.processes import this_process; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_process_that_lives_is_not_gone_and_one_that_ended_is(ended: dict[str, Any]) -> None:
    assert not is_gone(this_process())
    assert is_gone(ended)
    assert ended["pid"] != os.getpid()
    assert named(this_process()).startswith(f"process {os.getpid()} on ")


def test_a_number_that_was_given_again_is_another_process() -> None:
    own = this_process()
    assert is_gone({**own, "began": own["began"] - 1})
    assert not is_gone({**own, "began": None})  # it is not known which of the two it was


def test_a_process_whose_end_nobody_asked_for_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    record = {**this_process(), "pid": child.pid, "began": 1}
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert is_gone(record)
    child.wait()


@pytest.mark.parametrize("name", ["host", "boot", "namespace"])
def test_of_another_machine_nothing_is_certain(name: str, ended: dict[str, Any]) -> None:
    assert not is_gone({**ended, name: "another"})


def test_of_nothing_nothing_is_certain() -> None:
    assert not is_gone({})


def test_a_later_start_of_a_slurm_job_knows_that_the_earlier_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    elsewhere = {**this_process(), "host": "another"}
    assert elsewhere["slurm_restarts"] == 0
    assert not is_gone(elsewhere)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_gone(elsewhere)
    assert not is_gone({**elsewhere, "slurm_restarts": 1})  # of the same start
    assert not is_gone({**elsewhere, "slurm_job": "8"})
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "other")
    assert not is_gone(elsewhere)


def test_a_run_whose_process_is_gone_died_at_once(tmp_path: Path, ended: dict[str, Any]) -> None:
    beat = datetime.now(UTC).isoformat()
    for number, process in enumerate((ended, this_process(), {**ended, "host": "another"}), start=1):
        entry = {"status": "RUNNING", "heartbeat": beat, "meta": {"process": process}}
        make(tmp_path, number, entry=entry)
    assert [read_run(tmp_path / str(number)).status for number in (1, 2, 3)] == ["DIED", "RUNNING", "RUNNING"]

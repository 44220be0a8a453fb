"""Units of a sweep: of many workers one has a unit, one that died holds nothing, and no run is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.recording.processes import this_process
from experiments.recording.run_table import SILENT
from experiments.studies import units as module
from experiments.studies.units import HeldError, Unit, chosen, leased, note_runs, read_units, state_of, take
from tests.experiments.test_runs import make

UNIT = Unit("0123456789abcdef", "seed=0", {"seed": 0})


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path))
    return tmp_path


def trained(root: Path, number: int, status: str, steps: int) -> None:
    """A run of the unit."""
    checkpoints = make(root, number, entry={"status": status}) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / f"state-{steps:08d}.safetensors").touch()
    (checkpoints / "best.safetensors").touch()


def test_of_many_workers_one_has_the_unit() -> None:
    start, got, refused = threading.Barrier(16), [], []

    def worker() -> None:
        start.wait()
        try:
            got.append(take(UNIT))
        except HeldError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=worker) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 15)
    begins = tuple(
        f"seed=0 is being worked on by {who}" for who in (f"process {os.getpid()} on ", "a process that has")
    )
    assert all(each.startswith(begins) for each in refused)
    with pytest.raises(HeldError, match=rf"seed=0 is being worked on by process {os.getpid()} on "):
        take(UNIT)
    assert state_of(UNIT).status == "RUNNING"


def test_a_worker_that_is_done_gives_the_unit_back() -> None:
    for number in (1, 2):
        with leased(UNIT):
            assert len(list(UNIT.folder.glob("attempt-*"))) == number
            with pytest.raises(HeldError):
                take(UNIT)
    with pytest.raises(ValueError, match="in the middle"), leased(UNIT):
        raise ValueError("in the middle")
    assert state_of(UNIT).status == "PLANNED"
    take(UNIT)


def test_a_killed_worker_holds_nothing(root: Path) -> None:
    code = (
        "import os, signal; from experiments.studies.units import *\n"
        "take(Unit('0123456789abcdef', 'seed=0', {})).note_run('1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    trained(root, 1, "INTERRUPTED", 5)
    assert state_of(UNIT).status == "INTERRUPTED"
    assert state_of(UNIT).to_resume == root / "1"
    take(UNIT)


def test_a_worker_elsewhere_holds_the_unit_until_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = take(UNIT)
    lease._write(process={**this_process(), "host": "another", "pid": 1})
    with pytest.raises(HeldError, match="process 1 on another"):
        take(UNIT)
    old = time.time() - SILENT - 5
    os.utime(lease.path, (old, old))
    lease.renew()  # it lives
    with pytest.raises(HeldError):
        take(UNIT)
    os.utime(lease.path, (old, old))
    second = take(UNIT)
    with pytest.raises(HeldError, match="was taken by another worker"):
        lease.renew()
    lease.release()  # of the first, which is no release of the second
    with pytest.raises(HeldError):
        take(UNIT)
    second.release()


def test_a_worker_whose_clock_is_wrong_takes_no_unit_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = take(UNIT)
    lease._write(process={**this_process(), "host": "another"})
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 1e6)
    with pytest.raises(HeldError):
        take(UNIT)


def test_a_worker_that_died_before_it_said_who_it_is_holds_the_unit_until_it_is_silent() -> None:
    UNIT.folder.mkdir(parents=True)
    empty = UNIT.folder / "attempt-000001.json"
    empty.touch()
    with pytest.raises(HeldError):
        take(UNIT)
    os.utime(empty, (0, 0))
    take(UNIT)


def test_the_state_of_a_unit_is_that_of_its_runs(root: Path) -> None:
    assert (state_of(UNIT).status, state_of(UNIT).best) == ("PLANNED", None)
    for number, status, steps in ((1, "DIED", 0), (2, "INTERRUPTED", 9), (3, "FAILED", 6)):
        with leased(UNIT) as lease:
            lease.note_run(str(number))
        trained(root, number, status, steps)
    (root / "2" / "metrics.jsonl").write_text('{"step": 3, "validation/cautious": 0.25}\n{"step": 6, "val')
    state = state_of(UNIT)
    assert (state.status, state.to_resume, state.best) == ("FAILED", root / "2", 0.25)
    assert state.finished is None
    trained(root, 12, "COMPLETED", 12)
    note_runs(UNIT, ["12", "3"])
    state = state_of(UNIT)
    assert [run.run for run in state.runs] == ["12", "1", "2", "3"]
    assert state.finished is not None
    assert (state.status, state.finished.run) == ("COMPLETED", "12")
    assert state.best == pytest.approx(1 / 13)
    (root / "12" / "checkpoints" / "best.safetensors").unlink()  # the record without the weights is of no use
    assert state_of(UNIT).finished is None


def test_runs_that_were_found_take_no_unit_from_its_worker(root: Path) -> None:
    lease = take(UNIT)
    trained(root, 4, "INTERRUPTED", 3)
    note_runs(UNIT, ["4"])
    lease.renew()
    with pytest.raises(HeldError):
        take(UNIT)


def test_units_are_chosen_by_place_and_by_hash() -> None:
    units = [Unit(f"{number}{'abcdef'[number]}" * 8, f"seed={number}", {}) for number in range(5)]

    def seeds(text: str) -> list[str]:
        return [unit.name.removeprefix("seed=") for unit in chosen(units, text)]

    assert seeds("3") == ["3"]
    assert seeds("1-2,0,2") == ["1", "2", "0"]
    assert seeds("3-99") == ["3", "4"]  # the last task of an array
    assert seeds("2c2c2c2c") == ["2"]
    for wrong in ("5", "a", "-1", "", "5-9", "ffff"):
        with pytest.raises(ValueError, match=rf"no unit '{wrong}': the sweep has 0 to 4"):
            chosen(units, wrong)


def test_a_file_of_units_is_read_as_it_was_written(tmp_path: Path) -> None:
    units = [UNIT, Unit("f" * 16, "next", {"a": [1, None]}, UNIT.id)]
    file = tmp_path / "s.jsonl"
    file.write_text("".join(unit.line() + "\n" for unit in units))
    assert read_units(file) == units
    file.write_text(json.dumps({"named": ["hershey"]}))
    with pytest.raises(ValueError, match=r"line 1, is no unit of a sweep: .*sweep plan .*s.jsonl --to sweep.jsonl"):
        read_units(file)
    with pytest.raises(FileNotFoundError, match=r"There is no sweep .*Make one: python -m experiments.sweep plan"):
        read_units(tmp_path / "none")


def test_a_unit_that_is_finished_is_passed_over_without_torch(root: Path, tmp_path: Path) -> None:
    trained(root, 1, "COMPLETED", 4)
    note_runs(UNIT, ["1"])
    (tmp_path / "s.jsonl").write_text(UNIT.line())
    code = (
        "import sys; from experiments import sweep; status = sweep.main(['work', sys.argv[1]])\n"
        "sys.exit(status or 'torch' in sys.modules)"
    )
    command: list[Any] = [sys.executable, "-c", code, tmp_path / "s.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"seed=0: nothing to do, {root / '1'} has done it.\n"), done.stderr

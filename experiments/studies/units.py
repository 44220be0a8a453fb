"""Units of a sweep: a training each, which any number of workers may be told to do, and one at a time does.

A sweep is a file with a unit a line. What is done of a unit is its runs: no other state is kept. ``_units/UNIT`` in the
runs folder has a file for each attempt at it, made by one worker alone (O_EXCL), which says who made it and names the
run; the newest of them is the lease. So a unit's runs are known without reading all runs there are.

Imports nothing heavy: a unit that is finished is to be passed over quickly, and a table of thousands made.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.recording.processes import is_gone, named, this_process
from experiments.recording.root import runs_root
from experiments.recording.run_table import SILENT, RunRecord, read_run

FOLDER = "_units"  # in the runs folder, whose listings pass over what begins so
_FOUND = "found-run-"
PLANNED, RUNNING, COMPLETED = "PLANNED", "RUNNING", "COMPLETED"  # the others are those of the newest run


class HeldError(RuntimeError):
    """Another worker is at the unit."""


@dataclass(frozen=True)
class Unit:
    """A training of a sweep.

    id: the hash of what decides its weights. name: what it differs in from others. config: what experiments.train is
    given. begins_with: the unit whose weights it begins with, which comes first.
    """

    id: str
    name: str
    config: Mapping[str, Any]
    begins_with: str | None = None

    @property
    def folder(self) -> Path:
        """Where its attempts are."""
        return runs_root() / FOLDER / self.id

    def line(self) -> str:
        """Its line in a file."""
        known = {"unit": self.id, "name": self.name, "begins_with": self.begins_with, "config": self.config}
        return json.dumps(known, allow_nan=False)


@dataclass(frozen=True)
class Attempt:
    """What a worker did about a unit. run: the name of its run, None before there is one. ended: as it says itself."""

    path: Path
    process: Mapping[str, Any]
    run: str | None
    ended: bool

    def holds(self, now: float) -> bool:
        """Whether its worker may still be at it. now: the time that files made now have."""
        if self.ended or is_gone(self.process):
            return False
        with contextlib.suppress(FileNotFoundError):
            return now - self.path.stat().st_mtime <= SILENT
        return False


@dataclass(frozen=True)
class State:
    """How far a unit is. status: PLANNED, RUNNING, COMPLETED, or that of the newest run. runs: oldest first.

    holder: who is at it, in words. best: the lowest validation of its runs, None where there was none.
    """

    status: str
    runs: tuple[RunRecord, ...] = ()
    holder: str = ""

    @property
    def finished(self) -> RunRecord | None:
        """The run that did its last step and has its whole record."""
        return next((run for run in self.runs if _is_finished(run)), None)

    @property
    def to_resume(self) -> Path | None:
        """The folder of the run that went furthest, of those with a state to go on from."""
        furthest = [(max(steps), number) for number, run in enumerate(self.runs) if (steps := _steps(run.folder))]
        return self.runs[max(furthest)[1]].folder if furthest else None

    @property
    def best(self) -> float | None:
        """The lowest validation so far."""
        if self.finished is not None:
            return self.finished.metrics.get("validation/cautious")
        found = min((value for run in self.runs for value in _validations(run.folder)), default=math.inf)
        return found if math.isfinite(found) else None


class Lease:
    """The right to work on a unit, until it is released or another worker has reason to think that this one is dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {"process": this_process(), "run": None, "ended": False}

    def note_run(self, run: str) -> None:
        """Name the run that the unit is trained in."""
        self._write(run=run)

    def renew(self) -> None:
        """Say that this worker is alive. Raises HeldError where another one has taken the unit meanwhile."""
        newest = _paths(self.path.parent)[-1]
        if newest != self.path:
            raise HeldError(f"The unit {self.path.parent.name} was taken by another worker, as this one was silent.")
        os.utime(self.path)

    def release(self) -> None:
        """End the attempt."""
        self._write(ended=True)

    def _write(self, **more: Any) -> None:
        self._known |= more
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        temporary.write_text(json.dumps(self._known))
        os.replace(temporary, self.path)


def read_units(path: str | Path) -> list[Unit]:
    """The units of a file, in its order. Raises FileNotFoundError, ValueError where it is no sweep."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no sweep {path}. Make one: python -m experiments.sweep plan ... --to {path}")
    units = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            found = json.loads(line)
            unit = Unit(found["unit"], found["name"], found["config"], found["begins_with"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is no unit of a sweep: {line[:60]!r}. A file of settings is turned into one "
                f"by python -m experiments.sweep plan {path} --to sweep.jsonl"
            ) from error
        units.append(unit)
    return units


def chosen(units: list[Unit], text: str) -> list[Unit]:
    """The units that ``text`` names: by place, ``3``, ``0-4`` or ``0,2,5-7``, or by the beginning of their hash.

    Raises ValueError where there are none such. What a range has beyond the last unit is left out.
    """
    found: dict[str, Unit] = {}
    for part in text.split(","):
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        if span:
            first, last = int(span[1]), int(span[2] or span[1])
            these = units[first : last + 1]
        else:
            these = [unit for unit in units if len(part) >= 4 and unit.id.startswith(part)]
        if not these:
            raise ValueError(
                f"There is no unit {part!r}: the sweep has 0 to {len(units) - 1}. Give places, such as 3, 0-4 or "
                "0,2,5-7, or a unit's hash."
            )
        found |= {unit.id: unit for unit in these}
    return list(found.values())


def state_of(unit: Unit, now: float | None = None) -> State:
    """How far a unit is, from its attempts and their runs alone."""
    attempts = [_read(path) for path in _paths(unit.folder)]
    found = sorted(
        (path.name.removeprefix(_FOUND) for path in unit.folder.glob(f"{_FOUND}*")), key=lambda n: (len(n), n)
    )
    names = dict.fromkeys([*found, *(attempt.run for attempt in attempts if attempt.run is not None)])
    runs = tuple(read_run(runs_root() / name) for name in names if (runs_root() / name).is_dir())
    if any(map(_is_finished, runs)):
        return State(COMPLETED, runs)
    if attempts and attempts[-1].holds(time.time() if now is None else now):
        return State(RUNNING, runs, named(attempts[-1].process))
    return State(runs[-1].status if runs else PLANNED, runs)


@contextmanager
def leased(unit: Unit) -> Iterator[Lease]:
    """Within this, the unit is this worker's. Raises HeldError where it is another's."""
    lease = take(unit)
    try:
        yield lease
    finally:
        lease.release()


def take(unit: Unit) -> Lease:
    """Take the unit. Raises HeldError where a worker is at it that may be alive."""
    unit.folder.mkdir(parents=True, exist_ok=True)
    while True:
        paths = _paths(unit.folder)
        if paths and (last := _read(paths[-1])).holds(_time_of_files(unit.folder)):
            raise HeldError(f"{unit.name} is being worked on by {named(last.process)}.")
        if (path := _new_attempt(unit, len(paths))) is not None:
            return Lease(path)


def note_runs(unit: Unit, runs: Iterable[str]) -> None:
    """Name finished or stopped runs of the unit that were made without the sweep."""
    known = {run.run for run in state_of(unit).runs}
    for run in runs:
        if run not in known:
            unit.folder.mkdir(parents=True, exist_ok=True)
            (unit.folder / f"{_FOUND}{run}").touch()


def _new_attempt(unit: Unit, before: int) -> Path | None:
    """The file of the attempt after so many, which one worker alone can make; None where another did.

    None of them is ever removed: a worker that looked long ago makes no number anew.
    """
    path = unit.folder / f"attempt-{before + 1:06d}.json"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps({"process": this_process(), "run": None, "ended": False}))
        file.flush()
        os.fsync(descriptor)
    return path


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("attempt-*.json"))


def _read(path: Path) -> Attempt:
    """An attempt; of one whose worker has not written yet who it is, or died over it, only its time is known."""
    try:
        found = json.loads(path.read_text())
        return Attempt(path, found["process"], found["run"], found["ended"])
    except (ValueError, KeyError, TypeError):
        return Attempt(path, {}, None, False)


def _time_of_files(folder: Path) -> float:
    """The time that a file made now has: clocks of machines differ, that of the disk is one."""
    probe = folder / f".now-{secrets.token_hex(8)}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return now


def _is_finished(run: RunRecord) -> bool:
    return run.status == COMPLETED and (run.folder / "checkpoints" / "best.safetensors").is_file()


def _steps(folder: Path) -> list[int]:
    return [int(path.stem.rpartition("-")[2]) for path in folder.glob("checkpoints/state-*.safetensors")]


def _validations(folder: Path) -> Iterator[float]:
    try:
        lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # a line that a crash cut off
            value = json.loads(line).get("validation/cautious")
            if value is not None:
                yield float(value)

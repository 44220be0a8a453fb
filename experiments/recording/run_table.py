"""Runs as records, from plain folders: no server, no database, and nothing heavy imported, so that listing is quick.

from experiments.recording.run_table import runs_table
table = runs_table(where=["model.name=attention", "training.steps>1000"], sort="validation/cautious")
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.recording import headlines
from experiments.recording.flat_configs import flatten
from experiments.recording.processes import is_gone
from experiments.recording.root import runs_root
from experiments.recording.run_filters import holds, names_for, parse_filter

if TYPE_CHECKING:
    import pandas as pd

SILENT = 120.0  # seconds without a heartbeat (Sacred's is every 10) after which a running run counts as dead
TAIL = 8192  # bytes at the end of metrics.jsonl that are looked at for the last value of each number
ENOUGH = 40  # lines without a new name, after which no more are looked at


@dataclass
class RunRecord:
    """What a run folder says of itself.

    status: as Sacred has it; DIED for a run that says RUNNING but whose process is gone, or which has been silent for
    two minutes, UNKNOWN where the record is missing or damaged. name, comment: those of Sacred's flags -n and -c.
    score, command: see ``headlines``. metrics: numbers of the result and, under their own names, the last of each
    number in metrics.jsonl. started: UTC.
    """

    folder: Path
    status: str = "UNKNOWN"
    experiment: str = ""
    name: str = ""
    started: str = ""
    seconds: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    score: str = ""
    command: str = ""
    comment: str = ""
    problem: str | None = None

    @property
    def run(self) -> str:
        """The run's number, or its folder's name."""
        return self.folder.name

    @property
    def parents(self) -> list[str]:
        """The runs this one came from."""
        return [str(parent.get("run")) for parent in self.lineage.get("parents", [])]

    def values(self) -> dict[str, Any]:
        """All that can be listed, filtered and sorted by, under one flat set of names."""
        own = {
            "run": self.run,
            "status": self.status,
            "experiment": self.experiment,
            "name": self.name,
            "started": self.started,
            "seconds": self.seconds,
            "kind": self.lineage.get("kind", ""),
            "parents": self.parents,
            "score": self.score,
            "command": self.command,
            "comment": self.comment,
        }
        return {**self.config, **self.metrics, **own}


def read_runs(root: str | Path | None = None, now: datetime | None = None) -> list[RunRecord]:
    """Every run in a runs folder, by number. A folder without a record, or with a damaged one, is listed as UNKNOWN.

    Raises FileNotFoundError where there is no such folder.
    """
    root = Path(root) if root is not None else runs_root()
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder of runs at {root}. Name one with METADENSITY_RUNS, or train a run."
        )
    folders = [
        Path(entry.path)
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith((".", "_")) and entry.name != "unobserved"
    ]
    folders = [folder for folder in folders if folder.name.isdigit() or (folder / "run.json").is_file()]
    folders.sort(key=lambda folder: (not folder.name.isdigit(), folder.name.zfill(12)))
    return [read_run(folder, now) for folder in folders]


def read_run(folder: Path, now: datetime | None = None) -> RunRecord:
    """The record of one run; damage is told in ``problem``, not raised, so that one bad run hides no others."""
    record = RunRecord(folder)
    entry, record.problem = _json(folder / "run.json")
    config, problem = _json(folder / "config.json")
    record.problem = record.problem or problem
    lineage = _json(folder / "lineage.json")[0]
    record.config, record.lineage = flatten(config), lineage
    record.experiment = str(entry.get("experiment", {}).get("name", ""))
    record.name = str((entry.get("meta") or {}).get("name", ""))
    record.started = str(entry.get("start_time") or "")[:19]
    record.status = _status(entry, folder, now or datetime.now(UTC))
    end = entry.get("stop_time") or entry.get("heartbeat")
    if record.started and end:
        record.seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(entry["start_time"])).total_seconds()
    record.score, record.command = headlines.score(entry.get("result")), headlines.command(entry.get("meta"))
    meta: dict[str, Any] = entry.get("meta") or {}
    record.comment = str(meta.get("comment") or "")
    record.metrics = {**_last_metrics(folder / "metrics.jsonl"), **_result(entry.get("result"))}
    return record


def _json(path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        return {}, f"{path.name}: {error.strerror}"
    except ValueError as error:
        return {}, f"{path.name} is no JSON ({error})"
    return (found, None) if isinstance(found, dict) else ({}, f"{path.name} holds no object")


def _status(entry: Mapping[str, Any], folder: Path, now: datetime) -> str:
    status = str(entry.get("status", "UNKNOWN"))
    if status != "RUNNING":
        return status
    beat = entry.get("heartbeat") or entry.get("start_time")
    if not beat:
        return "UNKNOWN"
    when = datetime.fromisoformat(beat)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    silent = (now - when).total_seconds() > SILENT
    return "DIED" if silent or is_gone((entry.get("meta") or {}).get("process") or {}) else "RUNNING"


def _result(result: Any) -> dict[str, float]:
    """The numbers of a result; of an evaluation its subject's rows, as ``nats_per_dim_4_shots``."""
    if _number(result):
        return {"result": float(result)}
    if not isinstance(result, Mapping):
        return {}
    found = {key: float(value) for key, value in result.items() if _number(value)}
    rows = result.get("rows")
    if isinstance(rows, list):
        first = next((row.get("model") for row in rows if isinstance(row, Mapping)), None)
        for row in rows:
            if isinstance(row, Mapping) and row.get("model") == first and "shots" in row:
                for name in ("nats_per_dim", "nats_per_image"):
                    if _number(row.get(name)):
                        found[f"{name}_{row['shots']}_shots"] = float(row[name])
    return found


def _last_metrics(path: Path) -> dict[str, float]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    found: dict[str, float] = {}
    idle = 0
    for line in reversed(lines[1:] if size > TAIL else lines):
        if idle == ENOUGH:
            break
        try:
            record = json.loads(line)
        except ValueError:
            continue
        idle = idle + 1 if isinstance(record, dict) and record.keys() <= found.keys() else 0
        if isinstance(record, dict):
            for name, value in record.items():
                if _number(value):
                    found.setdefault(name, float(value))
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def select(records: Iterable[RunRecord], where: Iterable[str]) -> list[RunRecord]:
    """The runs for which every filter holds: ``name=value``, or with ``!=``, ``<``, ``<=``, ``>``, ``>=``.

    name: ``status``, ``experiment``, ``kind``, ``parents``, a setting, a metric. Where no run has that very name, its
    last part counts: ``task.shots=4`` finds ``training.shots`` and ``shots``. A list matches where it is equal, or
    holds the value. A run without the name does not match, whatever the comparison.

    Raises FilterError for text that is no filter, and for a name that no run has, with those that look like it.
    """
    records = list(records)
    parsed = [parse_filter(text) for text in where]
    if not records:
        return []
    known: set[str] = set()
    values = [record.values() for record in records]
    for found in values:
        known |= found.keys()
    for name, _, _ in parsed:
        names_for(name, known)
    return [
        record
        for record, found in zip(records, values, strict=True)
        if all(holds(found, names_for(name, known), compare, value) for name, compare, value in parsed)
    ]


def sort_runs(records: Iterable[RunRecord], name: str, descending: bool = False) -> list[RunRecord]:
    """Runs by a value, the smallest first; those without it come last either way. Raises FilterError as ``select``."""
    records = list(records)
    known = {key for record in records for key in record.values()}
    names = names_for(name, known) if records else []

    def value(record: RunRecord) -> Any:
        found = record.values()
        return next((found[key] for key in names if found.get(key) is not None), None)

    having = [record for record in records if value(record) is not None]
    numbers = all(_number(value(record)) for record in having)
    having.sort(key=lambda record: value(record) if numbers else _natural(value(record)), reverse=descending)
    return having + [record for record in records if value(record) is None]


def _natural(value: Any) -> list[tuple[int, int, str]]:
    """So that run 10 comes after run 9."""
    parts = re.split(r"(\d+)", str(value))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def runs_table(
    root: str | Path | None = None, where: Iterable[str] = (), sort: str | None = None, descending: bool = False
) -> pd.DataFrame:
    """Runs as a DataFrame: a row a run, indexed by run; a column for each setting and each number.

    Raises FileNotFoundError where there is no runs folder, FilterError as ``select`` does.
    """
    import pandas as pd

    records = select(read_runs(root), where)
    if sort is not None:
        records = sort_runs(records, sort, descending)
    rows = [{**record.values(), "folder": str(record.folder)} for record in records]
    first = ["run", "status", "experiment", "kind", "started", "seconds", "parents", "folder"]
    columns = first + sorted({key for row in rows for key in row} - set(first))
    return pd.DataFrame(rows, columns=columns).set_index("run")

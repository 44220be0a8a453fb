"""Sacred's observers so that a run is never lost: the file record whole at any moment, the others unable to harm it.

Files are the record; SQL, TinyDB, MongoDB and trackers are copies of it. ``make_fault_tolerant`` is applied to those of
every experiment that ``command_line.make_experiment`` makes, whether they come from code or from Sacred's flags
-F (files), -s (SQL), -t (TinyDB) and -m (MongoDB), or by -w and -M (see ``trackers``).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sacred.observers import FileStorageObserver, MongoObserver, SqlObserver

from metadensity.files import JsonLines, write_atomically

PATIENCE = 5.0  # seconds a database may take for one event before the run goes on without it


def make_fault_tolerant(observers: Iterable[Any]) -> list[Any]:
    """The observers with files written atomically, and all others guarded. Queued observers are refused.

    The first folder is the run's own; others get a copy of it, and one that is named twice counts once.

    Raises ValueError for Sacred's QueueObserver round anything: in Sacred 0.8.7 it hangs once a scalar was logged.
    """
    found: list[Any] = []
    for observer in observers:
        if type(observer).__name__ in ("QueueObserver", "QueuedMongoObserver"):
            raise ValueError(
                f"{type(observer).__name__} hangs in Sacred 0.8.7 once a number was logged. Give the observer within "
                "it: it is guarded against lost connections here."
            )
        if type(observer) is FileStorageObserver:
            files = [each for each in found if isinstance(each, AtomicFileObserver)]
            if all(Path(each.basedir).resolve() != Path(observer.basedir).resolve() for each in files):
                found.append(
                    CopyingFileObserver.beside(files[0], observer) if files else AtomicFileObserver.of(observer)
                )
        elif isinstance(observer, FileStorageObserver | FaultTolerantObserver):
            found.append(observer)
        else:
            found.append(FaultTolerantObserver(observer))
    folders = [each for each in found if isinstance(each, AtomicFileObserver)]
    for each in found:
        inner: Any = getattr(each, "inner", None)
        if folders and hasattr(inner, "files"):  # a copy that links to the folder
            inner.files = folders[0]
    return found


class AtomicFileObserver(FileStorageObserver):
    """Sacred's file observer with atomic files, strict JSON and scalars appended to ``scalars.jsonl``.

    Sacred's own writes in place, so that a crash or a full disk in the middle leaves no record, and rewrites all of
    metrics.json at each heartbeat.
    """

    @classmethod
    def of(cls, other: FileStorageObserver) -> AtomicFileObserver:
        """One with the settings of Sacred's."""
        names = ("resource_dir", "source_dir", "template", "priority", "copy_artifacts", "copy_sources")
        made: AtomicFileObserver = cls.create_from(other.basedir, **{name: getattr(other, name) for name in names})
        return made

    def started_event(self, ex_info: dict[str, Any], *arguments: Any, **event: Any) -> Any:
        """Begin the record; Sacred's would put its own names of the sources into what the next observer is given."""
        return super().started_event(dict(ex_info), *arguments, **event)

    def queued_event(self, ex_info: dict[str, Any], *arguments: Any, **event: Any) -> Any:
        """Note a run that is to be started later, its sources where those of started ones are.

        Sacred's would look for them in the current folder, and give those of the same name one place.
        """
        whole = {**ex_info, "sources": self.save_sources(ex_info)}
        copy_sources, self.copy_sources = self.copy_sources, False
        try:
            return super().queued_event(whole, *arguments, **event)
        finally:
            self.copy_sources = copy_sources

    def save_json(self, obj: Any, filename: str) -> None:
        """Write atomically; a number that is not finite, which JSON cannot hold, as null."""
        text = json.dumps(plain(obj), sort_keys=True, indent=2, allow_nan=False)
        write_atomically(Path(self.dir) / filename, text.encode())

    def log_metrics(self, metrics_by_name: dict[str, dict[str, list[Any]]], info: Any) -> None:
        """Append what was logged since the last heartbeat."""
        lines = JsonLines(Path(self.dir) / "scalars.jsonl")
        for name, found in metrics_by_name.items():
            for step, value, when in zip(found["steps"], found["values"], found["timestamps"], strict=True):
                lines.append({"name": name, "step": plain(step), "value": plain(value), "time": when.isoformat()})


class CopyingFileObserver(AtomicFileObserver):
    """A further folder of runs (Sacred's flag -F), where the run has the next number there.

    When the run ends, what else it wrote is copied, but for ``lineage.json``, which says where other runs lie.
    """

    first: AtomicFileObserver

    @classmethod
    def beside(cls, first: AtomicFileObserver, other: FileStorageObserver) -> CopyingFileObserver:
        """One with the settings of Sacred's, for the runs that ``first`` records."""
        made = cls.of(other)
        assert isinstance(made, cls)
        made.first = first
        return made

    def completed_event(self, *arguments: Any, **event: Any) -> None:
        """Record the end, and copy."""
        super().completed_event(*arguments, **event)
        self._copy()

    def interrupted_event(self, *arguments: Any, **event: Any) -> None:
        """Record the end, and copy."""
        super().interrupted_event(*arguments, **event)
        self._copy()

    def failed_event(self, *arguments: Any, **event: Any) -> None:
        """Record the end, and copy."""
        super().failed_event(*arguments, **event)
        self._copy()

    def _make_run_dir(self, _id: Any) -> None:
        super()._make_run_dir(None)

    def _copy(self) -> None:
        origin, here = Path(self.first.dir), Path(self.dir)
        for path in sorted(origin.rglob("*")):
            copy = here / path.relative_to(origin)
            if path.is_file() and not copy.exists() and path.name != "lineage.json":
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)


def plain(value: Any) -> Any:
    """A value as strict JSON has it, without pickles: numbers of any library as Python's, None for those not finite.

    Tensors and arrays are lists, and numbers where they have no dimension; paths and all that is no data are text.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


class FaultTolerantObserver:
    """An observer whose failures are said once and stop nothing.

    Where a connection was lost, each heartbeat tries again, with all that was missed: a server that comes back has the
    whole run. Its priority is below that of files, whose number the run gets; a database that has that number already
    gives another one.
    """

    priority = 0

    def __init__(self, inner: Any, patience: float = PATIENCE) -> None:
        self.inner, self.patience = inner, patience
        self.started: dict[str, Any] | None = None  # what to start with, until that succeeded
        self.pending: dict[str, dict[str, list[Any]]] = {}  # scalars not yet stored
        self.lost = False
        self.lock = threading.RLock()  # the last heartbeat may still wait for its server when the run ends
        if isinstance(inner, MongoObserver):
            _save_or_raise(inner)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return str(getattr(self.inner, "name", type(self.inner).__name__))

    def queued_event(self, **event: Any) -> Any:
        """Note a run that is to be started later (Sacred's flag -q)."""
        self._try("queue", lambda: self.inner.queued_event(**_copied(event)))
        return event["_id"]

    def started_event(self, **event: Any) -> Any:
        """Begin the copy, under the run's number where that is free. Returns the number it was given."""
        self.started, self.pending = event, {}
        self._try("start", self._start)
        return event["_id"]

    def log_metrics(self, metrics_by_name: dict[str, dict[str, list[Any]]], info: Any) -> None:
        """Store scalars, or keep them for the next time."""
        for name, found in metrics_by_name.items():
            kept = self.pending.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            for key, values in kept.items():
                values.extend(found[key] if key == "timestamps" else plain(found[key]))
        # With the heartbeat that follows at once, so that a lost server costs one time-out and not two.
        self.info = info

    def heartbeat_event(self, **event: Any) -> None:
        """Store the state of the run, and the scalars that wait."""
        self._try("heartbeat", lambda: self._beat(event))

    def completed_event(self, **event: Any) -> None:
        """Store the end of the run."""
        self._end("completed_event", event)

    def interrupted_event(self, **event: Any) -> None:
        """Store the end of the run."""
        self._end("interrupted_event", event)

    def failed_event(self, **event: Any) -> None:
        """Store the end of the run."""
        self._end("failed_event", event)

    def resource_event(self, filename: str) -> None:
        """Store a file that was read."""
        self._try("resource", lambda: self.inner.resource_event(filename))

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: Any = None) -> None:
        """Store a file that was made."""
        self._try("artifact", lambda: self.inner.artifact_event(name, filename, metadata, content_type))

    def join(self) -> None:
        """Nothing is left to wait for: each event was stored or given up."""

    def _start(self) -> None:
        if self.started is None:
            return
        number = str(self.started["_id"])
        event = {**self.started, "_id": int(number) if number.isdigit() else self.started["_id"]}
        try:
            self.inner.started_event(**_copied(event))
        except Exception as error:
            if not type(error).__name__.startswith(("DuplicateKey", "Integrity")):
                raise
            if hasattr(self.inner, "session"):
                self.inner.session.rollback()
            # MongoDB counts on by itself; SQL takes any text of up to 24 characters.
            other = None if isinstance(self.inner, MongoObserver) else f"{number}-{uuid.uuid4().hex[:8]}"
            self.inner.started_event(**_copied({**event, "_id": other}))
        self.started = None

    def _beat(self, event: dict[str, Any]) -> None:
        self._start()
        if self.pending:
            with contextlib.suppress(NotImplementedError):  # SQL and TinyDB take no scalars
                self.inner.log_metrics(metrics_by_name=self.pending, info=self.info)
            self.pending = {}
        self.inner.heartbeat_event(**self._fitting(event))

    def _end(self, method: str, event: dict[str, Any]) -> None:
        def end() -> None:
            self._start()
            getattr(self.inner, method)(**self._fitting(event))

        self._try("end", end)
        if self.lost:
            print(
                f"{self.name} has no whole record of this run; the run's folder has. Nothing of the run is lost.",
                file=sys.stderr,
            )

    def _fitting(self, event: dict[str, Any]) -> dict[str, Any]:
        """Sacred's SQL table has room for one number as the result; a whole one goes into its ``info``, as JSON."""
        event = {**event, **{key: plain(event[key]) for key in ("result", "info") if key in event}}
        result = event.get("result")
        if not isinstance(self.inner, SqlObserver) or isinstance(result, int | float | None):
            return event
        info = {**json.loads(self.inner.run.info or "{}"), **event.get("info", {}), "result": result}
        if "info" not in event:  # the last event has none
            self.inner.run.info = json.dumps(info)
            return {**event, "result": None}
        return {**event, "info": info, "result": None}

    def _try(self, what: str, action: Callable[[], None]) -> None:
        with self.lock:
            try:
                with _time_limit(self.inner, self.patience):
                    action()
            except Exception as error:
                if hasattr(self.inner, "session"):
                    with contextlib.suppress(Exception):
                        self.inner.session.rollback()
                if not self.lost:
                    print(
                        f"{self.name} failed ({what}: {type(error).__name__}: {str(error)[:200]}). The run goes on, "
                        "its folder has the record; the next heartbeat tries again.",
                        file=sys.stderr,
                    )
                self.lost = True
            else:
                if self.lost:
                    print(f"{self.name} is back, with all that it missed.", file=sys.stderr)
                self.lost = False


def _copied(event: dict[str, Any]) -> dict[str, Any]:
    """Observers write into what they are given (the list of sources); a second try needs the first state."""
    return {**event, "ex_info": dict(event["ex_info"])}


def _time_limit(inner: Any, seconds: float) -> contextlib.AbstractContextManager[Any]:
    if not isinstance(inner, MongoObserver):
        return contextlib.nullcontext()
    import pymongo

    return pymongo.timeout(seconds)


def _save_or_raise(observer: MongoObserver) -> None:
    """Let saving raise: Sacred's passes over lost connections in silence, and at the end waits for minutes, then
    writes a pickle to the temporary folder."""

    def save(attempts: int = 1) -> None:
        query = {"_id": observer.run_entry["_id"]}
        observer.runs.update_one(query, {"$set": observer.run_entry}, upsert=True)

    for name in ("save", "final_save"):
        setattr(observer, name, save)

"""Copies of runs in Weights & Biases (``--wandb=PROJECT``) and MLflow (``--mlflow=URI``).

Each is written by a process of its own, so that whatever happens there, a failure, a crash, a server that does not
answer, an exit that waits for one, harms no run: the run tells that process what happens and goes on. At its end it
waits as long as that process gets anywhere, and says where the copy is not whole.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred.commandline_options import cli_option

from experiments.recording.flat_configs import flatten
from experiments.recording.sacred_observers import plain

PATIENCE = 60.0  # seconds without an answer after which the end of a run no longer waits
PACKAGES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
CURVES = ("metrics.jsonl", "timing.jsonl")
MOST_PICTURES, LONGEST = 100, 4000  # files; characters of a traceback


class TrackerObserver:
    """An observer of Sacred's that copies runs to a tracker.

    kind: "wandb" or "mlflow". target: a project of Weights & Biases, also as ``entity/project``, or a tracking URI of
    MLflow. patience: seconds without an answer after which the end of a run no longer waits.

    In code: ``experiment.observers.append(TrackerObserver("wandb", "my-project"))``.
    """

    priority = 0

    def __init__(self, kind: str, target: str, patience: float = PATIENCE) -> None:
        if kind not in PACKAGES:
            raise ValueError(f"kind={kind!r}; choose one of {', '.join(map(repr, PACKAGES))}.")
        self.kind, self.target, self.patience = kind, target, patience
        self.folder: Path | None = None
        self.files: Any = None  # the observer of the run's folder; ``make_fault_tolerant`` knows it
        self.process: subprocess.Popen[str] | None = None
        self._told = 0
        self._places: dict[str, int] = {}
        self._known: set[str] = set()
        self._parent: Any = None
        self._lock = threading.Lock()  # heartbeats come from a thread of their own

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return PACKAGES[self.kind]

    def queued_event(self, **event: Any) -> Any:
        """A run that is to be started later has no copy yet."""
        return event["_id"]

    def started_event(
        self, ex_info: Mapping[str, Any], config: Mapping[str, Any], meta_info: Mapping[str, Any], _id: Any, **_: Any
    ) -> Any:
        """Start the process, and tell it what run this is."""
        self._told, self._places, self._known, self._parent = 0, {}, set(), None
        self._taken, self._failure, self.process = 0, "", None
        self.folder = None if self.files is None else Path(self.files.dir).resolve()
        if importlib.util.find_spec(self.kind) is None:
            self._say(f"{self.kind} is not installed: pip install 'metadensity[{self.kind}]'. The run goes on without.")
            return _id
        command = [sys.executable, "-P", str(Path(__file__).with_name("tracker_process.py")), self.kind, self.target]
        log = open(os.devnull if self.folder is None else self.folder / f"{self.kind}.log", "w")  # noqa: SIM115
        with log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the run, which then tells
            )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, args=(self.process,), daemon=True) for work in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()
        self._tell(
            event="start",
            name=f"{ex_info['name']} {_id}",
            experiment=str(ex_info["name"]),
            folder=str(self.folder or Path.cwd()),
            command=str(meta_info.get("command_line", "")),
            config=plain(flatten(config)),
        )
        return _id

    def log_metrics(self, metrics_by_name: Mapping[str, Mapping[str, Any]], info: Any) -> None:
        """What an experiment logs by Sacred, apart from what stands in its folder as well."""
        self._curves()
        for name, found in metrics_by_name.items():
            if name in self._known:
                continue
            for step, value in zip(plain(found["steps"]), plain(found["values"]), strict=True):
                self._metrics(step, {name: value})

    def heartbeat_event(self, info: Mapping[str, Any], **_: Any) -> None:
        """What the folder has by now."""
        self._curves()
        if (parent := plain(info.get("parent"))) != self._parent:
            self._parent = parent
            self._tell(event="parent", parent=parent)

    def completed_event(self, result: Any = None, **_: Any) -> None:
        """The end, with the result."""
        self._end("COMPLETED", result)

    def interrupted_event(self, **_: Any) -> None:
        """The end of a run that was stopped."""
        self._end("INTERRUPTED", None)

    def failed_event(self, fail_trace: Sequence[str] = (), **_: Any) -> None:
        """The end of a run that failed, with the traceback."""
        self._end("FAILED", {"traceback": "".join(fail_trace)[-LONGEST:]})

    def resource_event(self, filename: str) -> None:
        """Files that are read are not copied."""

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: Any = None) -> None:
        """A file that was made."""
        self._tell(event="artifact", name=name, path=str(Path(filename).resolve()))

    def join(self) -> None:
        """Nothing is left to wait for: the end waited."""

    def _curves(self) -> None:
        """Tell the lines of the run's curves that came since the last time."""
        if self.folder is None:
            return
        for file in CURVES:
            with contextlib.suppress(FileNotFoundError), open(self.folder / file, "rb") as lines:
                lines.seek(self._places.get(file, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._places[file] = self._places.get(file, 0) + len(line)
                    values = json.loads(line)
                    step = values.pop("step")
                    self._known |= values.keys()
                    self._metrics(step, values)

    def _metrics(self, step: Any, values: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        if numbers:
            self._tell(event="metrics", step=step, values=numbers, time=time.time())

    def _end(self, status: str, result: Any) -> None:
        if self.process is None:
            return
        self._curves()
        if (folder := self.folder) is not None:
            pictures = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
            for name in [each for each in pictures if self.kind not in each.parts][:MOST_PICTURES]:
                self._tell(event="picture", name=str(name), path=str(folder / name))
        self._tell(event="end", status=status, result=dict(numbers_of(plain(result))), time=time.time())
        self._lines.put(None)
        self._wait(self.process)

    def _tell(self, **event: Any) -> None:
        if self.process is not None:
            with self._lock:
                self._told += 1
                self._lines.put(json.dumps(event) + "\n")

    def _write(self, process: subprocess.Popen[str]) -> None:
        """Of a thread of its own, as the process may not read."""
        assert process.stdin is not None
        try:
            while (line := self._lines.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()
        except OSError:  # it is gone, which ``_wait`` sees
            pass
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as answers:
            for line in answers:
                said = json.loads(line)
                if "failed" in said:
                    if not self._failure:
                        self._say(f"failed ({said['failed']}). The run goes on, its folder has the record.")
                    self._failure = said["failed"]
                    continue
                self._taken, self._failure = self._taken + 1, ""
                if "place" in said:
                    print(f"{self.name}: a copy of this run goes to {said['place']}.")

    def _wait(self, process: subprocess.Popen[str]) -> None:
        """Wait for the process as long as it gets anywhere."""
        seen, until, why = self._taken, time.monotonic() + self.patience, ""
        try:
            while process.poll() is None and time.monotonic() < until:
                if seen != self._taken:
                    seen, until = self._taken, time.monotonic() + self.patience
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            if process.poll() is None:
                why = f"did not answer for {self.patience:.0f} s and "
        except KeyboardInterrupt:  # the run has ended, and the user does not want to wait
            why = "was waited for no longer and "
        self.process = None
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for thread in self._threads:
            thread.join(self.patience)
        if self._taken < self._told:
            log = "" if self.folder is None else f" {self.folder / f'{self.kind}.log'} has what it said."
            self._say(f"{why}has no whole copy of this run; the run's folder has all of it.{log}")

    def _say(self, what: str) -> None:
        print(f"{self.name}: {what}", file=sys.stderr)


def numbers_of(value: Any, name: str = "result") -> Iterator[tuple[str, float | str]]:
    """The numbers and texts within a result, by names such as "result/rows/0/shots"."""
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
            yield name, value
        return
    for key, item in items:
        yield from numbers_of(item, f"{name}/{key}")


@cli_option("-w", "--wandb")
def wandb_option(args: str, run: Any) -> None:
    """Copy the run to Weights & Biases: PROJECT or ENTITY/PROJECT.

    WANDB_MODE=offline keeps it in the run's folder, for "wandb sync".
    """
    run.observers.append(TrackerObserver("wandb", args))


@cli_option("-M", "--mlflow")
def mlflow_option(args: str, run: Any) -> None:
    """Copy the run to MLflow: a tracking URI, such as sqlite:///mlflow.db or http://localhost:5000."""
    run.observers.append(TrackerObserver("mlflow", args))

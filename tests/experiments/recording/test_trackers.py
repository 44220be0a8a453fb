"""Copies of runs in Weights & Biases and MLflow: offline, by the real packages; and what goes wrong there harms no run.

The packages that fail, hang or crash are stand-ins, modules of their names in a folder that Python looks in first.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sacred.observers import FileStorageObserver

from experiments import train
from experiments.recording.run_folder import RunFolder
from experiments.recording.tracker_process import KINDS, QUIET, serve
from experiments.recording.trackers import TrackerObserver, numbers_of

NAMED = ["hershey", "support_mean", "fast"]
SETTINGS: dict[str, Any] = {"task": {"size": 8}, "progress": False}


def run(folder: Path, *observers: TrackerObserver, **settings: Any) -> Path:
    """A training run seen by these observers, as whole as it is without them. Returns its folder."""
    train.experiment.observers[:] = [FileStorageObserver(str(folder)), *observers]
    try:
        made = train.experiment.run(named_configs=NAMED, config_updates={**SETTINGS, **settings})
    finally:
        train.experiment.observers.clear()
    found = Path(made.result["folder"])
    entry = json.loads((found / "run.json").read_text())
    assert entry["status"] == "COMPLETED"
    assert len(RunFolder(found).states()) >= 1
    return found


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    """A package of this name that is found before the real one, also by other processes."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def entries(log: bytes) -> Iterator[bytes]:
    """What a log of LevelDB's form holds, as wandb writes it: parts within blocks of 32 KiB, after a heading."""
    place, entry = 7, b""
    while place + 7 <= len(log):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        entry += log[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def test_mlflow_has_the_run_and_the_one_that_goes_on_from_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow.version")
    database = tmp_path / "mlflow.db"
    tracker = TrackerObserver("mlflow", f"sqlite:///{database}", patience=300)
    first = run(tmp_path / "runs", tracker)
    second = run(tmp_path / "runs", tracker, resume=str(first), training={"steps": 6}, allow=["training.steps"])
    assert "has no whole copy" not in (capfd.readouterr().err + (first / "mlflow.log").read_text())
    known = dict(rows(database, "select name, run_uuid from runs"))
    assert known.keys() == {f"train {first.name}", f"train {second.name}"}
    assert rows(database, "select distinct status from runs") == [("FINISHED",)]
    for folder in (first, second):
        run_id = known[f"train {folder.name}"]
        params = dict(rows(database, f"select key, value from params where run_uuid = '{run_id}'"))
        assert (params["task.name"], params["task.size"], params["model.name"]) == ("hershey", "8", "support_mean")
        tags = dict(rows(database, f"select key, value from tags where run_uuid = '{run_id}'"))
        assert Path(tags["run_folder"]) == folder.resolve()
        stored = rows(database, f"select key, step, value from metrics where run_uuid = '{run_id}'")
        curve = {(name, step): value for name, step, value in stored if not name.startswith("result/")}
        written = {
            (name, line["step"]): value
            for line in RunFolder(folder).metrics()
            for name, value in line.items()
            if name != "step" and value is not None
        }
        assert {(name.replace("@", "_"), step) for name, step in written} <= curve.keys()
        assert all(
            curve[name.replace("@", "_"), step] == pytest.approx(value) for (name, step), value in written.items()
        )
        (steps,) = [value for name, _, value in stored if name == "result/steps"]
        assert steps == (4 if folder is first else 6)
        assert list((tmp_path / "mlartifacts").glob(f"{run_id}/artifacts/samples/*.png"))
    assert "parent" in tags
    assert json.loads(tags["parent"])["run"] == first.name


def test_wandb_offline_has_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb.proto")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = run(tmp_path / "runs", TrackerObserver("wandb", "drawings", patience=300))
    assert "has no whole copy" not in capfd.readouterr().err
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(data) for data in entries(file.read_bytes())]
    (begun,) = [each.run for each in records if each.HasField("run")]
    assert (begun.project, begun.display_name) == ("drawings", f"train {folder.name}")
    config = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in begun.config.update}
    assert config["task.size"] == 8
    assert Path(config["run_folder"]) == folder.resolve()
    history: dict[tuple[str, int], Any] = {}
    for each in (each.history for each in records if each.HasField("history")):
        values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in each.item}
        history |= {(name, values["step"]): value for name, value in values.items() if "step" in values}
    for line in RunFolder(folder).metrics():
        for name, value in line.items():
            assert value is None or history[name, line["step"]] == pytest.approx(value)
    summary = {}
    for each in (each.summary for each in records if each.HasField("summary")):
        summary |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in each.update}
    assert (summary["status"], summary["result/steps"]) == ("COMPLETED", 4)
    assert list(folder.glob("wandb/offline-run-*/files/media/images/**/*.png"))
    assert [each.exit.exit_code for each in records if each.HasField("exit")] == [0]


RECORDING = """
import json, os, pathlib
place = pathlib.Path({place!r})
class Settings:
    def __init__(self, **_): pass
class Image:
    def __init__(self, path): self.path = path
class Run:
    url = "here"
    def __init__(self): self.config = self.summary = self
    def update(self, values, **_): self.log(values)
    def define_metric(self, *_, **__): pass
    def log(self, values): self.write({{k: str(getattr(v, "path", v)) for k, v in values.items()}})
    def write(self, what): place.open("a").write(json.dumps(what) + "\\n")
    def finish(self, exit_code): self.write({{"exit_code": exit_code}})
def init(**settings):
    run = Run()
    run.write({{name: str(os.environ.get(name)) for name in {quiet!r}}})
    run.write({{"name": settings["name"], **{{k: str(v) for k, v in settings["config"].items()}}}})
    return run
"""


@pytest.mark.parametrize(
    ("stopped", "status", "exit_code"), [(RuntimeError, "FAILED", 1), (KeyboardInterrupt, "INTERRUPTED", 130)]
)
def test_a_run_that_ends_early_says_so_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: type[BaseException], status: str, exit_code: int
) -> None:
    source = RECORDING.format(place=str(tmp_path / "seen"), quiet=sorted(QUIET))
    stand_in(tmp_path / "packages", monkeypatch, "wandb", source)

    def stop(*_: Any, **__: Any) -> None:
        raise stopped("in the middle")

    monkeypatch.setattr(train, "_samples", stop)
    with pytest.raises(stopped):
        run(tmp_path / "runs", TrackerObserver("wandb", "drawings"))
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert seen[0] == QUIET  # before the package is imported
    assert {"status": status}.items() <= seen[-2].items()
    assert ("in the middle" in seen[-2].get("result/traceback", "")) == (status == "FAILED")
    assert seen[-1] == {"exit_code": exit_code}
    assert {line["step"] for line in seen if "train/nats_per_dim" in line} == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise OSError('no disk')", "failed (start: OSError: no disk)"),
        ("import os\nos._exit(3)", "has no whole copy"),
        ("import time\ntime.sleep(600)", "did not answer for 1 s"),
        (
            "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)",
            "did not answer for 1 s",
        ),
    ],
    ids=["fails", "crashes", "hangs", "hangs at all costs"],
)
def test_whatever_happens_there_the_run_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    stand_in(tmp_path / "packages", monkeypatch, "wandb", source)
    tracker = TrackerObserver("wandb", "drawings", patience=1.0 if "answer" in said else 60.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    began = time.monotonic()
    run(tmp_path / "runs", tracker)
    assert time.monotonic() - began < 300
    err = capfd.readouterr().err
    assert f"Weights & Biases: {said}" in err
    assert err.count("has no whole copy of this run; the run's folder has all of it.") == 1


def test_a_package_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run(tmp_path / "runs", TrackerObserver("mlflow", "sqlite:///nowhere.db"))
    assert "MLflow: mlflow is not installed: pip install 'metadensity[mlflow]'." in capfd.readouterr().err
    with pytest.raises(ValueError, match="choose one of 'wandb', 'mlflow'"):
        TrackerObserver("neptune", "x")


class Flaky:
    """Fails at its first metrics, twice."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.failures = 2

    def start(self, event: dict[str, Any]) -> str:
        return "there"

    def metrics(self, event: dict[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.seen.append(event["step"])

    def end(self, event: dict[str, Any]) -> None:
        self.seen.append(event["status"])


def test_what_failed_is_tried_again_in_order_and_a_killed_run_has_an_end() -> None:
    tracker, answers = Flaky(), list[dict[str, Any]]()
    events = [{"event": "start"}, *({"event": "metrics", "step": step} for step in range(4))]
    serve(tracker, iter(map(json.dumps, events)), answers.append)
    assert tracker.seen == [0, 1, 2, 3, "KILLED"]
    failed = {"failed": "metrics: ConnectionError: away"}
    assert answers == [{"taken": 1, "place": "there"}, failed, failed, *[{"taken": 1}] * 5]


def test_numbers_within_a_result() -> None:
    result = {"rows": [{"nats": 1.5, "bad": float("nan")}, {"nats": None}], "folder": "runs/1", "ok": True}
    assert dict(numbers_of(result)) == {"result/rows/0/nats": 1.5, "result/folder": "runs/1", "result/ok": True}


@pytest.mark.parametrize("kind", KINDS)
def test_the_flags_add_guarded_copies(tmp_path: Path, kind: str) -> None:
    train.experiment.observers[:] = [FileStorageObserver(str(tmp_path))]
    made = train.experiment._create_run(named_configs=NAMED, config_updates=SETTINGS, options={f"--{kind}": "drawings"})
    train.experiment.observers.clear()
    (copy,) = [each.inner for each in made.observers if hasattr(each, "inner")]
    assert (copy.kind, copy.target, copy.files) == (kind, "drawings", made.observers[0])

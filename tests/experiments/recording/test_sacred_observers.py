"""Real runs into files, SQLite, TinyDB and MongoDB; and databases that fail or vanish harm no run.

MongoDB is nx-27017, a server of its wire protocol from the package index, on a port of this machine: real sockets and
pymongo, but not MongoDB itself, which no package index has.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver, TinyDbObserver

from experiments import train
from experiments.recording.command_line import make_experiment
from experiments.recording.run_folder import RunFolder, folder_of
from experiments.recording.run_table import read_run
from experiments.recording.sacred_observers import AtomicFileObserver, FaultTolerantObserver, make_fault_tolerant
from metadensity.files import JsonLines

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*declarative_base.*:sqlalchemy.exc.MovedIn20Warning"),
    pytest.mark.filterwarnings("ignore:Object of type <Experiment> not in session:sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Sacred's TinyDB observer closes none of its files
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What Sacred left open is closed while its warnings are let pass."""
    yield
    gc.collect()


NAMED = ["hershey", "support_mean", "fast"]
SETTINGS: dict[str, Any] = {"task": {"size": 8}, "progress": False}


def run(*observers: Any, beat: float = 10.0, **settings: Any) -> Any:
    """A training run seen by these observers."""
    train.experiment.observers[:] = observers
    made = train.experiment._create_run(named_configs=NAMED, config_updates={**SETTINGS, **settings})
    made.beat_interval = beat
    made()
    return made


def require_whole(folder: Path) -> None:
    """The file record of a finished run, with everything in it."""
    entry = json.loads((folder / "run.json").read_text(), parse_constant=pytest.fail)
    assert entry["status"] == "COMPLETED"
    assert entry["result"]["steps"] == 4
    assert len(RunFolder(folder).states()) == 2
    assert [record["step"] for record in RunFolder(folder).metrics() if "train/nats_per_dim" in record] == [1, 2, 3, 4]
    assert "parameters" in (folder / "cout.txt").read_text()


class Server:
    """A server of MongoDB's protocol."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [
            str(Path(sys.executable).with_name("nx-27017")),
            "--db",
            str(self.folder / "db"),
            "-p",
            str(self.port),
        ]
        files = ["--log-file", str(self.folder / "log"), "--pid-file", str(self.folder / "pid")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*command, *files], cwd=self.folder, **quiet)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "the server ended by itself"
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("nx-27017", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("nx-27017 is not installed (extra dev), so nothing here speaks MongoDB's protocol")
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    yield made
    made.stop()


@pytest.fixture
def mongo(server: Server) -> Iterator[Any]:
    import pymongo

    client: Any = pymongo.MongoClient(server.url)
    yield client
    client.close()


def test_files(tmp_path: Path) -> None:
    made = run(FileStorageObserver(str(tmp_path)), beat=0.05)
    assert [type(observer) for observer in made.observers] == [AtomicFileObserver]
    require_whole(tmp_path / "1")
    scalars = JsonLines(tmp_path / "1" / "scalars.jsonl").read()
    assert {record["name"] for record in scalars} >= {"validation/cautious", "validation/nats_per_dim"}
    assert [record["step"] for record in scalars if record["name"] == "validation/cautious"] == [2, 4]
    assert not (tmp_path / "1" / "metrics.json").exists(), "Sacred rewrites this file as a whole at each heartbeat"


def test_sqlite(tmp_path: Path) -> None:
    database = tmp_path / "runs.sqlite"
    for _ in range(2):
        run(FileStorageObserver(str(tmp_path / "runs")), SqlObserver(f"sqlite:///{database}"))
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_id, status, config, info FROM run").fetchall()
    connection.close()
    assert [(row[0], row[1]) for row in rows] == [("1", "COMPLETED"), ("2", "COMPLETED")]
    assert json.loads(rows[0][2])["task"]["size"] == 8
    info = json.loads(rows[0][3])  # Sacred's column for the result is one number
    assert (info["result"]["steps"], info["lineage"]["kind"]) == (4, "trained")
    require_whole(tmp_path / "runs" / "2")


def test_tinydb(tmp_path: Path) -> None:
    from sacred.observers.tinydb_hashfs import TinyDbReader

    run(FileStorageObserver(str(tmp_path / "runs")), TinyDbObserver(str(tmp_path / "tiny")))
    (entry,) = TinyDbReader(str(tmp_path / "tiny")).fetch_metadata(exp_name="train")
    assert (entry["_id"], entry["status"], entry["config"]["task"]["size"]) == (1, "COMPLETED", 8)
    assert entry["info"]["lineage"]["kind"] == "trained"
    require_whole(tmp_path / "runs" / "1")


def test_mongodb(tmp_path: Path, server: Server, mongo: Any) -> None:
    run(FileStorageObserver(str(tmp_path / "runs")), guarded(mongo))
    entry = mongo.sacred.runs.find_one({"_id": 1})
    assert (entry["status"], entry["config"]["task"]["size"], entry["result"]["steps"]) == ("COMPLETED", 8, 4)
    assert entry["info"]["lineage"]["kind"] == "trained"
    assert mongo.sacred.metrics.find_one({"name": "validation/cautious", "run_id": 1})["steps"] == [2, 4]
    require_whole(tmp_path / "runs" / "1")
    # Another folder, whose run 1 would be the database's: it gets the next number there, and both are kept.
    run(FileStorageObserver(str(tmp_path / "others")), guarded(mongo))
    assert sorted(item["_id"] for item in mongo.sacred.runs.find({})) == [1, 2]
    require_whole(tmp_path / "others" / "1")


def during(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do something in the middle of training, while heartbeats go on."""
    metrics = train.FolderObserver.metrics

    def watched(self: Any, at: int, values: dict[str, float]) -> None:
        metrics(self, at, values)
        if at == step and "train/nats_per_dim" in values:
            action()

    monkeypatch.setattr(train.FolderObserver, "metrics", watched)


PATIENT, IMPATIENT = 120.0, 1.0  # seconds: for a server that is there, on a busy machine, and for one that is not


def guarded(client: Any, patience: float = PATIENT) -> FaultTolerantObserver:
    return FaultTolerantObserver(MongoObserver(client=client, db_name="sacred"), patience)


def lose(server: Server, observer: FaultTolerantObserver) -> None:
    """Stop the server, and wait until a heartbeat has met that."""
    with observer.lock:
        observer.patience = IMPATIENT
        server.stop()
    wait_until(lambda: observer.lost)


def bring_back(server: Server, observer: FaultTolerantObserver) -> None:
    """Start the server again, and wait until a heartbeat has stored what was missed."""
    server.start()
    with observer.lock:
        observer.patience = PATIENT
    wait_until(lambda: not observer.lost)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENT
    while not true():
        assert time.monotonic() < until, "no heartbeat came"
        time.sleep(0.02)


def test_a_lost_mongodb_loses_no_run(
    tmp_path: Path, server: Server, mongo: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    observer = guarded(mongo)
    during(monkeypatch, 3, lambda: lose(server, observer))
    began = time.monotonic()
    made = run(FileStorageObserver(str(tmp_path)), observer, beat=0.1)
    assert made.status == "COMPLETED"
    require_whole(tmp_path / "1")
    assert time.monotonic() - began < PATIENT, "the run waited for a server that was gone"
    said = capfd.readouterr().err
    assert said.count("The run goes on") == 1
    assert "MongoObserver has no whole record of this run; the run's folder has." in said


def test_a_mongodb_that_comes_back_gets_what_it_missed(
    tmp_path: Path, server: Server, mongo: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    observer = guarded(mongo)
    during(monkeypatch, 1, lambda: lose(server, observer))
    with monkeypatch.context() as patch:
        during(patch, 4, lambda: bring_back(server, observer))
        made = run(FileStorageObserver(str(tmp_path)), observer, beat=0.1)
    assert made.status == "COMPLETED"
    said = capfd.readouterr().err
    assert said.count("The run goes on") == 1
    assert said.count("is back, with all that it missed") == 1
    assert mongo.sacred.runs.find_one({"_id": 1})["status"] == "COMPLETED"
    assert mongo.sacred.metrics.find_one({"name": "validation/cautious"})["steps"] == [2, 4]
    require_whole(tmp_path / "1")


def test_a_mongodb_that_is_not_there_at_the_start(
    tmp_path: Path, server: Server, mongo: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    assert run(FileStorageObserver(str(tmp_path)), guarded(mongo, IMPATIENT)).status == "COMPLETED"
    require_whole(tmp_path / "1")
    assert "MongoObserver failed (start: " in capfd.readouterr().err


def test_an_observer_that_always_fails_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(RunObserver):  # type: ignore[misc]
        priority = 99

        def started_event(self, *arguments: Any, **event: Any) -> Any:
            raise RuntimeError("no")

        heartbeat_event = completed_event = log_metrics = started_event

    assert run(FileStorageObserver(str(tmp_path)), Broken(), beat=0.05).status == "COMPLETED"
    require_whole(tmp_path / "1")
    assert capfd.readouterr().err.count("Broken failed (start: RuntimeError: no)") == 1
    with pytest.raises(RuntimeError, match="no"):  # Sacred alone would have stopped the run
        Broken().started_event()


def test_queued_observers_are_refused(tmp_path: Path) -> None:
    from sacred.observers import QueueObserver

    queued = QueueObserver(FileStorageObserver(str(tmp_path)))
    with pytest.raises(ValueError, match=r"QueueObserver hangs in Sacred 0.8.7"):
        make_fault_tolerant([queued])


def test_the_file_record_is_strict_and_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = AtomicFileObserver(str(tmp_path))
    record.dir = str(tmp_path)
    record.save_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}}, "run.json")
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": None}}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record.save_json({"a": 1}, "run.json")
    assert (tmp_path / "run.json").read_text() == text


def test_scalars_cost_the_same_in_a_long_run(tmp_path: Path) -> None:
    """Bytes moved for one more scalar, with few and with many before it."""
    record = AtomicFileObserver(str(tmp_path))
    record.dir = str(tmp_path)

    def log(count: int) -> int:
        values = {"steps": [1] * count, "values": [0.5] * count, "timestamps": [datetime(2026, 1, 1)] * count}
        before = moved()
        record.log_metrics({"loss": values}, {})
        return moved() - before

    def moved() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"]) + int(counts["wchar"])

    few = log(1)
    log(5000)
    assert log(1) < few + 2000


def test_sacreds_flags_add_guarded_observers(tmp_path: Path) -> None:
    made = train.experiment._create_run(options={"--sql": f"sqlite:///{tmp_path}/x", "--file_storage": str(tmp_path)})
    kinds = {type(observer): getattr(observer, "name", "") for observer in made.observers}
    assert kinds.get(FaultTolerantObserver) == "SqlObserver"
    assert AtomicFileObserver in kinds


def test_numbers_of_any_library_are_plain_numbers(tmp_path: Path) -> None:
    experiment = make_experiment("numbers")

    @experiment.main
    def main(_run: Any) -> Any:
        for value in (
            np.float32(1.5),
            torch.tensor(2.5),
            np.int64(3),
            torch.tensor(4.0, dtype=torch.bfloat16),
            math.nan,
        ):
            _run.log_scalar("value", value)
        return {
            **{"float32": np.float32(1.5), "float64": np.float64(2.5), "int": np.int64(3), "bool": np.bool_(True)},
            **{"tensor": torch.tensor(4.5, requires_grad=True), "one": torch.tensor([5.0]), "array": np.arange(3)},
            **{"path": tmp_path, "nan": float("nan"), "infinite": np.float32("inf"), "tuple": (1, np.float16(2))},
            **{"other": {3: object}, "fraction": Fraction(1, 4)},
        }

    experiment.observers.append(FileStorageObserver(str(tmp_path)))
    experiment.run()
    text = (tmp_path / "1" / "run.json").read_text() + (tmp_path / "1" / "scalars.jsonl").read_text()
    assert "py/" not in text
    result = json.loads((tmp_path / "1" / "run.json").read_text())["result"]
    assert result == {
        **{"float32": 1.5, "float64": 2.5, "int": 3, "bool": True, "tensor": 4.5, "one": [5.0], "array": [0, 1, 2]},
        **{"path": str(tmp_path), "nan": None, "infinite": None, "tuple": [1, 2.0], "other": {"3": str(object)}},
        "fraction": 0.25,
    }
    assert [line["value"] for line in JsonLines(tmp_path / "1" / "scalars.jsonl").read()] == [1.5, 2.5, 3, 4.0, None]
    record = read_run(tmp_path / "1")
    assert (record.metrics["float32"], record.metrics["tensor"]) == (1.5, 4.5)


def test_a_number_alone_is_a_result(tmp_path: Path) -> None:
    database = tmp_path / "runs.sqlite"
    experiment = make_experiment("number")
    experiment.main(lambda: np.float32(1.5))
    experiment.observers += [FileStorageObserver(str(tmp_path)), SqlObserver(f"sqlite:///{database}")]
    experiment.run()
    assert read_run(tmp_path / "1").metrics == {"result": 1.5}
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT result FROM run").fetchall() == [(1.5,)]
    connection.close()


def test_runs_that_nothing_observes_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path))
    monkeypatch.setattr(time, "strftime", lambda _: "20261127-142036")
    experiment = make_experiment("unobserved")
    experiment.main(lambda _run: [str(folder_of(_run)), str(folder_of(_run))])
    first, second = (experiment.run(options={"--unobserved": True}).result for _ in range(2))
    assert first[0] == first[1] != second[0] == second[1]
    assert sorted(path.name for path in (tmp_path / "unobserved").iterdir()) == ["20261127-142036", "20261127-142036-2"]

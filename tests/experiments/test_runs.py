"""Finding runs again: filters, order, differences, removal; a thousand of them quickly; damage hides nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from experiments import evaluate, train
from experiments import runs as command
from experiments.recording.run_filters import FilterError, parse_filter
from experiments.recording.run_table import read_run, read_runs, runs_table, select, sort_runs


def make(root: Path, number: int, **more: Any) -> Path:
    """A run folder as Sacred and training write it."""
    folder = root / str(number)
    folder.mkdir(parents=True)
    began = datetime(2026, 1, 1) + timedelta(minutes=number)
    entry = {
        "experiment": {"name": "train", "sources": [["experiments/train.py", "_sources/train_0.py"]] * 30},
        "host": {"cpu": "x", "ENV": {}},
        "meta": {"options": {f"--flag{i}": None for i in range(20)}},
        "status": "COMPLETED",
        "start_time": began.isoformat(),
        "stop_time": (began + timedelta(seconds=90.5)).isoformat(),
        "heartbeat": began.isoformat(),
        "result": {"validation/cautious": 1 / (1 + number), "steps": 4, "picture": "x.png"},
    }
    entry |= more.pop("entry", {})
    config = {
        "task": {"name": "hershey", "size": 20, "seed": 0},
        "model": {"name": "attention" if number % 2 else "conditional", "planes": 8 * (number % 5)},
        "training": {"steps": 4, "shots": [0, 1, 2, 4] if number % 3 else [1, 2], "learning_rate": 1e-3},
        "seed": number,
    }
    (folder / "run.json").write_text(json.dumps(entry, indent=2))
    (folder / "config.json").write_text(json.dumps({**config, **more}, indent=2))
    lines = [json.dumps({"step": step, "train/nats_per_dim": 0.5 / step}) for step in range(1, 400)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(1, 13):
        make(tmp_path / "runs", number)
    return tmp_path / "runs"


def numbers(found: Any) -> list[int]:
    return [int(record.run) for record in found]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], list(range(1, 13))),
        (["model.name=attention"], [1, 3, 5, 7, 9, 11]),
        (["model.name!=attention"], [2, 4, 6, 8, 10, 12]),
        (["model.name=attention", "task.shots=4"], [1, 5, 7, 11]),  # by the last part of the name: training.shots
        (["training.shots=[1, 2]"], [3, 6, 9, 12]),
        (["training.shots!=4"], [3, 6, 9, 12]),
        (["model.planes>=24"], [3, 4, 8, 9]),
        (["planes<8"], [5, 10]),
        (["seed=3"], [3]),
        (["run=3"], [3]),
        (["status=COMPLETED", "seed<=2"], [1, 2]),
        (["status=FAILED"], []),
        (["cautious<0.1"], [10, 11, 12]),
        (["train/nats_per_dim<0.002"], list(range(1, 13))),
        (["model.name>3"], []),
    ],
    ids=str,
)
def test_filters(where: list[str], expected: list[int], root: Path) -> None:
    assert numbers(select(read_runs(root), where)) == expected


def test_filters_that_name_nothing_are_refused(root: Path) -> None:
    with pytest.raises(FilterError, match=r"No run has 'model.plans'. There are, for example: model.planes"):
        select(read_runs(root), ["model.plans=3"])
    with pytest.raises(FilterError, match=r"'attention' is no filter. Write NAME=VALUE"):
        select(read_runs(root), ["attention"])
    assert parse_filter("a.b >= 1e-3") == ("a.b", ">=", 1e-3)
    assert parse_filter("resume=None") == ("resume", "=", None)


def test_order(root: Path) -> None:
    found = read_runs(root)
    assert numbers(sort_runs(found, "validation/cautious")) == list(range(12, 0, -1))
    assert numbers(sort_runs(found, "run", descending=True)) == list(range(12, 0, -1))  # 10 after 9
    (root / "4" / "run.json").write_text('{"status": "RUNN')  # without a result
    for descending in (False, True):
        assert numbers(sort_runs(read_runs(root), "validation/cautious", descending))[-1] == 4


def test_status_of_runs_that_say_nothing_any_more(root: Path) -> None:
    now = datetime.now(UTC)
    for number, silent in ((1, 20), (2, 500)):
        beat = (now - timedelta(seconds=silent)).replace(tzinfo=None).isoformat()
        shutil.rmtree(root / str(number))
        make(root, number, entry={"status": "RUNNING", "heartbeat": beat, "stop_time": None})
    (root / "3" / "run.json").write_text('{"status": "COMPL')
    (root / "4" / "config.json").unlink()
    (root / "5" / "lineage.json").write_text("{")
    (root / "13").mkdir()
    (root / "_sources").mkdir()
    found = {record.run: record for record in read_runs(root)}
    assert [found[str(number)].status for number in (1, 2, 3, 4, 5, 13)] == [
        *("RUNNING", "DIED", "UNKNOWN", "COMPLETED", "COMPLETED", "UNKNOWN")
    ]
    assert found["3"].problem is not None
    assert "run.json is no JSON" in found["3"].problem
    assert found["3"].config["model.name"] == "attention"
    assert "_sources" not in found


def test_the_table(root: Path) -> None:
    table = runs_table(root, ["model.name=attention"], sort="cautious")
    assert list(table.index) == ["11", "9", "7", "5", "3", "1"]
    assert list(table.columns[:3]) == ["status", "experiment", "kind"]
    assert table.loc["9", "validation/cautious"] == pytest.approx(0.1)
    assert table.loc["9", "seconds"] == 90.5
    assert table.loc["9", "training.shots"] == [1, 2]
    assert table["train/nats_per_dim"].tolist() == [0.5 / 399] * 6  # the last value of each curve
    assert runs_table(root, ["status=FAILED"]).empty
    with pytest.raises(FileNotFoundError, match=r"no folder of runs at .*nowhere. Name one with METADENSITY_RUNS"):
        runs_table(root / "nowhere")


def test_the_command_line(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_RUNS", str(root))
    assert (
        command.main(["model.name=attention", "--sort", "cautious", "--columns", "training.shots", "--limit", "2"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "status", "experiment"]
    assert [line.split()[0] for line in lines[2:4]] == ["11", "9"]
    assert "1,2" in lines[3]
    assert lines[4] == "2 runs"
    assert command.main(["list", "seed=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model.name"] == "attention"
    assert command.main(["show", "3"]) == 0
    shown = capsys.readouterr().out
    for part in ("train, COMPLETED", "2026-01-01T00:03:00 UTC, 90 s", "model.planes: 24", "metrics.jsonl"):
        assert part in shown
    assert command.main(["diff", "2", "3"]) == 0
    assert "model.planes    16 -> 24" in capsys.readouterr().out
    assert command.main(["show", "99"]) == 1
    assert "There is no run 99" in capsys.readouterr().err
    assert command.main(["colour=red"]) == 1
    assert "No run has 'colour'" in capsys.readouterr().err


def descend(folder: Path, parent: str, kind: str = "resumed") -> None:
    reference = {"run": parent, "place": f"../{parent}", "id": None, "file": "x", "sha256": "0", "step": 2}
    (folder / "lineage.json").write_text(json.dumps({"id": "a", "kind": kind, "parents": [reference]}))


def test_removal_asks_and_keeps_what_others_came_from(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def there() -> set[int]:
        return {int(path.name) for path in root.iterdir()}

    descend(root / "5", "3")
    descend(root / "8", "5", "evaluated")
    beat = datetime.now(UTC).replace(tzinfo=None).isoformat()
    shutil.rmtree(root / "7")
    make(root, 7, entry={"status": "RUNNING", "heartbeat": beat})
    attention = ["prune", "--root", str(root), "model.name=attention"]
    for answer in ("n", "", "never"):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert command.main(attention) == 1
        assert there() == set(range(1, 13))
    capsys.readouterr()
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    assert command.main(attention) == 0
    assert there() == set(range(1, 13)) - {1, 9, 11}
    assert asked == [f"Remove 3 runs with all their files from {root}? [y/N] "]
    said = capsys.readouterr().out
    for reason in ("Run 7 stays: it is running", "Run 5 stays: run 8 came from it", "Run 3 stays: run 5 came from it"):
        assert reason in said
    assert command.main(["prune", "--root", str(root), "--yes", "3", "5", "8"]) == 0  # the whole family may go
    assert there() == {2, 4, 6, 7, 10, 12}
    with pytest.raises(SystemExit):
        command.main(["prune", "--yes"])  # nothing named is not everything
    assert len(there()) == 6


def test_nothing_is_removed_without_a_terminal(root: Path) -> None:
    command = [sys.executable, "-m", "experiments.runs", "prune", "--root", str(root), "seed=3"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "Nothing was removed" in done.stdout) == (1, True), done.stderr
    assert (root / "3").is_dir()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thousand")
    for number in range(1, 1001):
        make(root, number)
    return root


def test_a_thousand_runs_in_under_two_seconds(thousand: Path) -> None:
    """Seconds of the processor, as the machine may be busy elsewhere: the whole command, and the table in Python."""
    command = [sys.executable, "-m", "experiments.runs", "list", "--root", str(thousand), "model.name=attention"]
    command += ["task.shots=4", "--sort", "validation/cautious"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "333 runs"
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 2
    began = time.process_time()
    table = runs_table(thousand, ["model.name=attention", "task.shots=4"], sort="validation/cautious")
    assert time.process_time() - began < 2
    assert len(table) == 333


def test_listing_loads_nothing_heavy(repo_root: Path) -> None:
    code = (
        "import sys, experiments.runs; print([name for name in ('torch', 'sacred', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr


def test_real_runs_are_found(script: Any, runs: Path) -> None:
    trained = script(train.experiment, "hershey", "support_mean", "fast", task={"size": 12}).result
    scored = script(evaluate.experiment, "fast", run=trained["folder"], baselines=False)
    number = Path(trained["folder"]).name
    record = read_run(Path(scored.result["folder"]))
    assert (record.status, record.experiment, record.parents) == ("COMPLETED", "evaluate", [number])
    for row in scored.result["rows"]:
        assert record.metrics[f"nats_per_image_{row['shots']}_shots"] == row["nats_per_image"]
    found = select(read_runs(runs), [f"parents={number}", "kind=evaluated"])
    assert [item.folder.name for item in found] == [Path(scored.result["folder"]).name]
    trained_again = runs_table(runs, ["experiment=train", "model.name=support_mean"])
    assert trained_again.loc[number, "validation/cautious"] == pytest.approx(trained["validation/cautious"])
    assert os.environ["METADENSITY_RUNS"] == str(runs)

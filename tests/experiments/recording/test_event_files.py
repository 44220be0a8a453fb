"""Event files are read whole, and compared with the record: what is missing, altered or beyond it is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from experiments import runs as command
from experiments import train
from experiments.recording.event_files import differences, read_events
from experiments.recording.folder_observer import FolderObserver
from metadensity.files import DamagedFileError


def test_no_image_and_no_point_is_left_out(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(10):
            writer.add_image("samples", np.full((4, 4, 3), step, np.uint8), step, dataformats="HWC")
        for step in range(10_050):
            writer.add_scalar("loss", step, step)
    events = read_events(tmp_path)
    assert [event.step for event in events.Images("samples")] == list(range(10))
    assert [event.value for event in events.Scalars("loss")] == list(range(10_050))
    default = EventAccumulator(str(tmp_path)).Reload()  # the negative control: TensorBoard's own choice
    assert len(default.Images("samples")) == 4
    assert len(default.Scalars("loss")) == 10_000


@pytest.fixture(scope="module")
def trained(script: Any) -> Path:
    task = {"name": "templates", "size": 4, "classes": 6}
    return Path(script(train.experiment, "independent", "fast", task=task).result["folder"])


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "7"))


def show(run: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What ``runs show`` says of the curves."""
    capsys.readouterr()
    assert command.main(["show", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("curves:")), len(lines))
    return lines[start : lines.index("files:")] if start < len(lines) else []


def rewrite(run: Path, change: Any) -> None:
    """Change the records of metrics.jsonl, each with its number."""
    path = run / "metrics.jsonl"
    records = [change(number, json.loads(line)) for number, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


SAME = ["curves: the event files in tensorboard/ have every number of metrics.jsonl"]
DIFFER = "curves: the event files in tensorboard/ differ from metrics.jsonl, which is the record:"


def test_a_run_as_it_is_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(run, capsys) == SAME


def test_where_they_differ_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SummaryWriter(str(run / "tensorboard")) as writer:  # a further file, as of a second process
        writer.add_scalar("train/nats_per_dim", 99.0, 2)
        writer.add_scalar("train/nats_per_dim", 0.5, 77)
        writer.add_scalar("unheard_of", 1.0, 1)
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    assert first["step"] == 2
    said = show(run, capsys)
    assert said == [
        DIFFER,
        "  train/nats_per_dim: 1 of 5 values in the event files alone, at step 77",
        "  train/nats_per_dim: 1 of 5 values another number, at step 2 "
        f"({first['train/nats_per_dim']:g} in the record, 99 in the event files)",
        "  unheard_of: 1 of 1 values in the event files alone, at step 1",
    ]


def test_what_the_event_files_lack_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def further(_: int, record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "train/loss": 0.5} if record["step"] in (2, 3) else record

    rewrite(run, further)
    assert show(run, capsys) == [DIFFER, "  train/loss: 2 of 2 values missing from the event files, at step 2 to 3"]
    (events,) = (run / "tensorboard").glob("*tfevents*")
    events.write_bytes(events.read_bytes()[: events.stat().st_size // 3])  # as where the process was killed
    lacking = show(run, capsys)
    assert lacking[0] == DIFFER
    assert any("missing from the event files, at step" in line for line in lacking[1:])
    events.unlink()
    assert len(show(run, capsys)) > 3
    shutil.rmtree(run / "tensorboard")
    assert show(run, capsys) == []


def test_a_difference_below_float32_is_none(run: Path) -> None:
    rewrite(run, lambda _, record: {k: v if k == "step" or v is None else v * (1 + 1e-12) for k, v in record.items()})
    assert differences(run) == []
    rewrite(run, lambda _, record: {k: v if k == "step" or v is None else v * (1 + 1e-5) for k, v in record.items()})
    assert len(differences(run)) > 2


def test_infinite_numbers_stand_in_neither(tmp_path: Path) -> None:
    observer = FolderObserver(tmp_path, None, {})
    observer.metrics(1, {"validation/nats_per_dim": float("inf"), "train/images_per_second": 5.0})
    observer.metrics(2, {"validation/nats_per_dim": 0.1})
    observer.close()
    assert differences(tmp_path) == []


def test_damage_is_said_and_hides_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (events,) = (run / "tensorboard").glob("*tfevents*")
    data = bytearray(events.read_bytes())
    data[100] ^= 255
    events.write_bytes(bytes(data))
    said = show(run, capsys)
    assert said[0] == DIFFER
    assert len(said) > 1
    path = run / "metrics.jsonl"
    path.write_text("no JSON\n" + path.read_text())
    assert "is no JSON object" in show(run, capsys)[1]
    with pytest.raises(DamagedFileError, match="line 1, is no JSON object"):
        differences(run)


def test_a_running_run_is_not_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard writes its curves up to two minutes later."""
    from datetime import UTC, datetime

    entry = json.loads((run / "run.json").read_text())
    beat = datetime.now(UTC).replace(tzinfo=None).isoformat()
    (run / "run.json").write_text(json.dumps({**entry, "status": "RUNNING", "heartbeat": beat}))
    (run / "metrics.jsonl").write_text("")
    assert show(run, capsys) == []


def test_listing_still_imports_nothing_heavy(run: Path) -> None:
    program = (
        "import sys; from experiments import runs; runs.main(['list', '--root', sys.argv[1]]);"
        "print([name for name in ('torch', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(run.parent)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

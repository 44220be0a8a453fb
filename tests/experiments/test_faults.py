"""Killed at any moment, on a full disk, with damaged files: the last state is whole, and the run goes on exactly."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from experiments import train
from experiments.recording import lineage
from experiments.recording.resume import newest_state
from experiments.recording.run_folder import RunFolder, step_of
from metadensity import files
from metadensity.files import DamagedFileError, read_tensors

from .killed import SETTINGS

# Every fifth write or so, of Sacred's records, of states and of best models; and lines of metrics.
MOMENTS = [f"{event}:{number}" for event in ("half", "before", "after") for number in (1, 4, 7, 9, 12, 13, 14, 15)]
MOMENTS += [f"line:{number}" for number in range(0, 8, 2)]


@pytest.fixture(scope="module")
def whole(script: Any) -> RunFolder:
    run = script(train.experiment, "hershey", "conditional", "fast", **SETTINGS)
    return RunFolder(run.result["folder"])


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> list[dict[str, Any]]:
    """What became of each run that was killed."""
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path_factory.mktemp("killed")), *MOMENTS],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"moment"')]


def require_equal(run: RunFolder, whole: RunFolder) -> None:
    """The end of a chain of runs is that of the run that was never interrupted, to the bit."""
    (one, head), (other, other_head) = (read_tensors(folder.states()[-1]) for folder in (run, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {key: head[key] for key in ("step", "best", "losses", "sha256")} == {
        key: other_head[key] for key in ("step", "best", "losses", "sha256")
    }
    best, other_best = metadensity.load(run.best).provenance, metadensity.load(whole.best).provenance
    assert (best["weights_sha256"], best["step"]) == (other_best["weights_sha256"], other_best["step"])
    assert lineage.joined_lines(run) == (whole.path / "metrics.jsonl").read_bytes()


def test_killed_at_any_moment_a_run_ends_with_the_same_bits(lives: list[dict[str, Any]], whole: RunFolder) -> None:
    assert [life["moment"] for life in lives] == MOMENTS  # one thread, which these tiny nets would have anyway
    ended = 0
    for life in lives:
        last = life["said"].removeprefix("NothingToDoError: ").partition(" ")[0]  # killed once its record was complete
        if last.startswith("/"):
            require_equal(RunFolder(last), whole)
            ended += life["killed"]
        else:  # before there was anything to go on from
            assert "no state to resume from" in life["said"] or "is this a run?" in life["said"], life
    assert ended > 0.6 * len(MOMENTS)
    assert sum(life["lives"] == 3 for life in lives) > 5, "too few runs were killed twice to test that"


def test_the_comparison_can_fail(whole: RunFolder, script: Any) -> None:
    """The control: a run that differs in one setting is found to differ."""
    other = RunFolder(script(train.experiment, "hershey", "conditional", "fast", seed=1, **SETTINGS).result["folder"])
    with pytest.raises(AssertionError):
        require_equal(other, whole)
    shutil.copy(whole.states()[-1], other.states()[-1])  # the same state, but other metrics and another best
    with pytest.raises(AssertionError):
        require_equal(other, whole)


@pytest.fixture
def copy(whole: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(whole.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def test_the_best_model_of_an_abandoned_branch_is_not_inherited(copy: RunFolder, whole: RunFolder, script: Any) -> None:
    """The state of step 3 goes on with the best of step 2, although that of step 4 or 6 is there."""
    assert [step_of(path) for path in copy.states()] == [3, 6]
    assert step_of(copy.bests()[0]) == 2
    copy.states()[-1].unlink()
    run = script(train.experiment, "hershey", "conditional", "fast", resume=str(copy.path), **SETTINGS)
    resumed = RunFolder(run.result["folder"])
    require_equal(resumed, whole)
    assert [path.name for path in resumed.bests()] == [path.name for path in whole.bests()]


def test_a_resumed_run_that_never_improves_keeps_the_best_it_had(
    copy: RunFolder, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {**SETTINGS, "training": {**SETTINGS["training"], "steps": 8}}
    monkeypatch.setattr("metadensity.training.MetaTrainer.validate", lambda self: {"validation/cautious": 1e9})
    run = script(
        train.experiment, "hershey", "conditional", "fast", resume=str(copy.path), allow=["training.steps"], **more
    )
    assert RunFolder(run.result["folder"]).best.read_bytes() == copy.best.read_bytes()
    assert run.result["validation/cautious"] < 1


@pytest.mark.parametrize("damage", ["earlier version", "damaged", "gone"])
def test_a_resumed_run_always_has_a_best_model(
    damage: str, copy: RunFolder, whole: RunFolder, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.states()[-1].unlink()
    taken = copy.bests()[0].read_bytes()
    for path in copy.bests():
        path.unlink() if damage != "damaged" else path.write_bytes(b"x")
    copy.best.write_bytes(taken) if damage == "earlier version" else copy.best.unlink()
    run = script(train.experiment, "hershey", "conditional", "fast", resume=str(copy.path), **SETTINGS)
    resumed = RunFolder(run.result["folder"])
    assert resumed.model().provenance["step"] in (2, 4, 6)
    if damage == "earlier version":
        require_equal(resumed, whole)
    assert ("The best model is chosen anew" in capsys.readouterr().out) == (damage == "damaged")


def test_a_damaged_model_is_named_and_the_one_before_it_offered(copy: RunFolder) -> None:
    best = copy.best
    best.write_bytes(best.read_bytes()[:-40])
    with pytest.raises(DamagedFileError, match=r"best.safetensors is truncated.*of step \d is whole: .*copy .*best-0"):
        copy.model()
    for path in copy.bests():
        path.write_bytes(b"")
    with pytest.raises(DamagedFileError) as caught:
        copy.model()
    assert "is whole" not in str(caught.value), "a damaged model was offered"


def test_checkpoints_hold_no_code(whole: RunFolder) -> None:
    """No file of a run is a pickle or a zip that torch.load would unpickle."""
    for path in whole.checkpoints.iterdir():
        data = path.read_bytes()
        assert data[:2] not in (b"\x80\x02", b"\x80\x04", b"PK"), path
        assert data[8:9] == b"{", "safetensors begin with the length of a JSON header"


def fill(monkeypatch: pytest.MonkeyPatch, part: str, after: int) -> None:
    """Let the disk be full from the ``after``-th write of files whose name holds ``part``."""
    real, seen = files.write_atomically, [0]
    fsync = os.fsync

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path: Any, data: bytes) -> None:
        seen[0] += part in str(path)
        if part in str(path) and seen[0] > after:
            monkeypatch.setattr(os, "fsync", full)
        try:
            real(path, data)
        finally:
            monkeypatch.setattr(os, "fsync", fsync)

    monkeypatch.setattr(files, "write_atomically", write)


def test_a_full_disk_stops_the_run_with_the_last_good_state(
    script: Any, runs: Path, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fill(patch, "state-", after=2)  # those of steps 0 and 3
        with pytest.raises(OSError, match=r"The disk is full: .*state-00000006.safetensors was not written"):
            script(train.experiment, "hershey", "conditional", "fast", **SETTINGS)
    folder = max(runs.glob("[0-9]*"), key=lambda path: int(path.name))
    assert json.loads((folder / "run.json").read_text())["status"] == "FAILED"
    assert newest_state(RunFolder(folder)).name == "state-00000003.safetensors"
    again = script(train.experiment, "hershey", "conditional", "fast", resume=str(folder), **SETTINGS)
    require_equal(RunFolder(again.result["folder"]), whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(
            f"no file system can be mounted here ({mounted.stderr.decode().strip()}); the fault above is injected"
        )
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_for_real(small_disk: Path, script: Any, whole: RunFolder, monkeypatch: Any) -> None:
    from sacred.observers import FileStorageObserver

    ballast = small_disk / "ballast"
    checkpoint = train.FolderObserver.checkpoint

    def crowded(self: Any, trainer: Any, best: bool) -> None:
        if trainer.step == 6:  # other programs take what is left
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 4096)
        checkpoint(self, trainer, best)

    with monkeypatch.context() as patch:
        patch.setattr(train.FolderObserver, "checkpoint", crowded)
        train.experiment.observers[:] = [FileStorageObserver(str(small_disk), copy_sources=False)]
        updates = {**SETTINGS, "progress": False}
        with pytest.raises(OSError, match=r"No space|The disk is full"):
            train.experiment.run(named_configs=["hershey", "conditional", "fast"], config_updates=updates)
    folder = RunFolder(small_disk / "1")
    assert newest_state(folder).name == "state-00000003.safetensors"
    assert folder.config()["training"]["steps"] == 6
    json.loads((folder.path / "run.json").read_text())
    again = script(train.experiment, "hershey", "conditional", "fast", resume=str(folder.path), **SETTINGS)
    require_equal(RunFolder(again.result["folder"]), whole)

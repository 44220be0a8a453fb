"""The folder of a run: where things are.

config.json, run.json, cout.txt    Sacred's own record
lineage.json                       what the run came from (experiments.recording.lineage)
checkpoints/best.safetensors       the averaged model that validated best (metadensity.load reads it)
checkpoints/best-STEP.safetensors  that model under its step, and those before it that a kept state builds on
checkpoints/state-STEP.safetensors the newest states of training, to resume from
metrics.jsonl                      every number of the run, strict JSON, one object a line
timing.jsonl                       those that depend on the machine's speed: all that a repetition would change
tensorboard/                       the same as curves, grids of images, attention maps, settings beside results
samples/                           support beside samples
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sacred.observers import FileStorageObserver
from sacred.run import Run

import metadensity
from experiments.recording.launched import own_folder
from experiments.recording.root import runs_root
from metadensity.files import DamagedFileError, JsonLines

# Kept apart from metrics.jsonl, which is a function of the configuration.
WALL_CLOCK = {"train/images_per_second", "train/cpu_seconds"}
_UNOBSERVED: WeakKeyDictionary[Run, Path] = WeakKeyDictionary()  # of runs that no observer gives a folder


def folder_of(run: Run) -> Path:
    """The folder of a Sacred run: its file observer's, or a new one of its own where it has none."""
    for observer in run.observers:
        if isinstance(observer, FileStorageObserver):
            return Path(observer.dir)
    if run not in _UNOBSERVED:
        root = own_folder() or runs_root()
        _UNOBSERVED[run] = _fresh_folder(root / "unobserved" / time.strftime("%Y%m%d-%H%M%S"))
    return _UNOBSERVED[run]


def unobserved_folder(run: Run) -> Path | None:
    """The folder that ``folder_of`` made for a run without a file observer; None where it made none."""
    return _UNOBSERVED.get(run)


def _fresh_folder(wanted: Path) -> Path:
    """A new folder of this name, numbered where it is taken: several runs may begin in the same second."""
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


class RunFolder:
    """Reads a run folder. Raises FileNotFoundError where there is none at ``path``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no run at {self.path}; `ls {runs_root()}` shows those there are.")

    @classmethod
    def find(cls, run: str | int, holding: str = "best.safetensors") -> RunFolder:
        """A run by its path, by its number under the runs folder, or "latest": the newest that holds a checkpoint.

        holding: which checkpoints count for "latest", as a pattern of file names.
        """
        if run != "latest":
            path = Path(str(run))
            return cls(path if path.is_dir() else runs_root() / path)
        trained = sorted(runs_root().glob(f"*/checkpoints/{holding}"), key=lambda path: path.stat().st_mtime)
        if not trained:
            raise FileNotFoundError(
                f"There is no trained run in {runs_root()}. Train one: python -m experiments.train with hershey"
            )
        return cls(trained[-1].parent.parent)

    @property
    def title(self) -> str:
        """What it is called in reports."""
        return f"run {self.path.name}"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The model that validated best."""
        return self.checkpoints / "best.safetensors"

    def states(self) -> list[Path]:
        """States of training, oldest first."""
        return sorted(self.checkpoints.glob("state-*.safetensors"))

    def bests(self) -> list[Path]:
        """Models that validated best when they were made, oldest first; older runs hold ``best`` alone."""
        return sorted(self.checkpoints.glob("best-*.safetensors"))

    def config(self) -> dict[str, Any]:
        """The configuration Sacred recorded. Raises DamagedFileError where it is missing or no JSON."""
        try:
            config: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise DamagedFileError(
                f"{self.path}/config.json is missing or damaged ({error}); is this a run?"
            ) from error
        return config

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return JsonLines(self.path / "metrics.jsonl").read()

    def model(self, device: str = "cpu") -> metadensity.FewShotModel:
        """The model that validated best.

        Raises as ``metadensity.load``; where the file is damaged, the error names the newest whole one before it.
        """
        try:
            return metadensity.load(self.best, device)
        except DamagedFileError as error:
            if (path := self._newest_whole_best()) is None:
                raise
            raise DamagedFileError(
                f"{error} The best model of step {step_of(path)} is whole: to use it, copy {path} there."
            ) from error

    def _newest_whole_best(self) -> Path | None:
        for path in reversed(self.bests()):
            with contextlib.suppress(DamagedFileError):
                metadensity.load(path)
                return path
        return None


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removesuffix(".safetensors").rpartition("-")[2])

"""The folder of a run: where things are, and the observer that writes them during training.

config.json, run.json, cout.txt    Sacred's own record
checkpoints/best.safetensors       the averaged model that validated best (metadensity.load reads it)
checkpoints/state-STEP.safetensors the newest states of training, to resume from
metrics.jsonl                      every number of the run, strict JSON, one object a line
tensorboard/                       the same as curves, and grids of images
samples/                           support beside samples
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.run import Run
from torch.utils.tensorboard import SummaryWriter

import metadensity
from metadensity.files import DamagedFileError, JsonLines
from metadensity.training import MetaTrainer


def runs_root() -> Path:
    """Where runs go: the environment variable METADENSITY_RUNS, or ``runs`` in the current folder."""
    return Path(os.environ.get("METADENSITY_RUNS", "runs"))


def folder_of(run: Run) -> Path:
    """The folder of a Sacred run: its file observer's, or a new one of its own where it has none."""
    for observer in run.observers:
        if isinstance(observer, FileStorageObserver):
            return Path(observer.dir)
    folder = runs_root() / "unobserved" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class RunFolder:
    """Reads a run folder. Raises FileNotFoundError where there is none at ``path``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no run at {self.path}; `ls {runs_root()}` shows those there are.")

    @classmethod
    def find(cls, run: str | int) -> RunFolder:
        """A run by its path, by its number under the runs folder, or "latest": the newest trained one."""
        if run != "latest":
            path = Path(str(run))
            return cls(path if path.is_dir() else runs_root() / path)
        trained = sorted(runs_root().glob("*/checkpoints/best.safetensors"), key=lambda path: path.stat().st_mtime)
        if not trained:
            raise FileNotFoundError(
                f"There is no trained run in {runs_root()}. Train one: python -m experiments.train with hershey"
            )
        return cls(trained[-1].parent.parent)

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
        """The model that validated best; raises as ``metadensity.load``."""
        return metadensity.load(self.best, device)


class FolderObserver:
    """Writes metrics and checkpoints of a training run into its folder; sparse scalars go to Sacred as well."""

    def __init__(self, folder: Path, run: Run | None, provenance: dict[str, Any], keep: int = 2) -> None:
        self.folder, self.run, self.provenance, self.keep = RunFolder(folder), run, provenance, keep
        self.records = JsonLines(folder / "metrics.jsonl")
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        if run is not None:
            run.info["tensorboard"] = str(folder / "tensorboard")

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Append to the JSON lines and TensorBoard; validation also to Sacred, whose file observer is slow."""
        self.records.append({"step": step, **values})
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
            if self.run is not None and name.startswith("validation/"):
                self.run.log_scalar(name, value, step)

    def checkpoint(self, trainer: MetaTrainer, best: bool) -> None:
        """Keep the newest states, and the best averaged model."""
        if best:
            metadensity.save(trainer.averaged_model, self.folder.best, {**self.provenance, "step": trainer.step})
            return
        trainer.save_state(self.folder.checkpoints / f"state-{trainer.step:08d}.safetensors", self.provenance)
        for old in self.folder.states()[: -self.keep]:
            old.unlink()

    def last_checkpoint(self) -> Path | None:
        """The newest state kept."""
        return next(reversed(self.folder.states()), None)

    def close(self) -> None:
        """Flush TensorBoard."""
        self.writer.close()

"""A trained model and how it was trained, wherever it lies: in a run's folder, in a file, or shipped under a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import metadensity
from experiments.recording.root import runs_root
from experiments.recording.run_folder import RunFolder
from experiments.results.shipped_weights import SUFFIX, shipped, shipped_file, shipped_name
from metadensity.files import DamagedFileError, read_header


class TrainedModel(Protocol):
    """What a command needs of a model that it evaluates or draws from; ``RunFolder`` is one."""

    @property
    def path(self) -> Path:
        """The run's folder, or the file."""

    @property
    def title(self) -> str:
        """What it is called in reports."""

    @property
    def best(self) -> Path:
        """The file of its weights."""

    def config(self) -> dict[str, Any]:
        """What its training was configured with."""

    def model(self, device: str = "cpu") -> metadensity.FewShotModel:
        """The model, ready to evaluate."""


class ModelFile:
    """A trained model in one file: one that says how it was trained, as the shipped ones, or a checkpoint of a run.

    Raises as ``metadensity.files.read_header``, and DamagedFileError where the file does not say it.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.best = path
        self.title = path.stem
        self._config = read_header(path).get("provenance", {}).get("config")
        run = path.resolve().parent.parent
        of_a_run = path.resolve().parent == RunFolder(run).checkpoints and (run / "config.json").is_file()
        if not isinstance(self._config, dict) and of_a_run:
            self.title, self._config = f"run {run.name}, {path.stem}", RunFolder(run).config()
        if not isinstance(self._config, dict):
            raise DamagedFileError(
                f"{path} does not say which task its model was trained on. Give a run, or a shipped file."
            )

    def config(self) -> dict[str, Any]:
        """What the training of the model was configured with."""
        return dict(self._config)

    def model(self, device: str = "cpu") -> metadensity.FewShotModel:
        """The model. Raises as ``metadensity.load``."""
        return metadensity.load(self.path, device)


def find_model(run: str | int) -> TrainedModel:
    """A run by its path, its number or "latest" (``RunFolder.find``), a file of weights, or a shipped model's name.

    Raises FileNotFoundError where there is none, DamagedFileError as ``ModelFile`` and ``shipped_file`` do.
    """
    path = Path(str(run))
    if path.is_file():
        return ModelFile(path)
    if run == "latest" or path.is_dir() or (runs_root() / path).is_dir():
        return require_training(RunFolder.find(run))
    if (name := shipped_name(str(run))) is not None:
        return ModelFile(shipped_file(name))
    known = f"Shipped models are {', '.join(shipped())}."
    if path.suffix == SUFFIX:
        raise FileNotFoundError(f"There are no weights at {path}. Give a file of metadensity.save, or a run. {known}")
    raise FileNotFoundError(f"There is no run at {runs_root() / path}; `ls {runs_root()}` lists them. {known}")


def require_training(found: RunFolder) -> RunFolder:
    """The same. Raises FileNotFoundError for a run of a command that makes no model."""
    config = found.config() if (found.path / "config.json").is_file() else {"task": None}
    if "task" not in config:
        used = f"it used run={config['run']}" if "run" in config else "runs show NUMBER says what it was of"
        raise FileNotFoundError(f"{found.path} is no training and holds no model; {used}. Give a run of train.")
    return found


def require_models(config: Mapping[str, Any]) -> None:
    """Raise as ``find_model`` unless the settings ``run`` and ``against`` name trained models."""
    for run in (config["run"], *config.get("against", ())):
        find_model(run)

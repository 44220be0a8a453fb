"""Runs of the scripts go to a temporary folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest
from numpy.typing import NDArray
from sacred import Experiment
from sacred.observers import FileStorageObserver

Script = Callable[..., Any]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A runs folder for one test module."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("METADENSITY_RUNS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def script(runs: Path) -> Script:
    """Run a whole experiment, recorded in the temporary runs folder; returns Sacred's run."""

    def run(experiment: Experiment, *named_configs: str, **config: Any) -> Any:
        experiment.observers[:] = [FileStorageObserver(str(runs))]
        updates = {"progress": False, **config} if "progress" in _settings(experiment) else config
        return experiment.run(named_configs=list(named_configs), config_updates=updates)

    return run


def _settings(experiment: Experiment) -> dict[str, Any]:
    return experiment.configurations[0]()


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """``executed(name, **parameters)``: what a notebook prints, and the images that its figures show.

    The cells run in this process, as a kernel takes longer to start than the rest takes.
    """
    images: list[NDArray[Any]] = []

    def show() -> None:
        for number in plt.get_fignums():
            images.extend(image.get_array() for axis in plt.figure(number).axes for image in axis.images)
        plt.close("all")

    def run(name: str, **parameters: Any) -> tuple[str, list[NDArray[Any]]]:
        images.clear()
        names: dict[str, Any] = {"display": lambda _: None, "Audio": lambda data: data}
        known = False
        for cell in nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type != "code":
                continue
            exec(re.sub(r"^%.*$|^from IPython.*$", "", cell.source, flags=re.M), names)
            if "parameters" in cell.metadata.get("tags", []):  # as papermill does: those given come after
                assert parameters.keys() <= names.keys(), f"{name} has no parameter {set(parameters) - set(names)}"
                names.update(parameters)
                known = True
        assert known, f"{name} has no cell of parameters"
        return capsys.readouterr().out, list(images)

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(plt, "show", show)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with mpl.rc_context():
        yield run
    plt.close("all")

"""Runs of the scripts go to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sacred import Experiment
from sacred.observers import FileStorageObserver

Script = Callable[..., Any]


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

"""Shipped models are found by name from anywhere; what is missing, damaged or unknown is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metadensity
from experiments import reproduce
from experiments.compare import find_evaluation
from experiments.recording import lineage
from experiments.recording.initial_weights import weights_file
from experiments.recording.trained_model import ModelFile, find_model
from experiments.results import WEIGHTS, shipped_weights
from experiments.results.shipped_weights import shipped, shipped_file
from experiments.studies.training_runs import find_runs
from metadensity.files import DamagedFileError

NAME = "omniglot-meta"  # the smallest
FILE = f"{NAME}.safetensors"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, runs folder and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("METADENSITY_WEIGHTS", raising=False)
    monkeypatch.setattr(shipped_weights, "user_cache", lambda: tmp_path / "cache")
    return tmp_path


@pytest.fixture
def installed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in an installed package, which holds no weights."""
    monkeypatch.setattr(shipped_weights, "WEIGHTS", elsewhere / "site-packages")
    return elsewhere


def test_the_registry_is_of_the_files() -> None:
    files = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in WEIGHTS.glob("*.safetensors")}
    assert shipped() == files, "python -m experiments.reproduce registry writes it"


def test_the_registry_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_weights, "REGISTRY", tmp_path / "weights.json")
    try:
        assert reproduce.registry() == sorted(path.stem for path in WEIGHTS.iterdir())
        written = (tmp_path / "weights.json").read_text()
    finally:
        shipped.cache_clear()
    assert written == (WEIGHTS.parent / "weights.json").read_text()


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_model_loads_and_says_its_task(name: str, elsewhere: Path) -> None:
    found = find_model(name)
    assert found.title == name
    model, config = found.model(), found.config()
    assert {"task", "model", "training", "seed"} <= config.keys()
    assert model.provenance["weights_sha256"]
    assert lineage.parent_of_file(elsewhere, found.best).sha256 == model.provenance["weights_sha256"]


@pytest.mark.parametrize("run", [NAME, f"weights/{FILE}", f"experiments/results/weights/{FILE}", str(WEIGHTS / FILE)])
def test_every_spelling_is_taken_from_any_working_directory(run: str, elsewhere: Path) -> None:
    assert find_model(run).best.samefile(WEIGHTS / FILE)
    assert weights_file(run).samefile(WEIGHTS / FILE)


def test_several_are_several_runs(elsewhere: Path) -> None:
    assert [run.title for run in find_runs([NAME, "omniglot-conditional"])] == [NAME, "omniglot-conditional"]
    with pytest.raises(ValueError, match="names a run twice"):
        find_runs([NAME, f"weights/{FILE}"])


def test_a_run_of_that_name_and_a_file_of_that_path_come_first(elsewhere: Path) -> None:
    (elsewhere / "weights").mkdir()
    shutil.copy(WEIGHTS / "omniglot-conditional.safetensors", elsewhere / "weights" / FILE)
    assert find_model(f"weights/{FILE}").model().provenance == find_model("omniglot-conditional").model().provenance
    (elsewhere / "runs" / NAME).mkdir(parents=True)
    assert find_model(NAME).path == elsewhere / "runs" / NAME


def test_what_is_not_shipped_says_what_there_is(elsewhere: Path) -> None:
    for source in (find_model, weights_file):
        with pytest.raises(FileNotFoundError, match=r"no run at .*Shipped models are .*omniglot-attention, "):
            source("omniglot-atention")
        with pytest.raises(FileNotFoundError, match=r"no weights at weights/x\.safetensors.*Shipped models are .*"):
            source("weights/x.safetensors")
    with pytest.raises(ValueError, match=r"No model called 'omniglot-atention' is shipped; there are .*omniglot-meta"):
        shipped_file("omniglot-atention")
    with pytest.raises(FileNotFoundError, match=f"evaluated first: python -m experiments.evaluate with run={NAME}"):
        find_evaluation(NAME)


def test_an_installed_package_says_which_file_to_put_where(installed: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        find_model(NAME)
    said = str(caught.value)
    assert all(part in said for part in (FILE, shipped()[NAME], "METADENSITY_WEIGHTS", str(installed / "cache")))


def test_an_installed_package_looks_where_it_says(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = installed / "cache" / "weights" / FILE
    cached.parent.mkdir(parents=True)
    shutil.copy(WEIGHTS / FILE, cached)
    assert find_model(NAME).best == cached
    monkeypatch.setenv("METADENSITY_WEIGHTS", str(installed / "mine"))
    with pytest.raises(FileNotFoundError, match=r"METADENSITY_WEIGHTS is .*mine, which is no folder"):
        find_model(NAME)
    (installed / "mine").mkdir()
    assert find_model(NAME).best == cached
    shutil.copy(WEIGHTS / FILE, installed / "mine")
    assert find_model(NAME).best == installed / "mine" / FILE


def test_another_file_under_the_name_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_WEIGHTS", str(installed))
    shutil.copy(WEIGHTS / "omniglot-conditional.safetensors", installed / FILE)  # whole, and of another model
    with pytest.raises(DamagedFileError, match=f"is not the file that is shipped as {NAME}"):
        find_model(NAME)
    assert isinstance(find_model(FILE), ModelFile)  # by its path it is what it is


def test_a_command_takes_names_from_another_working_directory(tmp_path: Path, data_root: Path, repo_root: Path) -> None:
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path / "runs"), "METADENSITY_DATA": str(data_root)}
    against = "against=['omniglot-conditional','weights/omniglot-attention.safetensors']"
    command = [sys.executable, "-W", "ignore", "-m", "experiments.sample", "with", "fast", f"run={NAME}", against]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(repo_root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    known = lineage.read(tmp_path / "runs" / "1")
    assert known is not None
    expected = [NAME, "omniglot-conditional", "omniglot-attention"]
    assert [Path(parent.file).stem for parent in known.parents] == expected
    weights = [metadensity.load(WEIGHTS / f"{name}.safetensors").provenance["weights_sha256"] for name in expected]
    assert [parent.sha256 for parent in known.parents] == weights


def test_a_checkpoint_is_a_model_of_its_run(elsewhere: Path) -> None:
    """``run=RUN/checkpoints/best.safetensors`` evaluates what ``initial=`` of it begins with."""
    path = elsewhere / "runs" / "7" / "checkpoints" / "best-00000004.safetensors"
    metadensity.save(metadensity.load(shipped_file(NAME)), path, {"step": 4})
    with pytest.raises(DamagedFileError, match="does not say which task"):
        find_model(str(path))
    config = {"task": {"name": "digits"}, "seed": 3}
    (path.parents[1] / "config.json").write_text(json.dumps(config))
    found = find_model(str(path))
    assert (found.title, found.config()) == ("run 7, best-00000004", config)
    assert found.model().provenance["step"] == 4
    assert weights_file(str(path)).samefile(path)

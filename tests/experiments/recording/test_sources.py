"""The record of a run names the script that was run, its repository, the library's, and the command."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metadensity
from experiments import train
from experiments.recording import sources
from experiments.recording.command_line import make_experiment
from experiments.recording.sources import experiment_info, repository_of

INK = """
'''How much ink.'''
import beside
from experiments.recording.command_line import main, make_experiment
experiment = make_experiment("ink")


@experiment.config
def _defaults():
    samples = 2  # of each


@experiment.main
def ink(samples):
    return samples * beside.FACTOR


if __name__ == "__main__":
    main(experiment)
"""


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's repository with an experiment in a folder of it, a module beside that, and a package that is ignored."""
    root = tmp_path / "project"
    (root / "lib").mkdir(parents=True)
    (root / "work").mkdir()
    (root / "work" / "ink.py").write_text(INK)
    (root / "work" / "beside.py").write_text("FACTOR = 3\n")
    (root / "lib" / "installed.py").write_text("")
    (root / ".gitignore").write_text("lib/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "remote", "add", "origin", "https://example.invalid/project.git")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "all")
    return root


@pytest.fixture(autouse=True)
def fresh() -> None:
    sources._repository.cache_clear()


def load(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module from a file, as a script has it."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_an_experiment_of_the_users_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = project / "work" / "ink.py"
    module = load(script, "users_ink", monkeypatch)
    (project / "work" / "later.py").write_text("")
    load(project / "work" / "later.py", "users_later", monkeypatch)  # imported once the experiment was made
    info = module.experiment.get_experiment_info()
    assert info["base_dir"] == str(project)
    assert info["mainfile"] == "work/ink.py"
    own = [name for name, _ in info["sources"] if not Path(name).is_absolute()]
    assert own == ["work/beside.py", "work/ink.py", "work/later.py"]
    first, *others = info["repositories"]
    assert first == {
        "url": "https://example.invalid/project.git",
        "commit": git(project, "rev-parse", "HEAD"),
        "dirty": True,  # later.py is in no commit
    }
    library = repository_of(Path(sources.__file__).resolve())
    assert [each["commit"] for each in others] == ([] if library is None else [library.commit])
    assert f"metadensity=={metadensity.__version__}" in info["dependencies"]
    assert any(name.startswith("torch==") for name in info["dependencies"])
    del sys.modules["beside"]


def test_what_is_committed_is_clean_and_a_change_is_not(project: Path) -> None:
    script = project / "work" / "ink.py"
    assert experiment_info("ink", script)["repositories"][0]["dirty"] is False
    script.write_text(INK + "\n")
    sources._repository.cache_clear()
    assert experiment_info("ink", script)["repositories"][0]["dirty"] is True


def test_a_package_installed_in_a_project_is_not_of_its_repository(project: Path) -> None:
    assert repository_of(project / "lib" / "installed.py") is None
    assert repository_of(project / "work" / "ink.py") is not None


def test_a_repository_without_a_commit_and_a_folder_without_a_repository(tmp_path: Path) -> None:
    (tmp_path / "ink.py").write_text(INK)
    assert repository_of(tmp_path / "ink.py") is None
    git(tmp_path, "init", "-q")
    sources._repository.cache_clear()
    assert repository_of(tmp_path / "ink.py") is None
    info = experiment_info("ink", tmp_path / "ink.py")
    assert (info["base_dir"], info["mainfile"]) == (str(tmp_path), "ink.py")


def test_without_git_nothing_is_said_of_repositories(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    info = experiment_info("ink", project / "work" / "ink.py")
    assert info["repositories"] == []
    assert info["mainfile"] == "ink.py"


def test_a_command_of_this_repository(repo_root: Path) -> None:
    info = train.experiment.get_experiment_info()
    assert info["base_dir"] == str(repo_root)
    assert info["mainfile"] == "experiments/train.py"
    assert "experiments/train.py" in [name for name, _ in info["sources"]]
    assert len(info["repositories"]) <= 1, "the repository is listed once"


def test_an_experiment_in_a_notebook_has_no_script() -> None:
    names: dict[str, Any] = {"make_experiment": make_experiment}
    exec("experiment = make_experiment('cell')", names)
    info = names["experiment"].get_experiment_info()
    assert info["mainfile"] is None


def test_the_command_line_is_recorded_and_a_run_can_be_queued_anywhere(project: Path, repo_root: Path) -> None:
    """One process for each, as it is the process that counts."""
    runs = project.parent / "runs"
    environment = {**os.environ, "METADENSITY_RUNS": str(runs), "PYTHONPATH": str(repo_root)}
    script = str(project / "work" / "ink.py")
    for number, flags in enumerate((["-c", "a remark"], ["-q"]), 1):
        command = [sys.executable, "-W", "ignore", script, *flags, "with", "samples=4"]
        done = subprocess.run(command, cwd=project.parent, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        entry = json.loads((runs / str(number) / "run.json").read_text())
        assert entry["meta"]["command_line"].endswith("with samples=4")
        assert script in entry["meta"]["command_line"]
        assert entry["meta"]["working_directory"] == str(project.parent)
        assert entry["status"] == ("COMPLETED", "QUEUED")[number - 1]
        assert entry["experiment"]["mainfile"] == "work/ink.py"
        stored = {name: runs / place for name, place in entry["experiment"]["sources"]}
        assert stored["work/ink.py"].read_text() == INK
        assert stored["work/beside.py"].read_text() == "FACTOR = 3\n"
    assert json.loads((runs / "1" / "run.json").read_text())["result"] == 12

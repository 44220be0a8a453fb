"""A task and a model of one's own, in a folder of their own: known by their names, held to the contracts of all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from experiments import new_task
from experiments.recording import own_project
from metadensity.models import MODELS
from tasks import TASKS

ROOT = Path(new_task.__file__).resolve().parents[1]
LEAKY = """

class CountedPixels(CountedPixels):
    def condition(self, support):
        class Peeks(IndependentDensity):
            def conditional_log_probs(self, value):
                later = value.flatten(-2).roll(-1, -1).view_as(value)
                return super().conditional_log_probs(value) + 0.1 * later

            def log_prob(self, value):
                return self.conditional_log_probs(value).flatten(-3).sum(-1)

        density = super().condition(support)
        density.__class__ = Peeks
        return density
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The template in a folder, which is the current one; what is registered is forgotten in the end."""
    new_task.write_project(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(own_project.VARIABLE, "")
    monkeypatch.setattr(own_project, "entry_points", lambda group: [])
    registries = {"metadensity.models": dict(MODELS), "metadensity.tasks": dict(TASKS)}
    monkeypatch.setattr(own_project, "REGISTRIES", registries)
    yield tmp_path / "mine"
    for module in ("bars", "counted_pixels"):
        sys.modules.pop(module, None)


def pytest_in(folder: Path, chosen: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_folder_holds_what_its_readme_says(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (project / "README.md").read_text()
    assert {path.name for path in project.iterdir()} == {
        "README.md", "bars.py", "counted_pixels.py", "pyproject.toml", "test_contracts.py"
    }  # fmt: skip
    assert {"bars.py", "counted_pixels.py", "pyproject.toml"} <= set(re.findall(r"`([\w.]+)`", text))
    (project / "more").mkdir()
    assert new_task.main(["more"]) == 0  # an empty folder will do
    assert new_task.main([str(project)]) == 2
    assert "is there already, and not an empty folder" in capsys.readouterr().err


def test_its_tests_pass_and_catch_a_leaky_model(project: Path) -> None:
    few = "sums_to_one-1x3x3 or is_causal-1x3x3 or splits_share_nothing or nested"
    done = pytest_in(project, few)
    assert done.returncode == 0, done.stdout[-3000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) == 6  # two contracts, as it is and after a step; two of the task
    with (project / "counted_pixels.py").open("a") as file:
        file.write(LEAKY)
    done = pytest_in(project, few)
    assert done.returncode == 1
    failed = set(re.findall(r"FAILED test_contracts.py::test_contract\[(\w+)-", done.stdout))
    assert failed == {"sums_to_one", "is_causal"}, done.stdout[-3000:]
    assert "the log of the sum over all images is" in done.stdout


@pytest.mark.parametrize("below", [".", "results/more"])
def test_what_it_names_is_registered(project: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / below)
    own_project.register()
    model, task = (own_project.REGISTRIES[f"metadensity.{name}"][key] for name, key in NAMES)
    assert task(split="test").levels == 2
    assert model(event_shape=(1, 8, 8), levels=2).levels == 2
    assert os.environ[own_project.VARIABLE] == str(project)  # for a notebook that a command starts elsewhere
    monkeypatch.chdir("/")
    assert own_project.project_folder() == project


NAMES = (("models", "counted_pixels"), ("tasks", "bars"))


def test_nothing_is_registered_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'another'\n")
    before = {group: dict(registry) for group, registry in own_project.REGISTRIES.items()}
    own_project.register()
    assert before == own_project.REGISTRIES


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (
            ("bars:bars", "bar:bars"),
            ImportError,
            r"names bar:bars as the task 'bars', which cannot be imported: No ",
        ),
        (
            ("bars:bars", "bars:bar"),
            ImportError,
            r"names bars:bar as the task 'bars', which cannot be imported: ",
        ),
        (('bars = "', 'hershey = "'), ImportError, r"names a task 'hershey', and there is one called so"),
        (("[build-system]", "[build-system"), ValueError, r"pyproject.toml cannot be read: "),
    ],
)
def test_what_cannot_be_is_said(project: Path, change: tuple[str, str], kind: type[Exception], said: str) -> None:
    file = project / "pyproject.toml"
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(kind, match=said):
        own_project.register()


def test_a_command_says_it_in_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "bars.py").unlink()
    with pytest.raises(ImportError):
        own_project.register_or_say()
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("experiments.train", None))
    with pytest.raises(SystemExit) as ended:
        own_project.register_or_say()
    assert ended.value.code == 2
    assert "names bars:bars as the task 'bars', which cannot be imported" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["train", "--debug"])
    with pytest.raises(ImportError):
        own_project.register_or_say()


def test_a_folder_that_is_no_project_is_said(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(own_project.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"METADENSITY_PROJECT is .*, where there is no pyproject.toml"):
        own_project.register()


def test_installed_projects_are_registered(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def installed(group: str) -> list[EntryPoint]:
        assert group in own_project.REGISTRIES
        return [EntryPoint("also_hershey", "tasks.hershey:hershey", group)] if group == "metadensity.tasks" else []

    monkeypatch.setattr(own_project, "entry_points", installed)
    own_project.register()
    found: Any = own_project.REGISTRIES["metadensity.tasks"]
    assert found["also_hershey"] is TASKS["hershey"]

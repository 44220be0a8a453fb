"""The package as it is installed: what the wheel holds, and that all works in a fresh environment.

One wheel is built, from a copy of the sources, and installed once. What it depends on is that of the environment of
the tests, so that no network is needed.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.results import WEIGHTS
from experiments.results.shipped_weights import shipped

FLOORS = ("metadensity", "tasks", "experiments")
NAME = "omniglot-attention"
TYPED = """\
from bars import bars
from counted_pixels import CountedPixels

import metadensity
from experiments.results.shipped_weights import shipped_file

episode = bars().episode(0, tasks=2, shots=1, queries=1)
density = CountedPixels((1, 8, 8), 2)(episode.support)
rows: int = metadensity.evaluate(CountedPixels((1, 8, 8), 2), [episode]).rows
path: int = shipped_file("name")
CountedPixels((1, 8, 8), "two")
"""


@dataclass(frozen=True)
class Installed:
    """An environment that the wheel was installed into. packages: its site-packages."""

    folder: Path
    packages: Path

    def run(self, folder: Path, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in ``folder``, with caches and runs of its own there."""
        gone = ("METADENSITY_WEIGHTS", "METADENSITY_DATA", "PYTHONPATH", "PYTEST_ADDOPTS")
        inherited = {name: value for name, value in os.environ.items() if name not in gone}
        own = {"METADENSITY_RUNS": str(folder / "runs"), "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
        own |= {"PYTHONWARNINGS": "ignore", "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [str(self.folder / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=folder, env={**inherited, **own, **environment}, capture_output=True, text=True, timeout=900
        )

    def state(self) -> Mapping[str, tuple[int, str]]:
        """When each file of site-packages was written, and its hash."""
        files = sorted(path for path in self.packages.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, hashlib.blake2b(path.read_bytes()).hexdigest()) for path in files}

    @property
    def held(self) -> set[Path]:
        """The files of the wheel, by their names in site-packages."""
        (record,) = self.packages.glob("metadensity-*.dist-info/RECORD")
        names = [line.rsplit(",", 2)[0] for line in record.read_text().splitlines()]
        return {Path(name) for name in names if not name.startswith("..") and "__pycache__" not in name}


@pytest.fixture(scope="module")
def installed(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment with the wheel of the repository."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for floor in FLOORS:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "records")
        shutil.copytree(repo_root / floor, source / floor, ignore=ignored)
    (source / "experiments" / "results" / "weights" / f"{NAME}.safetensors").touch()  # which no wheel is to hold
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repo_root / file, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(source)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = made.glob("*.whl")
    environment = made / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    python = str(environment / "bin" / "python")
    pip[-2:-2] = ["--python", python]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return Installed(environment, packages)


@pytest.fixture(scope="module")
def project(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a task and a model of one's own, as the installed command writes it."""
    folder = tmp_path_factory.mktemp("away")
    done = installed.run(folder, "metadensity", "new-task", "mine")
    assert done.returncode == 0, done.stderr
    return folder / "mine"


def test_it_holds_every_source_and_all_that_is_read_at_run_time(installed: Installed, repo_root: Path) -> None:
    patterns = ("**/*.py", "**/csrc/**/*.cpp", "**/csrc/**/*.h", "splits/*.json", "run_page/*.ipynb", "py.typed")
    for floor in FLOORS:
        for pattern in (*patterns, "results/weights.json", "own_project_template/*.*"):
            wanted = {path.relative_to(repo_root) for path in (repo_root / floor).glob(pattern)}
            assert wanted <= installed.held, f"not in the wheel: {sorted(map(str, wanted - installed.held))}"
        assert Path(floor, "py.typed") in installed.held
    for needed in ("experiments/results/weights.json", "experiments/run_page/report.ipynb"):
        assert Path(needed) in installed.held
    assert {"csrc", "splits"} <= {part for path in installed.held for part in path.parts}


def test_it_holds_no_weights_records_or_tests(installed: Installed) -> None:
    held = [path.as_posix() for path in installed.held]
    assert not [path for path in held if path.endswith((".safetensors", ".npz", ".png")) or "/records/" in path]
    assert {path.partition("/")[0] for path in held if not re.match(r"metadensity-.*\.dist-info/", path)} == set(FLOORS)


def test_its_version_is_the_projects(installed: Installed, tmp_path: Path, repo_root: Path) -> None:
    done = installed.run(
        tmp_path, "python", "-c", "import metadensity; print(metadensity.__file__, metadensity.__version__)"
    )
    version = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["version"]
    assert done.stdout.split() == [str(installed.packages / "metadensity" / "__init__.py"), version], done.stderr
    assert f"\nversion: {version}\n" in (repo_root / "CITATION.cff").read_text()
    assert installed.run(tmp_path, "metadensity", "--version").stdout == f"metadensity {version}\n"


def test_its_metadata_are_what_an_index_asks(installed: Installed, repo_root: Path) -> None:
    """All but the address of the repository, which nobody knows yet; links to it are words until then."""
    (file,) = installed.packages.glob("metadensity-*.dist-info/METADATA")
    found = email.message_from_string(file.read_text())
    for name in ("Summary", "Keywords", "License-Expression", "Requires-Python", "Author", "Requires-Dist"):
        assert found[name], f"no {name}"
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.12"} <= set(found.get_all("Classifier", []))
    assert found["Description-Content-Type"] == "text/markdown"
    page, source = str(found.get_payload()), (repo_root / "README.md").read_text()
    index_page = runpy.run_path(str(repo_root / "setup.py"))["index_page"]
    urls = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"].get("urls", {})
    assert page.strip() == index_page(source, urls.get("Repository")).strip()
    for address in (None, "https://host.example/owner/metadensity/"):
        shown = index_page(source, address)
        assert relative_links(shown) == []
        assert re.findall(r"```python.*?```", shown, re.DOTALL) == re.findall(r"```python.*?```", source, re.DOTALL)
    assert "(https://host.example/owner/metadensity/blob/HEAD/tasks/README.md)" in shown
    assert "](https://host.example/owner/metadensity/raw/HEAD/experiments/results/pictures/hershey.png)" in shown
    assert len(relative_links(source)) > 20


def relative_links(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", prose)


def test_a_program_outside_sees_its_types(installed: Installed, project: Path) -> None:
    """By mypy, of the template and of a program beside it; torch is left out, which takes most of a minute."""
    (project / "typed.py").write_text(TYPED)
    (project / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*,numpy.*]\nfollow_imports = skip\n")
    python = str(installed.folder / "bin" / "python")
    command = [sys.executable, "-m", "mypy", "--python-executable", python, "--no-incremental"]
    done = subprocess.run(
        [*command, "--disable-error-code=misc", "--disable-error-code=no-any-return", "bars.py", "typed.py"],
        cwd=project, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    for said in (
        '"list[LikelihoodRow]", variable has type "int"',
        '"Path", variable has type "int"',
        'type "str"; expected "int"',
    ):
        assert said in done.stdout, done.stdout
    assert done.stdout.count(": error: ") == 3, done.stdout


def test_without_weights_it_says_what_is_missing(installed: Installed, tmp_path: Path) -> None:
    done = installed.run(tmp_path, "metadensity", "sample", "with", "fast", f"run={NAME}")
    assert done.returncode == 2
    assert f"{NAME}.safetensors with sha256 {shipped()[NAME]}" in done.stderr
    assert "METADENSITY_WEIGHTS" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_weights_it_draws(installed: Installed, tmp_path: Path, data_root: Path) -> None:
    given = {"METADENSITY_WEIGHTS": str(WEIGHTS), "METADENSITY_DATA": str(data_root)}
    done = installed.run(tmp_path, "metadensity", "sample", "with", "fast", f"run={NAME}", **given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "runs" / "1").glob("*.png"))


def test_a_notebook_runs_on_its_own(installed: Installed, tmp_path: Path, repo_root: Path) -> None:
    """In a kernel of the environment, from a folder called as that of the repository."""
    (tmp_path / "notebooks").mkdir()
    source = shutil.copy(repo_root / "notebooks" / "look_at_tasks.ipynb", tmp_path / "notebooks")
    command = ["-m", "papermill", "--no-progress-bar", "--cwd", str(tmp_path / "notebooks"), source, "done.ipynb"]
    done = installed.run(tmp_path, "python", *command)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))


def test_it_works_away_from_the_repository_and_writes_nothing_into_itself(installed: Installed, project: Path) -> None:
    """Trains one's own task and model and a net in native kernels, evaluates, draws and reports."""
    before, quick = installed.state(), {"METADENSITY_NATIVE_FLAGS": "-O1"}
    quick["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # data of packages taken from here
    commands = (
        "train with bars attention dot fast",
        "train with bars counted_pixels fast",
        "evaluate with run=2 fast",
        "sample with run=2 fast",
        "report 2 --no-make",
    )
    for command in commands:
        done = installed.run(project, "metadensity", *command.split(), **quick)
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
    assert list((project / "cache").rglob("*.so")), "no kernel was built"
    assert (project / "runs" / "2" / "report.html").stat().st_size > 10_000
    assert str(project / "counted_pixels.py") in (project / "runs" / "2" / "run.json").read_text()
    assert list((project / "runs" / "4").glob("*.png"))
    refused = installed.run(project, "metadensity", "bench", "with", "only=nothing")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("There is no benchmark 'nothing'")  # after Sacred's own lines
    assert installed.state() == before, "something was written into site-packages"

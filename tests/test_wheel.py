"""The package as it is installed: what the wheel holds, and that it runs without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from experiments.results import WEIGHTS
from experiments.results.shipped_weights import shipped

FLOORS = ("metadensity", "tasks", "experiments")
NAME = "omniglot-attention"


@pytest.fixture(scope="module")
def unpacked(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the sources and unpacked, as pip would install it."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for floor in FLOORS:
        shutil.copytree(repo_root / floor, source / floor, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo_root / file, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "unpacked")
    return made / "unpacked"


def run(unpacked: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed package alone, in ``folder``."""
    own = {"PYTHONPATH": str(unpacked), "METADENSITY_RUNS": str(folder / "runs"), **environment}
    inherited = {name: value for name, value in os.environ.items() if name != "METADENSITY_WEIGHTS"}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=folder, env={**inherited, **own}, capture_output=True, text=True, timeout=300)


def test_it_holds_every_source_and_all_that_is_read_at_run_time(unpacked: Path, repo_root: Path) -> None:
    held = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    patterns = ("**/*.py", "**/csrc/**/*.cpp", "**/csrc/**/*.h", "splits/*.json", "run_page/*.ipynb", "py.typed")
    for floor in FLOORS:
        for pattern in (*patterns, "results/weights.json"):
            wanted = {path.relative_to(repo_root) for path in (repo_root / floor).glob(pattern)}
            assert wanted <= held, f"not in the wheel: {sorted(map(str, wanted - held))}"
    for needed in ("metadensity/py.typed", "experiments/results/weights.json", "experiments/run_page/report.ipynb"):
        assert Path(needed) in held
    assert {"csrc", "splits"} <= {part for path in held for part in path.parts}


def test_it_holds_no_weights_records_or_tests(unpacked: Path) -> None:
    held = [path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()]
    assert not [path for path in held if path.endswith((".safetensors", ".npz", ".png")) or "/records/" in path]
    assert {path.partition("/")[0] for path in held if not re.match(r"metadensity-.*\.dist-info/", path)} == set(FLOORS)


def test_its_version_is_the_projects(unpacked: Path, tmp_path: Path, repo_root: Path) -> None:
    done = run(unpacked, tmp_path, "-c", "import metadensity; print(metadensity.__file__, metadensity.__version__)")
    version = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["version"]
    assert done.stdout.split() == [str(unpacked / "metadensity" / "__init__.py"), version], done.stderr
    assert f"\nversion: {version}\n" in (repo_root / "CITATION.cff").read_text()


def test_without_weights_it_says_what_is_missing(unpacked: Path, tmp_path: Path) -> None:
    cache = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run(unpacked, tmp_path, "-m", "experiments.sample", "with", "fast", f"run={NAME}", **cache)
    assert done.returncode != 0
    assert f"{NAME}.safetensors with sha256 {shipped()[NAME]}" in done.stderr
    assert "METADENSITY_WEIGHTS" in done.stderr


def test_with_weights_it_draws(unpacked: Path, tmp_path: Path, data_root: Path) -> None:
    given = {"METADENSITY_WEIGHTS": str(WEIGHTS), "METADENSITY_DATA": str(data_root)}
    done = run(unpacked, tmp_path, "-m", "experiments.sample", "with", "fast", f"run={NAME}", **given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "runs" / "1").glob("*.png"))

"""The recipes of experiments/CLUSTER.md for Dask and submitit, run as they are written there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import sweep
from experiments.studies.units import read_units, state_of
from tests.experiments.cluster.conftest import Slurm

PAGE = (Path(sweep.__file__).parent / "CLUSTER.md").read_text()
SETTINGS = {"task.size": 8, "training.steps": 2}
DASK = """
import subprocess, sys
from dask.distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        script = open("recipe.py").read().replace("tcp://scheduler:8786", cluster.scheduler_address)
        open("recipe.py", "w").write(script)
        raise SystemExit(subprocess.run([sys.executable, "recipe.py"]).returncode)
"""


def recipe(package: str) -> str:
    """The page's program that uses a package, for the two units there are here."""
    (program,) = [each for each in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if package in each]
    assert "range(12)" in program
    return str(program.replace("range(12)", "range(2)"))


@pytest.fixture
def file(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two units, in the folder that recipes are run in."""
    for name, value in {"PYTHONPATH": str(repo_root), "METADENSITY_RUNS": str(tmp_path / "runs")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    plan = {"named": ["hershey", "conditional", "fast"], "updates": SETTINGS, "seeds": [0, 1]}
    Path("plan.json").write_text(json.dumps(plan))
    assert sweep.main(["plan", "plan.json", "--to", "sweep.jsonl"]) == 0
    return tmp_path / "sweep.jsonl"


def statuses(script: str) -> list[int]:
    """What the recipe prints last, the exit status of each unit."""
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[int] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


def test_units_run_on_dask(file: Path) -> None:
    Path("recipe.py").write_text(recipe("dask"))
    Path("cluster.py").write_text(DASK)
    assert statuses("cluster.py") == [0, 0]
    assert all(state_of(unit).finished for unit in read_units(file))


def test_units_run_on_slurm_by_submitit(slurm: Slurm, file: Path) -> None:
    Path("recipe.py").write_text(recipe("submitit"))
    assert statuses("recipe.py") == [0, 0]
    assert all(state_of(unit).finished for unit in read_units(file))
    assert len(list(Path("logs").glob("*_0_log.out"))) == 2  # each was a task of Slurm's array

"""Sweeps: what is planned is what was meant, work goes on where it was left, and pages say what is so."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import reproduce, shots_grid, split_sensitivity, sweep, train
from experiments.recording.folder_observer import FolderObserver
from experiments.recording.run_folder import RunFolder
from experiments.recording.settings import SettingError
from experiments.reproductions import PLANS, trained
from experiments.studies.planning import Plan, find_made, read_plan, unit_of
from experiments.studies.same_training import config_hash
from experiments.studies.slurm_script import LARGEST_ARRAY, batch_script, ranges
from experiments.studies.units import Unit, read_units, state_of, take
from metadensity.files import read_tensors

FAST = ["hershey", "conditional", "fast"]
SMALL = {"task.size": 8}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def written(units: list[Unit], file: Path) -> str:
    file.write_text("".join(unit.line() + "\n" for unit in units))
    return str(file)


def test_a_plan_is_every_choice_of_its_grid_with_every_seed(tmp_path: Path) -> None:
    plan = {
        "named": "hershey fast",
        "updates": {"task": {"size": 8}, "training.tasks": 3},
        "grid": {"named": ["conditional", ["attention", "dot"]], "training.learning_rate": [0.001, 0.01]},
        "seeds": [4, 5],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    (tmp_path / "plan.json").write_text(json.dumps([plan]))
    (found,) = read_plan(tmp_path / "plan.yaml")
    units = list(found.units())
    assert len({unit.id for unit in units}) == len(units) == 8
    assert units[5].name == "attention dot training.learning_rate=0.001 seed=5"
    config = units[5].config
    assert (config["model"]["attention"], config["training"]["learning_rate"], config["seed"]) == ("dot", 0.001, 5)
    assert (config["task"]["size"], config["training"]["tasks"], config["training"]["steps"]) == (8, 3, 4)
    assert [unit.id for each in read_plan(tmp_path / "plan.json") for unit in each.units()] == [u.id for u in units]


def test_the_hash_is_of_what_decides_the_weights() -> None:
    def of(named: list[str] = FAST, **updates: Any) -> str:
        (unit,) = Plan(named, {**SMALL, **updates}).units()
        return unit.id

    assert of() == of(**{"training.log_every": 7, "training.checkpoint_every": 2, "progress": False, "keep": 5})
    changes = [{"seed": 1}, {"training.steps": 5}, {"model.planes": 5}, {"task.size": 9}, {"validate": False}]
    assert len({of(), *(of(**change) for change in changes)}) == 6


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"named": FAST, "seed": [1]}, "has seed; a plan has named, updates, grid, seeds"),
        ({"named": FAST, "seeds": 3}, r"values of seed are 3; give a list of them, such as \[0, 1, 2\]"),
        ({"named": FAST, "grid": {"task.size": []}}, r"values of task.size are \[\]"),
        ({"named": FAST, "grid": {"task.sise": [8]}}, "task.sise"),
        ({"named": FAST, "updates": {"training.steps": -1}}, "steps"),
        ({"named": FAST, "updates": {"resume": "1"}}, "resumes what is begun of it by itself"),
        ("hershey", "holds 'hershey'"),
    ],
)
def test_what_cannot_be_planned_is_said_before_hours_of_training(
    plan: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert sweep.main(["plan", "plan.json", "--to", "s.jsonl"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "s.jsonl").exists()


def test_a_plan_from_the_command_line_is_that_of_a_file() -> None:
    words = ["--grid", "training.learning_rate=[0.001,0.01]", "--seeds", "0-1,5", "--to", "s.jsonl", "with", *FAST]
    assert sweep.main(["plan", "train", *words, "task.size=8"]) == 0
    grid = {"training.learning_rate": [0.001, 0.01]}
    assert read_units("s.jsonl") == list(Plan(FAST, SMALL, grid, [0, 1, 5]).units())


def test_a_sweep_can_grow_and_its_places_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Workers may have been sent to places of it."""

    def plan(seeds: str) -> int:
        return sweep.main(["plan", "train", "--seeds", seeds, "--to", "s.jsonl", "with", *FAST])

    assert [plan("0-1"), plan("0-1"), plan("0-2")] == [0, 0, 0]
    before = read_units("s.jsonl")
    assert plan("1-2") == 2
    assert "s.jsonl holds other units" in capsys.readouterr().err
    assert read_units("s.jsonl") == before


class FirstTraining(Exception):  # noqa: N818
    """In place of a training."""


def test_studies_plan_what_they_would_train(monkeypatch: pytest.MonkeyPatch, script: Any) -> None:
    asked: list[tuple[Any, ...]] = []

    def train_run(*given: Any) -> None:
        asked.append(given)
        raise FirstTraining

    small = ["hershey", "conditional", "fast"]
    for module in (shots_grid, split_sensitivity):
        name = module.__name__.partition(".")[2]
        assert sweep.main(["plan", name, "--to", f"{name}.jsonl", "with", *small, "task.size=8", "seed=3"]) == 0
        monkeypatch.setattr(module, "train_run", train_run)
        with pytest.raises(FirstTraining):
            script(module.experiment, *small, task={"size": 8}, seed=3)
        first, *others = read_units(f"{name}.jsonl")
        assert first.id == config_hash(train.experiment.configuration((), asked[-1][1]))
        assert len(others) == {"shots_grid": 1, "split_sensitivity": 3}[name]
        assert first.id not in {unit.id for unit in others}


def test_reproduce_plans_what_it_would_train_and_what_comes_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def train_run(*given: Any) -> None:
        asked.append(given)
        raise FirstTraining

    monkeypatch.setattr(trained, "train_run", train_run)
    assert sweep.main(["plan", "reproduce", "mirror", "--to", "s.jsonl", "with", "fast"]) == 0
    settings: Any = {**_settings(), "fast": True, "weights": None}
    with pytest.raises(FirstTraining):
        reproduce.reproduce(PLANS["mirror"], None, Path("out"), **settings)  # type: ignore[arg-type]
    units = read_units("s.jsonl")
    _, updates, _, named = asked[0]
    assert units[0].id == config_hash(train.experiment.configuration(named, updates))
    assert sweep.main(["plan", "reproduce", "omniglot", "--to", "o.jsonl", "with", "weights=None"]) == 0
    later = [unit for unit in read_units("o.jsonl") if unit.begins_with]
    assert later
    places = [unit.id for unit in read_units("o.jsonl")]
    assert all(places.index(unit.begins_with) < places.index(unit.id) for unit in later if unit.begins_with)
    capsys.readouterr()
    assert sweep.main(["plan", "reproduce", "omniglot", "--to", "n.jsonl"]) == 0  # all are shipped
    assert "n.jsonl: 0 units" in capsys.readouterr().out
    assert sweep.main(["plan", "reproduce", "nothing", "--to", "n.jsonl"]) == 2


def _settings() -> dict[str, Any]:
    config = reproduce.experiment.configuration(("fast",), {})
    return {key: value for key, value in config.items() if key not in ("seed", "document")}


def test_work_goes_on_where_it_was_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = Plan(FAST, SMALL).units()
    second = unit_of({**first.config, "seed": 1}, "the second", begins_with=first)
    (broken,) = Plan(FAST, {**SMALL, "initial": str(tmp_path / "none")}).units()
    file = written([second, first, broken], tmp_path / "s.jsonl")
    checkpoint = FolderObserver.checkpoint

    def stopping(observer: FolderObserver, trainer: Any, best: bool) -> None:
        checkpoint(observer, trainer, best)
        if trainer.step == 2 and not best:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderObserver, "checkpoint", stopping)
        assert sweep.main(["work", file]) == 75  # in the training that comes first
    assert [run.status for run in state_of(first).runs] == ["INTERRUPTED"]
    assert state_of(first).best is not None
    lease = take(first)
    capsys.readouterr()
    assert sweep.main(["work", file, "--units", "0"]) == 75
    assert "is being worked on by process" in capsys.readouterr().out
    lease.release()
    assert sweep.main(["work", file, "with", "training.device=cpu"]) == 1  # of the third
    said = capsys.readouterr()
    assert f"going on with {root / '1'}" in said.out
    assert "none" in said.err
    assert [state_of(unit).status for unit in (first, second, broken)] == ["COMPLETED", "COMPLETED", "PLANNED"]
    assert sorted(path.name for path in root.glob("[0-9]*")) == ["1", "2", "3"]
    done = state_of(first).finished
    assert done is not None
    assert RunFolder(root / "3").config()["initial"] == str(RunFolder(done.folder).best)
    assert sweep.main(["work", file, "--units", "0-1"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert sweep.main(["table", file]) == 0
    assert re.search(r"hershey conditional fast +COMPLETED +1,2 +0\.\d+ *$", capsys.readouterr().out, re.MULTILINE)
    assert sweep.main(["table", file, "--left"]) == 0
    assert capsys.readouterr().out == "2\n"
    assert sweep.main(["table", file, "--runs"]) == 0
    assert json.loads(capsys.readouterr().out) == [str(root / "3"), str(root / "2")]
    assert sweep.main(["table", file, "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()].count("COMPLETED") == 2
    for wrong in ("seed=1", "fast", "training.steps=3"):
        assert sweep.main(["work", file, "with", wrong]) == 2
    # Runs are found by their configuration alone, as where a sweep is planned after them.
    for path in (root / "_units").rglob("*"):
        if path.is_file():
            path.unlink()
    find_made([first, second])
    assert [run.run for run in state_of(first).runs] == ["1", "2"]
    assert [run.run for run in state_of(second).runs] == ["3"]
    assert read_tensors(RunFolder(root / "2").states()[-1])[1]["step"] == 4


def test_a_worker_whose_unit_was_taken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = take(Unit("0" * 16, "seed=0", {}))
    observer, killed = sweep.Observer(lease), list[tuple[int, int]]()
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    observer.heartbeat_event()
    assert killed == []
    (lease.path.parent / "attempt-000002.json").touch()
    observer.heartbeat_event()
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_the_script_has_a_task_for_each_unit_that_is_left(tmp_path: Path) -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    script = batch_script(tmp_path / "s.jsonl", [0, 1, 4], 2, ["--mem=4G"])
    assert "#SBATCH --array=0-1,4%2\n" in script
    assert script.index("--signal") < script.index("--mem=4G") < script.index("srun")
    assert len(script.splitlines()) <= 17
    many = batch_script(tmp_path / "s.jsonl", range(5 * LARGEST_ARRAY - 2), None, [])
    assert f"#SBATCH --array=0-{LARGEST_ARRAY - 1}\n" in many
    assert len(re.findall(r"#SBATCH --array", many)) == 1
    (groups,) = re.findall(r"^units=\((.*)\)$", many, re.MULTILINE)
    places = [int(place) for group in groups.split() for place in group.split(",")]
    assert places == list(range(5 * LARGEST_ARRAY - 2))
    for text in (script, many):
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


PAGE = (Path(sweep.__file__).parent / "CLUSTER.md").read_text()


def of_kind(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_can_be_typed() -> None:
    parts = re.findall(r"python -m experiments\.sweep ([^\n|\")#]+)", "\n".join(of_kind("bash") + of_kind("make")))
    assert len(parts) >= 10
    for part in parts:
        words = shlex.split(part)
        sweep._parser().parse_args(words[: words.index("with")] if "with" in words else words)


def test_the_plans_of_the_page_are_planned(data_root: Path) -> None:
    plan, _ = of_kind("yaml")
    Path("sweep.yaml").write_text(plan)
    (found,) = read_plan(Path("sweep.yaml"))
    assert len(list(found.units())) == 12
    for line in of_kind("bash")[1].splitlines()[:3]:
        assert sweep.main(shlex.split(line)[3:]) == 0


def test_the_script_of_the_page_is_the_one_that_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = next(block for block in of_kind("bash") if "#SBATCH" in block)
    for name in ("METADENSITY_DATA", "METADENSITY_WEIGHTS", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METADENSITY_RUNS", "/shared/runs")
    monkeypatch.setattr(sweep.sys, "executable", "/shared/.venv/bin/python")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/shared"))
    assert batch_script(Path("/shared/sweep.jsonl"), range(12), 4, ["--time=4:00:00", "--mem=4G"]) == shown


def test_the_manifest_of_the_page_is_an_indexed_job() -> None:
    job = yaml.safe_load(of_kind("yaml")[1])
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"] == {"operator": "In", "values": [sweep.LATER]}
    (container,) = pod["containers"]
    assert container["command"][:2] == ["sh", "-c"]
    words = shlex.split(container["command"][2].replace("$JOB_COMPLETION_INDEX", "3"))
    assert words[:4] == ["exec", "python", "-m", "experiments.sweep"]
    assert sweep._parser().parse_args(words[4:]).units == "3"
    mounted = {volume["name"] for volume in pod["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == mounted


def test_a_wrong_setting_of_a_grid_is_named() -> None:
    with pytest.raises(SettingError, match=r"task.sise"):
        list(Plan(FAST, {}, {"task.sise": [8]}).units())

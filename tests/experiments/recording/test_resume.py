"""Runs that are killed, stopped or go on: nothing is lost, and nothing changes silently."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import train
from experiments.ingredients import TRAINING_DEFAULTS, read_config
from experiments.recording import lineage
from experiments.recording.resume import ChangedConfigError, NothingToDoError, newest_state, require_same_config
from experiments.recording.run_folder import RunFolder
from metadensity.files import DamagedFileError, read_tensors
from metadensity.training import TrainingDivergedError

SETTINGS: dict[str, Any] = {"task": {"size": 12}}


@pytest.fixture(scope="module")
def whole(script: Any) -> RunFolder:
    run = script(train.experiment, "hershey", "attention", "fast", **SETTINGS)
    return RunFolder(run.result["folder"])


@pytest.fixture
def half(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """The run as it would be had it been killed after step 2."""
    shutil.copytree(whole.path, tmp_path / "half")
    (tmp_path / "half" / "checkpoints" / "state-00000004.safetensors").unlink()
    return RunFolder(tmp_path / "half")


def test_a_resumed_run_ends_with_the_same_bits(whole: RunFolder, half: RunFolder, script: Any) -> None:
    run = script(train.experiment, "hershey", "attention", "fast", resume=str(half.path), **SETTINGS)
    resumed = RunFolder(run.result["folder"])
    one, other = (read_tensors(folder.states()[-1])[0] for folder in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.metrics() == [record for record in whole.metrics() if record["step"] > 2]
    assert lineage.joined_lines(resumed) == (whole.path / "metrics.jsonl").read_bytes()
    assert json.loads((resumed.path / "info.json").read_text())["parent"]["step"] == 2
    assert resumed.model().provenance["parent"] == "half"


def test_a_changed_configuration_is_refused_with_the_difference(half: RunFolder, script: Any) -> None:
    with pytest.raises(ChangedConfigError, match=r"model.planes: 4 -> 5\n.*allow=\"\['model.planes'\]\""):
        script(train.experiment, "hershey", "attention", "fast", resume=str(half.path), model={"planes": 5}, **SETTINGS)
    with pytest.raises(ChangedConfigError, match=r"seed: 0 -> 1"):
        script(train.experiment, "hershey", "attention", "fast", resume=str(half.path), seed=1, **SETTINGS)


def test_more_steps_are_allowed_where_named(half: RunFolder, script: Any) -> None:
    more = {"resume": str(half.path), "training": {"steps": 6}, **SETTINGS}
    with pytest.raises(ChangedConfigError, match=r"training.steps: 4 -> 6"):
        script(train.experiment, "hershey", "attention", "fast", **more)
    run = script(train.experiment, "hershey", "attention", "fast", allow=["training.steps"], **more)
    assert run.result["steps"] == 6


def test_a_resumed_run_takes_the_settings_of_its_parent(whole: RunFolder, half: RunFolder, script: Any) -> None:
    """Nothing of them is typed again, in Python and with named configurations that say the same."""
    for named in ((), ("attention",)):
        resumed = RunFolder(script(train.experiment, *named, resume=str(half.path)).result["folder"])
        one, other = (read_tensors(folder.states()[-1])[0] for folder in (whole, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)
        for part in ("task", "model", "training", "seed", "initial"):
            assert resumed.config()[part] == whole.config()[part]
        assert resumed.config()["resume"] == str(half.path)
        recorded = json.loads((resumed.path / "run.json").read_text())
        assert recorded["meta"]["named_configs"] == list(named)


def test_of_a_resumed_run_only_what_is_to_change_is_given(half: RunFolder, script: Any) -> None:
    run = script(train.experiment, resume=str(half.path), training={"steps": 6}, allow="training.steps")
    assert run.result["steps"] == 6
    assert (run.config["task"]["size"], run.config["model"]["planes"]) == (12, 4)
    with pytest.raises(ChangedConfigError, match=r"model.planes: 4 -> 5\n.*as the run's own settings are taken then"):
        script(train.experiment, resume=str(half.path), model={"planes": 5})
    with pytest.raises(ValueError, match=r"no model.layers where model.name=independent"):
        script(train.experiment, resume=str(half.path), model={"name": "independent", "layers": 2})


def test_a_run_with_nothing_left_to_do_says_so(whole: RunFolder, script: Any, runs: Path) -> None:
    before = sorted(runs.iterdir())
    more = rf"give more: resume={whole.path} training.steps=8 allow=training.steps"
    with pytest.raises(NothingToDoError, match=rf"has done all of its 4 steps, so there is nothing to do. .*{more}"):
        script(train.experiment, resume=str(whole.path))
    with pytest.raises(ValueError, match=rf"training.steps=2, but .* has done 4 steps already. .*{more}"):
        script(train.experiment, resume=str(whole.path), training={"steps": 2}, allow=["training.steps"])
    for steps, status in ((), 0), (("training.steps=2", "allow=training.steps"), 2):
        with pytest.raises(SystemExit) as end:
            train.experiment.run_commandline(["train", "with", f"resume={whole.path}", *steps])
        assert end.value.code == status
    assert sorted(runs.iterdir()) == before


def test_what_is_no_training_cannot_be_resumed(tmp_path: Path, script: Any) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"run": "latest", "seed": 0}')
    with pytest.raises(FileNotFoundError, match=r"other has no state to resume from"):
        script(train.experiment, resume=str(tmp_path / "other"))


def test_a_setting_that_only_one_side_has_is_a_difference() -> None:
    require_same_config({"task": {"size": 20}}, {"task": {"size": 20}})
    with pytest.raises(ChangedConfigError, match=r"task.name: None -> 'hershey'"):
        require_same_config({"task": {"size": 20}}, {"task": {"size": 20, "name": "hershey"}})


def test_a_run_of_a_version_without_a_setting_goes_on_with_its_default() -> None:
    old = {"training": {key: value for key, value in TRAINING_DEFAULTS.items() if key != "graphs"}}
    require_same_config(read_config(old), {"training": TRAINING_DEFAULTS})
    with pytest.raises(ChangedConfigError, match=r"training.graphs: False -> True"):
        require_same_config(read_config(old), {"training": {**TRAINING_DEFAULTS, "graphs": True}})


def test_a_damaged_state_is_named_and_the_one_before_it_taken(
    whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    newest = run.states()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert newest_state(run).name == "state-00000002.safetensors"
    assert "state-00000004.safetensors is truncated, damaged" in capsys.readouterr().out
    run.states()[0].write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"No state of .*run can be read"):
        newest_state(run)
    for state in run.states():
        state.unlink()
    with pytest.raises(FileNotFoundError, match=r"no state to resume from"):
        newest_state(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL])
def test_a_signal_loses_nothing(number: signal.Signals, tmp_path: Path, repo_root: Path, script: Any) -> None:
    """SIGTERM, SIGUSR1 and Ctrl-C save and end; after SIGKILL the last checkpoint is whole. All go on.

    A shell has what it starts in the background ignore Ctrl-C, and so it does, where it is SIGTERM that ends it.
    """
    ctrl_c = signal.SIG_IGN if number == signal.SIGTERM else signal.SIG_DFL
    command = (
        "with hershey attention fast task.size=12 training.steps=100000 training.checkpoint_every=5 progress=False"
    )
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "experiments.train", *command.split()],
        env=environment,
        cwd=repo_root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    )
    folder = tmp_path / "1"
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/state-*[1-9]?.safetensors")) and time.monotonic() < deadline:  # from 10 on
        assert process.poll() is None, "training ended by itself"
        time.sleep(0.05)
    if ctrl_c == signal.SIG_IGN:
        process.send_signal(signal.SIGINT)
    process.send_signal(number)
    process.wait(300)
    ends = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == ends[number]
    run = RunFolder(folder)
    step = int(read_tensors(newest_state(run))[1]["step"])
    if number != signal.SIGKILL:
        assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
        assert step == max(record["step"] for record in run.metrics())
    more = {"training": {"steps": step + 2, "checkpoint_every": 5}, "allow": ["training.steps"], **SETTINGS}
    resumed = script(train.experiment, "hershey", "attention", "fast", resume=str(folder), **more)
    assert resumed.status == "COMPLETED"
    assert resumed.result["steps"] == step + 2


SLEEPER = """
import time
from experiments.recording.command_line import main, make_experiment
experiment = make_experiment("sleeper")
experiment.main(lambda: time.sleep(100))
main(experiment)
"""


def test_every_experiment_ends_cleanly_on_sigterm(tmp_path: Path, repo_root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SLEEPER],
        env={**os.environ, "METADENSITY_RUNS": str(tmp_path)},
        cwd=repo_root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "1" / "cout.txt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.terminate()
    process.wait(60)
    assert json.loads((tmp_path / "1" / "run.json").read_text())["status"] == "INTERRUPTED"


def test_a_state_is_good_that_gave_a_loss_and_any_of_a_run_can_be_named(script: Any, runs: Path) -> None:
    """The newest state holds weights of 1e30: the one before it is named, and goes on with a rate that is sane."""
    hasty = {"learning_rate": 1e30, "clip": 0.0, "warmup": 0, "checkpoint_every": 1, "validate_every": 4}
    with pytest.raises(
        TrainingDivergedError, match=r"Step 1: .* good checkpoint is .*state-00000000.safetensors"
    ) as error:
        script(train.experiment, "digits", "conditional", "fast", training=hasty)
    (good,) = re.findall(r"checkpoint is (\S+safetensors)", str(error.value))
    assert (Path(good).parent / "state-00000001.safetensors").is_file()
    sane = {"training": {**hasty, "learning_rate": 1e-3}, "allow": ["training.learning_rate"]}
    with pytest.raises(TrainingDivergedError, match=r"Step 1: .*none, as none was kept yet at an earlier step"):
        script(train.experiment, "digits", "conditional", "fast", resume=str(Path(good).parents[1]), **sane)
    done = script(train.experiment, "digits", "conditional", "fast", resume=good, **sane)
    assert done.result["steps"] == 4
    assert lineage.read(Path(done.result["folder"])).parents[0].step == 0  # type: ignore[union-attr]
    best = Path(done.result["folder"]) / "checkpoints" / "best.safetensors"
    with pytest.raises(ValueError, match=r"is no state of training. .* give initial='.*best.safetensors'"):
        script(train.experiment, "digits", "conditional", "fast", resume=str(best))

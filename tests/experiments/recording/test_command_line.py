"""What users type: help, mistakes, exit statuses; and that a mistake leaves nothing behind."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sacred.observers import FileStorageObserver

from experiments import evaluate, sample, train
from experiments.recording.command_line import (
    SafeExperiment,
    make_experiment,
    observe_in_runs,
)
from experiments.recording.run_table import read_run, read_runs, select
from experiments.recording.settings import SettingError
from metadensity.files import DamagedFileError

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def say(runs: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Type a command: its exit status, what it printed, and what it printed as errors."""

    def typed(experiment: SafeExperiment, *words: str) -> tuple[int, str, str]:
        experiment.observers[:] = []
        observe_in_runs(experiment)
        status = 0
        try:
            experiment.run_commandline(["program", *words])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        said = capsys.readouterr()
        return status, said.out, said.err

    yield typed
    for experiment in (train.experiment, evaluate.experiment, sample.experiment):
        experiment.observers[:] = []


def own(main: Callable[..., Any], **settings: Any) -> SafeExperiment:
    """An experiment of a user's."""
    experiment = make_experiment("own", named_configs={"few": {"samples": 2}})
    experiment.add_config({"samples": 3, "names": ["a"], **settings})
    experiment.main(main)
    return experiment


MISTAKES: list[tuple[list[str], str]] = [
    (["hershey", "attention"], '"with" is missing before hershey; type: '),
    (["training.steps=3"], "with training.steps=3"),
    (["print_config", "hershey"], "print_config with hershey"),
    (["trian"], "'trian' is no command of"),
    (["with"], "cannot be read"),
    (["with", "hershy"], "There is no named configuration 'hershy'. Did you mean hershey?"),
    (["with", "training.steps"], "training.steps is a setting; give its value, training.steps=VALUE."),
    (["with", "training.step=3"], "There is no setting training.step. Did you mean training.steps"),
    (["with", "steps=3"], "There is no setting steps. Did you mean training.steps"),
    (["with", "model.layer=3"], "Did you mean model.layers?"),
    (["with", "training.learning_rate=abc"], "training.learning_rate='abc'; give a number."),
    (["with", "training.tasks=True"], "training.tasks=True; give a whole number."),
    (["with", "training.shots=abc"], "training.shots='abc'; give a list of whole numbers, for example training.shots="),
    (
        ["with", "task=digits"],
        "task is a group of settings. Give one of them, such as task.name=digits, or digits alone",
    ),
    (["with", "seed=-1"], "seed=-1; give a whole number from 0 to 4294967295."),
    (["with", "training.optimizer=sgd"], "optimizer='sgd'; choose one of"),
    (["with", "model.name=pixelrnn"], "model.name='pixelrnn'; choose one of"),
    (["with", "task.name=mnist"], "there is no task 'mnist'; give one of"),
    (["with", "keep=0"], "keep=0; at least 1 state must stay"),
    (["with", "initial=nowhere"], "There is no run at"),
    (["with", "resume=nowhere"], "There is no run at"),
    (["with", "digits", "fast", "training.shots=300", "progress=False"], "shots"),
    (["with", "digits", "fast", "model.planes=0", "progress=False"], "planes=0; it must be a whole number"),
]


@pytest.mark.parametrize(
    ("words", "says"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_a_sentence_and_leaves_no_run(words: list[str], says: str, say: Say, runs: Path) -> None:
    status, _, error = say(train.experiment, *words)
    assert status == 2
    assert says in error
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if not line.startswith(("INFO", "WARNING"))]) == 1
    assert [path for path in runs.glob("*") if path.name.isdigit()] == []


@pytest.mark.parametrize(
    ("experiment", "words", "says"),
    [
        (evaluate.experiment, ["with", "shots=abc"], "shots='abc'; give a list of whole numbers or None"),
        (evaluate.experiment, ["with", "run=7"], "There is no run at"),
        (evaluate.experiment, ["with", "run=omniglot-attention", "precision=fp16"], "precision='fp16'; choose one of"),
        (evaluate.experiment, ["with", "run=omniglot-attention", "duplicates=x"], "duplicates='x'; choose one of"),
        (sample.experiment, ["with", "run=latest", "shots=[1,2]"], "shots=[1, 2]; give a whole number or None"),
        (sample.experiment, ["with", "against=[7]", "run=omniglot-attention"], "There is no run at"),
    ],
    ids=["shots", "run", "precision", "duplicates", "list", "against"],
)
def test_mistakes_with_other_commands(
    experiment: SafeExperiment, words: list[str], says: str, say: Say, runs: Path
) -> None:
    status, _, error = say(experiment, *words)
    assert (status, says in error, "WARNING" in error) == (2, True, False), error
    assert not runs.exists()


def test_numbers_stand_for_lists_and_runs_without_a_warning(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = evaluate.experiment.configuration((), {"shots": 4, "run": 7, "against": 3})
        assert (found["shots"], found["run"], found["against"]) == ([4], "7", ["3"])
        assert train.experiment.configuration((), {"training": {"shots": 3}})["training"]["shots"] == [3]
    assert caplog.messages == []


def test_a_file_of_settings_is_as_if_it_were_typed(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "own.yaml").write_text("training:\n  learning_rate: 1e-3\n  shots: 3\ntraining.steps: 5\n")
    (tmp_path / "own.json").write_text('{"training": {"tasks": 4}, "model.layers": 3}')
    files = [str(tmp_path / "own.yaml"), str(tmp_path / "own.json")]
    found = train.experiment.configuration(["digits", "conditional", *files], {"training": {"tasks": 7}})
    training, model = found["training"], found["model"]
    assert (training["learning_rate"], training["shots"], training["steps"]) == (1e-3, [3], 5)
    assert (training["tasks"], model["layers"]) == (7, 3)  # what is typed counts above all


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("training: {learning_rate: fast}", "own.yaml: training.learning_rate='fast'; give a number."),
        ("training.stepz: 4", "There is no setting training.stepz. Did you mean training.steps"),
        ("training: 5", "own.yaml: training=5; training is a group of settings. Give one of them"),
        ("- 5", "own.yaml holds list, not settings"),
        ("", "own.yaml holds NoneType, not settings"),
        ("training: [", "own.yaml cannot be read as settings: while parsing"),
    ],
    ids=["kind", "name", "group", "list", "empty", "damaged"],
)
def test_a_mistake_in_a_file_of_settings(file: str, says: str, say: Say, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(file)
    status, _, error = say(train.experiment, "with", "digits", str(tmp_path / "own.yaml"))
    assert (status, says in error, "Traceback" in error) == (2, True, False), error
    assert not runs.exists()


def test_a_device_that_is_not_here_is_named(say: Say, runs: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    status, _, error = say(train.experiment, "with", "digits", "fast", "gpu")
    assert status == 2
    assert "training.device='cuda' cannot be used here" in error
    assert "Give training.device=cpu." in error
    assert not runs.exists()


def test_debug_has_the_rest(say: Say) -> None:
    with pytest.raises(SettingError, match=r"learning_rate='abc'"):
        say(train.experiment, "--debug", "with", "training.learning_rate=abc")


def raises(error: Exception) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_a_users_own_error_is_a_sentence_and_a_fault_of_the_code_is_not(say: Say, runs: Path) -> None:
    for error in (ValueError("too few"), KeyError("too few"), DamagedFileError("too few"), TypeError("too few")):
        status, _, said = say(own(raises(error)))
        assert (status, said.splitlines()[-1], "Traceback" in said) == (2, "too few", False), said
        assert list(runs.glob("[0-9]*")) == []
    status, _, said = say(own(lambda: open("nowhere/file.npz")))  # noqa: SIM115
    assert (status, said.splitlines()[-1]) == (2, "nowhere/file.npz: No such file or directory.")
    status, _, said = say(own(lambda: [1][2]))
    assert (status, "Traceback" in said, "IndexError" in said) == (1, True, True)
    assert json.loads((runs / "1" / "run.json").read_text())["status"] == "FAILED"


def test_a_run_that_did_something_stays(say: Say, runs: Path) -> None:
    def main(_run: Any) -> None:
        folder = Path(_run.observers[0].dir)
        (folder / "table.csv").write_text("1,2")
        raise ValueError("too late")

    status, _, said = say(own(main))
    assert (status, said.splitlines()[-2:]) == (1, ["too late", f"{runs / '1'}/run.json has the traceback."])
    assert (runs / "1" / "table.csv").is_file()

    def logged(_run: Any) -> None:
        _run.log_scalar("loss", 1.0)
        raise ValueError("too late")

    assert say(own(logged))[0] == 1
    assert say(own(raises(RuntimeError("it went wrong"))))[0] == 1  # no word of what was given
    for number in ("2", "3"):
        entry = json.loads((runs / number / "run.json").read_text())
        assert (entry["status"], "Traceback" in entry["fail_trace"][0]) == ("FAILED", True)


def test_help_says_what_can_be_set(say: Say, runs: Path) -> None:
    status, said, _ = say(train.experiment, "--help")
    assert status == 0
    assert said.startswith("Meta-train a model")
    for part in (
        "training.shots: list[int] = [0, 1, 2, 4, 8]",
        "numbers of supports; one is drawn for each step",
        "resume: str | None = None",
        "a run to go on from, in a new run that names it",
        "seed: int = 0\n      of the initial weights and the numbers of shots",
        "model.name: str = 'attention'",
        "task.name: str = 'hershey'",
        "  print_config         Print the updated configuration and exit",
        "-c VALUE --comment=VALUE",
    ):
        assert part in said, part
    assert re.search(r"^  digits +task.name=digits training.shots=\[0,1,2,4,8\]$", said, re.MULTILINE)
    assert "noqa" not in said
    assert "config_filename" not in said, "a setting of a command of Sacred's"
    assert max(map(len, said.splitlines())) <= 120
    said = say(train.experiment, "with", "digits", "independent", "--help")[1]
    assert "task.size" not in said
    assert "model.layers" not in said
    assert say(train.experiment, "help", "nothing")[0] == 2
    assert "Print the available named configs" in say(train.experiment, "help", "print_named_configs")[1]
    assert not runs.exists()


def test_print_config_explains(say: Say) -> None:
    status, said, _ = say(train.experiment, "print_config", "with", "digits", "independent", "fast")
    assert status == 0
    assert "noqa" not in said
    assert "# number of updates" in said
    assert "# of the initial weights and the numbers of shots" in said


def test_a_named_configuration_that_overrides_another_says_so(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        say(train.experiment, "print_config", "with", "digits", "minutes")
        (line,) = [message for message in caplog.messages if "overrides" in message]
        assert line == "minutes, the later one, overrides digits: training.shots=[1, 2, 4, 8] (not [0, 1, 2, 4, 8])"
        caplog.clear()
        say(train.experiment, "print_config", "with", "digits", "minutes", "training.shots=2")
        say(train.experiment, "print_config", "with", "digits", "attention")
        assert not [message for message in caplog.messages if "overrides" in message]


def test_a_further_folder_gets_a_copy(say: Say, runs: Path, tmp_path: Path) -> None:
    def main(_run: Any) -> int:
        (Path(_run.observers[0].dir) / "deep").mkdir()
        (Path(_run.observers[0].dir) / "deep" / "table.csv").write_text("1,2")
        return 5

    (tmp_path / "elsewhere" / "1").mkdir(parents=True)  # so the number is taken there
    assert say(own(main), "-F", str(tmp_path / "elsewhere"))[0] == 0
    for folder in (runs / "1", tmp_path / "elsewhere" / "2"):
        assert json.loads((folder / "run.json").read_text())["result"] == 5
        assert (folder / "deep" / "table.csv").read_text() == "1,2"
    assert say(own(main), "-F", str(runs))[0] == 0  # its own folder, named again
    assert sorted(path.name for path in runs.glob("[0-9]*")) == ["1", "2"]


def test_a_name_does_not_hide_which_experiment_it_was(say: Say, runs: Path) -> None:
    assert say(own(lambda: 1.5), "-n", "trial", "-c", "a remark")[0] == 0
    record = read_run(runs / "1")
    assert (record.experiment, record.name) == ("own", "trial")
    assert record.metrics == {"result": 1.5}
    for where in ("experiment=own", "name=trial"):
        assert [found.run for found in select(read_runs(runs), [where])] == ["1"]


def test_observing_twice_records_once(runs: Path) -> None:
    experiment = own(lambda: 1)
    for _ in range(2):
        observe_in_runs(experiment)
    experiment.run()
    assert [path.name for path in runs.glob("[0-9]*")] == ["1"]
    experiment.observers.append(FileStorageObserver(str(runs)))  # by hand
    experiment.run()
    assert sorted(path.name for path in runs.glob("[0-9]*")) == ["1", "2"]


def test_packages_of_ours_that_a_file_hides_are_named(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "tasks.py").write_text("from invoke import task\n")
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-m", "experiments.train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path / 'tasks.py'} hides the package 'tasks', which experiments need, as Python looks in its folder "
        "first. Rename it, or start from another folder.\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import experiments"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "ImportError: " in done.stderr


WAITS = """
import sys, time
from experiments.recording.command_line import main, make_experiment
experiment = make_experiment("waits")
@experiment.main
def wait():
    print("now", flush=True)
    time.sleep(100)
main(experiment)
"""


def test_exit_statuses_tell_signals_and_mistakes_apart(tmp_path: Path, repo_root: Path) -> None:
    """SIGTERM 143, SIGUSR2 140, Ctrl-C 130, a mistake 2, each with a sentence at most."""
    (tmp_path / "waits.py").write_text(WAITS)
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "METADENSITY_RUNS": str(tmp_path / "runs")}
    command = [sys.executable, "-W", "ignore", str(tmp_path / "waits.py")]
    # A shell has what it starts in the background ignore Ctrl-C, and these tests with it.
    options: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=environment, **options) for _ in range(3)]
    ends = []
    for process, number in zip(started, (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT), strict=True):
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(number)
        ends.append((*process.communicate(timeout=300), process.returncode))
    assert [end[-1] for end in ends] == [143, 140, 130]
    assert all("Traceback" not in end[1] for end in ends)
    status = {json.loads(path.read_text())["status"] for path in tmp_path.glob("runs/*/run.json")}
    assert status == {"INTERRUPTED"}
    wrong = subprocess.run([*command, "with", "sed=1"], env=environment, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "There is no setting sed. Did you mean seed?\n")

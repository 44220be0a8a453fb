"""Commands as a newcomer types them, through ``main``: what is printed, the exit status, and what is recorded."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments import classify, compare, evaluate, train
from experiments import runs as runs_command
from experiments.recording.command_line import main, make_experiment
from experiments.recording.run_table import read_runs, select
from metadensity import Density
from metadensity.densities.independent import IndependentDensity
from metadensity.files import read_header
from metadensity.models import MODELS, SupportMean
from tests.tasks.pictures import make_folder

Said = tuple[int, str, str]  # exit status, what was printed, and what was printed as errors, logs and bars
Typed = Callable[..., Said]
MODULES = (train, evaluate, classify, compare)


def type_command(module: Any, *words: str, experiment: Any = None) -> Said:
    """Type ``python -m MODULE WORDS``, or so with another experiment."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    experiment = experiment or module.experiment
    experiment.observers[:] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [module.__file__, *words])
        patch.setitem(sys.modules, "__main__", module)
        try:
            main(experiment)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            signal.signal(signal.SIGTERM, before)
            experiment.observers[:] = []
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def trained(runs: Path) -> Said:
    """Run 1 of the folder: a training with a name and a remark."""
    words = ["-n", "trial", "-c", "a first try", "with", "digits", "support_mean", "fast"]
    return type_command(train, *words)


@pytest.fixture(scope="module")
def evaluated(runs: Path, trained: Said) -> Said:
    """Run 2: the evaluation of run 1 with its baselines."""
    return type_command(evaluate, "with", "run=1", "fast")


def entry(runs: Path, number: int) -> Any:
    return json.loads((runs / str(number) / "run.json").read_text())


def test_a_record_names_what_was_run(trained: Said, runs: Path) -> None:
    """The script, the repository once, and what was typed."""
    recorded = entry(runs, 1)
    assert recorded["experiment"]["mainfile"] == "experiments/train.py"
    assert "experiments/train.py" in [name for name, _ in recorded["experiment"]["sources"]]
    assert len(recorded["experiment"]["repositories"]) <= 1
    assert recorded["meta"]["command_line"]


def test_a_name_and_a_remark_are_listed_and_hide_nothing(
    trained: Said, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [record.run for record in select(read_runs(runs), ["experiment=train", "name=trial"])] == ["1"]
    assert runs_command.main(["--root", str(runs), "experiment=train"]) == 0
    shown = capsys.readouterr().out
    for text in ("trial", "a first try", "with digits support_mean fast", "nats/dim in validation"):
        assert text in shown, text


def test_the_last_line_is_what_came_out(trained: Said, evaluated: Said, runs: Path) -> None:
    for (status, out, err), name in ((trained, "train"), (evaluated, "evaluate")):
        assert status == 0, err
        last = out.strip().splitlines()[-1]
        assert re.fullmatch(rf"{name}: .*\d nats/(dim|image) .*\({runs}/\d\)", last), last
        assert "Result: " not in out + err


def test_bars_count_what_there_is_and_baselines_have_one(trained: Said, evaluated: Said) -> None:
    """The last state of each bar is whole; before, those of validation and baselines were not there at all."""
    for said, doing in ((trained, ("meta-training", "validating")), (evaluated, ("fitting", "scoring"))):
        bars = re.findall(r"([^\r\n:|]+):\s+\d+%\|[^|]*\| (\d+)/(\d+) \[", said[2])
        last = {name.strip(): (int(done), int(total)) for name, done, total in bars}
        assert all(any(name.startswith(what) for name in last) for what in doing), last
        assert all(done == total for done, total in last.values()), last


def test_of_one_evaluation_no_settings_of_baselines_are_compared(evaluated: Said) -> None:
    status, out, err = type_command(compare, "with", "runs=['2']")
    assert status == 0, err
    assert "training." not in out


def test_going_on_from_a_run_takes_its_settings(trained: Said, runs: Path) -> None:
    """Only what is to change is typed."""
    words = [f"resume={runs / '1'}", "training.steps=5", "allow=training.steps", "progress=False"]
    status, out, err = type_command(train, "with", *words)
    assert status == 0, err
    assert "at step 4" in out
    folder = Path(re.findall(r"\((\S+)\)", out.strip().splitlines()[-1])[0])
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["model"]["name"], settings["task"]["name"]) == ("support_mean", "digits")


def test_a_further_folder_gets_a_copy(runs: Path, tmp_path: Path) -> None:
    """-F records beside the runs folder, not in its place."""
    experiment = make_experiment("own")
    experiment.main(lambda: 5)
    before = {path.name for path in runs.glob("[0-9]*")}
    status, _, err = type_command(train, "-F", str(tmp_path), experiment=experiment)
    assert status == 0, err
    (new,) = {path.name for path in runs.glob("[0-9]*")} - before
    for folder in (runs / new, tmp_path / "1"):
        assert json.loads((folder / "run.json").read_text())["result"] == 5


def test_an_experiment_of_the_users_own_is_recorded_as_that(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its file and its repository; and ``-q`` only notes a run, wherever that is typed."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    (tmp_path / "ink.py").write_text(
        "from experiments.recording.command_line import make_experiment\n"
        "experiment = make_experiment('ink')\nexperiment.main(lambda: 12)\n"
    )
    for words in (["init", "-q"], ["add", "ink.py"], ["commit", "-q", "--no-gpg-sign", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("ink")
    try:
        for flags, ended in (([], "COMPLETED"), (["-q"], "QUEUED")):
            status, _, err = type_command(module, *flags)
            assert status == 0, err
            recorded = entry(runs, max(int(path.name) for path in runs.glob("[0-9]*")))
            assert recorded["status"] == ended
            assert recorded["experiment"]["mainfile"] == "ink.py"
            assert "ink.py" in [name for name, _ in recorded["experiment"]["sources"]]
            assert recorded["experiment"]["repositories"][0]["commit"] == commit
    finally:
        del sys.modules["ink"]


def test_a_training_is_queued_from_any_folder(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = type_command(train, "-q", "with", "digits", "independent", "fast")
    assert status == 0, err
    assert entry(runs, max(int(path.name) for path in runs.glob("[0-9]*")))["status"] == "QUEUED"


MISTAKES = {
    "training.shots=3": '"with" is missing before training.shots=3',
    "with training.step=3": "There is no setting training.step. Did you mean training.steps",
    "with task=digits": "task is a group of settings. Give one of them",
    "with digits fast training.learning_rate=abc": "training.learning_rate='abc'; give a number",
    "with digits fast training.shots=300": "training.shots",
    "with folder fast task.folder=nowhere": "nowhere",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_no_run(words: str, runs: Path) -> None:
    before = sorted(runs.glob("[0-9]*"))
    status, _, err = type_command(train, *words.split())
    assert status == 2, err
    assert "Traceback" not in err
    (line,) = [each for each in err.splitlines() if not each.startswith(("INFO", "WARNING"))]
    assert MISTAKES[words] in line
    assert sorted(runs.glob("[0-9]*")) == before


def test_damaged_images_are_named_at_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, by file; and ``task.damaged=skip`` goes on without, and records which."""
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "cache")
    folder = make_folder(tmp_path / "pictures", dict.fromkeys("abcdefghijkl", 4), width=6, height=6)
    damaged = [folder / "a" / "002.png", folder / "c" / "001.png", folder / "d" / "000.png"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:60])
    words = ["with", "folder", "support_mean", "fast", f"task.folder={folder}", "task.size=4", "progress=False"]
    status, _, err = type_command(train, *words)
    assert status == 2, err
    assert all(str(path.relative_to(folder)) in err for path in damaged), err
    assert "BytesIO" not in err
    status, _, err = type_command(train, *words, "task.damaged=skip", "training.shots=[0,1]", "training.queries=1")
    assert status == 0, err
    newest = max(runs.glob("[0-9]*"), key=lambda path: int(path.name))
    recipe = read_header(newest / "checkpoints" / "best.safetensors")["provenance"]["task"]
    assert recipe["damaged_left_out"] == [str(path.relative_to(folder)) for path in damaged]


def test_help_has_the_experiments_own_words(runs: Path) -> None:
    status, out, _ = type_command(train, "--help")
    assert status == 0
    for text in ("training.shots: list[int] = [0, 1, 2, 4, 8]", "of the initial weights and the numbers of shots"):
        assert text in out, text
    assert "noqa" not in out
    assert "noqa" not in type_command(train, "print_config")[1]


class Hurt(SupportMean):
    """As good as none without supports, and worse with each, whatever is learned."""

    def condition(self, support: Tensor) -> Density:
        logits = torch.zeros(self.levels, *self.event_shape)
        logits[0] = -2.0 * len(support)
        extra = sum(parameter.sum() * 0 for parameter in self.parameters())
        return IndependentDensity((logits + extra).expand(support.shape[1], *logits.shape))


def test_supports_that_cost_are_said_in_training_and_evaluation(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not "does not use the support, +0 nats" of a model that they make far worse than none."""
    monkeypatch.setitem(MODELS, "hurt", Hurt)
    words = ["templates", "fast", "task.size=4", "task.classes=6", "model.name=hurt", "progress=False"]
    words += ["training.validation_tasks=8"]  # two that cost the same have no interval
    status, trained, err = type_command(train, "with", *words)
    assert status == 0, err
    settings = ["fast", "run=latest", "shots=[0,1]", "baselines=False", "generated_episodes=8", "progress=False"]
    status, out, err = type_command(evaluate, "with", *settings)
    assert status == 0, err
    assert "worse with its support than with none" in out
    assert "supports make it worse than none at 1 shot" in out
    assert "supports make it worse than none at 1 shot" in trained + err


@pytest.fixture(scope="module")
def of_two_test_classes(tmp_path_factory: pytest.TempPathFactory, runs: Path) -> Iterator[str]:
    """A run on a folder whose test has two classes of six images, which look alike."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for kind in "abcdefg":
        (root / "images" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (6, 6), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / kind / f"{number}.png")
    splits = root / "splits.json"
    splits.write_text(json.dumps({"train": list("abc"), "validation": list("de"), "test": list("fg")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.data.roots.user_cache", lambda: root / "cache")
        words = ["folder", "support_mean", "fast", f"task.folder={root / 'images'}", f"task.splits={splits}"]
        words += ["task.size=6", "task.grey=True", "task.levels=2", "progress=False"]
        status, _, err = type_command(train, "with", *words)
        assert status == 0, err
        yield str(max(runs.glob("[0-9]*"), key=lambda path: int(path.name)))


def test_classification_takes_the_ways_that_classes_allow(of_two_test_classes: str) -> None:
    status, out, err = type_command(classify, "with", f"run={of_two_test_classes}", "episodes=20", "progress=False")
    assert status == 0, err
    assert "2-way" in out


def test_more_draws_of_twelve_images_do_not_narrow_the_interval(of_two_test_classes: str, script: Any) -> None:
    """Episodes draw the same images again: sixteen times as many are no sixteen times as much data."""
    widths = []
    for episodes in (25, 400):
        found = script(classify.experiment, run=of_two_test_classes, ways=2, episodes=episodes).result
        widths.append(np.diff(found["nearest_neighbour"]["interval"])[0])
    assert widths[1] > 0.5 * widths[0], widths


def test_two_images_of_a_class_say_what_to_type(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that, typed, works."""
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "cache")
    folder = make_folder(tmp_path / "two", dict.fromkeys("abcdefgh", 2), width=6, height=6)
    words = ["with", "support_mean", "fast", "task.name=folder", f"task.folder={folder}", "task.size=4"]
    status, _, err = type_command(train, *words, "training.shots=[0,1,4]", "progress=False")
    assert status == 2, err
    (fix,) = re.findall(r"Type (training\.shots='?\[[^\]]*\]'?).* training\.queries=1", err)
    status, _, err = type_command(train, *words, fix.replace("'", ""), "training.queries=1", "progress=False")
    assert status == 0, err


def test_no_validation_class_says_what_to_type(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that, typed, works."""
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "cache")
    folder = make_folder(tmp_path / "pictures", dict.fromkeys("abcd", 6), width=6, height=6)
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": list("abc"), "validation": [], "test": ["d"]}))
    words = ["with", "folder", "support_mean", "fast", f"task.folder={folder}", f"task.splits={splits}", "task.size=4"]
    status, _, err = type_command(train, *words, "progress=False")
    assert status == 2, err
    assert "the split has no class for validation" in err
    assert "give validate=False" in err
    status, _, err = type_command(train, *words, "validate=False", "progress=False")
    assert status == 0, err


def test_data_that_were_moved_are_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "cache")
    folder = make_folder(tmp_path / "pictures", dict.fromkeys("abcdefghijklmnopqrstuvwx", 4), width=6, height=6)
    words = ["with", "folder", "support_mean", "fast", f"task.folder={folder}", "task.size=4", "progress=False"]
    status, _, err = type_command(train, *words)
    assert status == 0, err
    folder.rename(tmp_path / "moved")
    settings = ["with", "run=latest", "ways=2", "episodes=2", "progress=False"]
    status, _, err = type_command(classify, *settings, f"folder={tmp_path / 'moved'}")
    assert status == 0, err
    status, _, err = type_command(classify, *settings)
    assert status == 2, err
    assert "folder=PATH" in err


def test_too_few_images_for_min_images_say_what_to_type(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "cache")
    folder = make_folder(tmp_path / "two", dict.fromkeys("abcdefgh", 2), width=6, height=6)
    words = ["with", "folder", "support_mean", "fast", f"task.folder={folder}", "task.size=4", "progress=False"]
    status, _, err = type_command(train, *words)
    assert status == 2, err
    assert "no class has 4 images (min_images=4)" in err
    assert "min_images=2" in err

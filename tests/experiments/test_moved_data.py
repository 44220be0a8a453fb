"""Data that were moved after training: every command that takes a run finds them, and takes no others for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import classify, evaluate, memorisation, report, sample, shots_grid, train
from experiments.ingredients.task import require_same_data, task_of
from experiments.recording.lineage import LineageError
from experiments.recording.run_folder import RunFolder
from experiments.run_page.parts import newest_report
from tasks import TASKS, DataError
from tests.tasks.pictures import make_folder, save_noise

SIZES = {f"class {number}": 5 for number in range(24)}
COMMANDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "evaluate": (evaluate, {"shots": [0, 1], "baseline_steps": 2}),
    "sample": (sample, {}),
    "classify": (classify, {"ways": 2, "episodes": 2}),
    "memorisation": (memorisation, {}),
    "shots_grid": (shots_grid, {"test_shots": [1]}),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("tasks.data.roots.user_cache", lambda: folder)
        yield folder


@pytest.fixture
def pictures(tmp_path: Path, cache: Path) -> Path:
    return make_folder(tmp_path / "pictures", SIZES, width=6, height=6)


@pytest.fixture
def trained(script: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run on a folder that was named relative to the current one."""
    monkeypatch.chdir(pictures.parent)
    run = script(train.experiment, "folder", "support_mean", "fast", task={"folder": "pictures", "size": 4})
    monkeypatch.chdir("/")
    return RunFolder(run.result["folder"])


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_take_a_folder(name: str, trained: RunFolder, pictures: Path, script: Any, tmp_path: Path) -> None:
    command, settings = COMMANDS[name]
    run = {"runs": [str(trained.path)]} if name == "shots_grid" else {"run": str(trained.path)}
    found = script(command.experiment, "fast", **run, **settings)  # from another folder
    assert found.status == "COMPLETED"
    pictures.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"no folder or zip archive .*pictures.* give folder=PATH"):
        script(command.experiment, "fast", **run, **settings)
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    again = script(command.experiment, "fast", **run, **settings, folder=str(tmp_path / "copy"))
    for key in ("rows", "accuracy", "tests", "weights_sha256", "episodes_sha256"):
        assert again.result.get(key) == found.result.get(key)


def test_a_report_takes_a_folder(
    trained: RunFolder, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("experiments.run_page.page._executed", lambda *_: "the page")
    pictures.rename(tmp_path / "moved")
    arguments = [str(trained.path), "--output", str(tmp_path / "page.html")]
    assert report.main(arguments) == 0
    assert capsys.readouterr().out.count("That failed") == 2
    assert report.main([*arguments, "--folder", str(tmp_path / "moved")]) == 0
    assert "That failed" not in capsys.readouterr().out
    for kind, file in (("evaluated", "evaluation.json"), ("memorisation", "memorisation.json")):
        assert newest_report(trained, kind, file)[0] is not None


def test_other_images_are_refused(trained: RunFolder, pictures: Path, script: Any, tmp_path: Path) -> None:
    """By their names or by their pixels; with more classes, another split would test on what was trained on."""
    other = tmp_path / "other"
    shutil.copytree(pictures, other)
    name = next(iter(SIZES))
    save_noise(other / name / "000.png", 99)
    with pytest.raises(DataError, match=r"was trained on other images than .*their fingerprint differs"):
        script(sample.experiment, "fast", run=str(trained.path), folder=str(other))
    (other / name / "000.png").rename(other / name / "more.png")
    with pytest.raises(DataError, match=r"other data: the names of the images differ, so that images of the test"):
        script(sample.experiment, "fast", run=str(trained.path), folder=str(other))
    digits = script(train.experiment, "digits", "support_mean", "fast").result["folder"]
    with pytest.raises(ValueError, match=r"no task.folder where task.name=digits"):
        script(sample.experiment, "fast", run=digits, folder=str(other))
    for number in range(30):
        save_noise(pictures / "more" / f"{number}.png", number)
    with pytest.raises(DataError, match=r"the names of the images, the classes of the splits differ"):
        script(sample.experiment, "fast", run=str(trained.path))


def test_training_goes_on_with_moved_data(trained: RunFolder, pictures: Path, script: Any, tmp_path: Path) -> None:
    """What lies there now is known by its fingerprint, though its place was allowed to differ."""
    pictures.rename(tmp_path / "moved")
    settings: dict[str, Any] = {"task": {"folder": str(tmp_path / "moved"), "size": 4}, "training": {"steps": 5}}
    settings |= {"resume": str(trained.path), "allow": ["task.folder", "training.steps"]}
    assert script(train.experiment, "folder", "support_mean", "fast", **settings).result["steps"] == 5
    save_noise(tmp_path / "moved" / next(iter(SIZES)) / "000.png", 99)
    with pytest.raises(LineageError, match=r"the data are not.*task.data_root, or task.folder, to the data"):
        script(train.experiment, "folder", "support_mean", "fast", **settings)


def test_a_relative_folder_is_recorded_whole(trained: RunFolder, pictures: Path) -> None:
    assert trained.config()["task"]["folder"] == str(pictures)


def test_runs_of_earlier_versions_keep_their_split(trained: RunFolder, pictures: Path, tmp_path: Path) -> None:
    """They drew it before small classes were left out, and said nothing of it in their settings."""
    config, weights = trained.config(), trained.best
    small = make_folder(tmp_path / "small", {**SIZES, **{f"small {number}": 1 for number in range(5)}})
    before = TASKS["folder"](split="train", folder=small, size=4, min_images=4, splits="unfiltered")
    now = TASKS["folder"](split="train", folder=small, size=4, min_images=4)
    assert before.recipe["split_sha256"] != now.recipe["split_sha256"]

    class Earlier:
        path = best = tmp_path / "earlier.safetensors"
        title = "earlier"

        @staticmethod
        def config() -> dict[str, Any]:
            kept = {key: value for key, value in config["task"].items() if key not in ("white", "damaged")}
            return {"task": {**kept, "folder": str(small)}}

    from metadensity.files import read_tensors, write_tensors

    tensors, header = read_tensors(weights)
    header["provenance"]["task"] = before.recipe
    write_tensors(Earlier.best, tensors, {key: value for key, value in header.items() if key != "sha256"})
    found: Any = task_of(Earlier(), "train")  # type: ignore[arg-type]
    assert found.class_names == before.class_names  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="the classes of the splits differ"):
        require_same_data(Earlier(), now)  # type: ignore[arg-type]
    assert json.dumps(header["provenance"]["task"])

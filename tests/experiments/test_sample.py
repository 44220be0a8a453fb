"""Drawing from a trained run: completions, temperature, and what an interruption leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments import sample, train
from experiments.recording.run_folder import RunFolder
from experiments.recording.trained_model import find_model
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.files import read_tensors


@pytest.fixture(scope="module")
def trained(script: Any) -> str:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12}, model={"planes": 6}, seed=3)
    return str(run.result["folder"])


def tensors(result: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return read_tensors(result["tensors"])


def test_an_image_does_not_depend_on_how_many_are_drawn(trained: str, script: Any) -> None:
    few = script(sample.experiment, "fast", run=trained, seed=1).result
    more = script(sample.experiment, "fast", run=trained, seed=1, samples=5, images_at_once=4).result
    drawn = [tensors(result)[0]["samples"] for result in (few, more)]
    assert [part.shape[0] for part in drawn] == [2, 5]
    assert torch.equal(drawn[0], drawn[1][:2])
    assert len(drawn[1].flatten(0, 1).unique(dim=0)) == 10


def test_models_are_drawn_from_side_by_side(trained: str, script: Any) -> None:
    settings = {"task": {"size": 12}, "model": {"planes": 6}}
    other = str(script(train.experiment, "hershey", "conditional", "fast", **settings).result["folder"])
    both = script(sample.experiment, "fast", run=trained, against=[other], seed=1, pixels=2).result
    alone = [script(sample.experiment, "fast", run=run, seed=1).result for run in (trained, other)]
    drawn = tensors(both)[0]
    assert torch.equal(drawn["samples"], tensors(alone[0])[0]["samples"])
    assert torch.equal(drawn["against_0"], tensors(alone[1])[0]["samples"])
    widths = [_size(result["picture"])[0] for result in (both, *alone)]
    assert widths[0] > widths[1] == widths[2]
    assert _size(both["attention"])[1] == 2 * 3 * 14
    assert alone[1]["attention"] is None
    larger = str(script(train.experiment, "hershey", "attention", "fast", task={"size": 8}).result["folder"])
    with pytest.raises(ValueError, match="different pixels"):
        script(sample.experiment, "fast", run=trained, against=[larger])


def _size(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_images_are_completed(trained: str, script: Any) -> None:
    result = script(sample.experiment, "fast", run=trained, observed="top").result
    held, header = tensors(result)
    assert (held["samples"][..., :6, :] == held["query"][..., :6, :]).all()
    assert not (held["samples"][..., 6:, :] == held["query"][..., 6:, :]).all()
    assert header["observed"] == "top"
    with Image.open(result["picture"]) as picture, Image.open(_plain(trained, script)) as without:
        assert picture.width > without.width, "the query is shown beside its completions"


def _plain(trained: str, script: Any) -> str:
    return str(script(sample.experiment, "fast", run=trained).result["picture"])


def test_what_is_approximate_must_be_said(trained: str, script: Any) -> None:
    with pytest.raises(ValueError, match="approximate=True"):
        script(sample.experiment, "fast", run=trained, observed="left")
    result = script(sample.experiment, "fast", run=trained, observed="left", approximate=True).result
    held, header = tensors(result)
    assert (held["samples"][..., :6] == held["query"][..., :6]).all()
    assert header["approximate"] is True
    with pytest.raises(ValueError, match="choose 'top'"):
        script(sample.experiment, "fast", run=trained, observed="bottom")


def test_the_temperature_reaches_the_pixels(trained: str, script: Any) -> None:
    drawn = [
        tensors(script(sample.experiment, "fast", run=trained, temperature=temperature).result)[0]["samples"]
        for temperature in (1.0, 1e-3)
    ]
    assert not torch.equal(*drawn)
    assert len(drawn[1].unique(dim=0)) == 1, "next to zero all samples of a class are the same"


def test_an_interruption_loses_nothing_that_is_finished(
    trained: str, script: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tensors(script(sample.experiment, "fast", run=trained, samples=4).result)[0]["samples"]
    draw, calls = PixelCNNDensity._drawn, []

    def interrupted(self: Any, *arguments: Any) -> Tensor:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, *arguments)

    monkeypatch.setattr(PixelCNNDensity, "_drawn", interrupted)
    before = set(runs.iterdir())
    with pytest.raises(KeyboardInterrupt):
        script(sample.experiment, "fast", run=trained, samples=4, images_at_once=2)
    (folder,) = set(runs.iterdir()) - before
    kept = read_tensors(folder / "samples.safetensors")[0]["samples"]
    assert torch.equal(kept, whole[:2])
    assert (folder / "samples.png").is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"


def test_models_of_the_support_alone_are_sampled_too(script: Any) -> None:
    run = script(train.experiment, "hershey", "fast", task={"size": 12}, model={"name": "support_mixture"}).result
    result = script(sample.experiment, "fast", run=run["folder"]).result
    assert tensors(result)[0]["samples"].shape == (2, 2, 1, 12, 12)
    assert RunFolder(run["folder"]).config()["model"]["name"] == "support_mixture"
    seen = tensors(script(sample.experiment, "fast", run=run["folder"], observed="top").result)[0]
    assert torch.equal(seen["samples"][..., :6, :], seen["query"][..., :6, :].expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("name", ["samples", "tasks", "images_at_once"])
def test_none_to_draw_is_refused(name: str, trained: str, script: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=0; give at least 1"):
        script(sample.experiment, "fast", run=trained, **{name: 0})


def test_a_run_that_holds_no_model_says_which_one_it_used(trained: str, script: Any) -> None:
    drawn = script(sample.experiment, "fast", run=trained).result["folder"]
    with pytest.raises(FileNotFoundError, match="is no training and holds no model; it used run="):
        find_model(drawn)

"""Drawing given examples of one's own: what is said, scored and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import metadensity
from experiments import sample, train
from experiments.recording.trained_model import find_model
from metadensity.files import read_tensors
from tasks.own import own_support


@pytest.fixture(scope="module")
def trained(script: Any) -> str:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12}, model={"planes": 6}, seed=3)
    return str(run.result["folder"])


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for number in range(3):
        image = Image.new("L", (200, 150), 255)
        ImageDraw.Draw(image).line([(60, 30), (90 + 9 * number, 110), (140, 40)], fill=0, width=2 + 5 * number)
        image.save(folder / f"{number}.png")
    return folder


def test_drawings_are_scored_given_one_another_and_drawn_from(
    trained: str, drawings: Path, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    result = script(sample.experiment, "fast", run=trained, support=str(drawings), samples=5).result
    model = find_model(trained).model()
    own = own_support(drawings, model)
    held, header = read_tensors(result["tensors"])
    assert torch.equal(held["support"], own.support)
    assert held["samples"].shape == (5, 1, 1, 12, 12)
    assert header["notes"] == result["notes"] == own.notes
    density = model(own.support[1:])
    with torch.no_grad():
        first = -float(density.log_prob(own.support[:1])[0, 0])
        prior = -float(model(own.support[:0]).log_prob(own.support[:1])[0, 0])
    assert result["nats_given_others"][0] == pytest.approx(first, abs=1e-3)
    assert result["nats_prior"][0] == pytest.approx(prior, abs=1e-3)
    said = capsys.readouterr().out
    for words in (*own.notes, "given the 2 others, nats/image", "given nothing, nats/image", f"{first:.2f}", "0.png"):
        assert words in said
    with Image.open(result["picture"]) as picture:
        pixels = np.asarray(picture)
    seen = np.where(own.support[0, 0, 0].numpy() == 1, 0, 255)
    zoom = round(104 / 12)
    shown = np.kron(seen, np.ones((zoom, zoom))).astype(np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(pixels[:200, :300, 0], shown.shape)
    assert (windows == shown).all((-1, -2)).any(), "the drawing as the model sees it stands in the picture"


def test_the_same_drawing_twice_is_scored_and_no_leak(trained: str, drawings: Path, script: Any) -> None:
    twice = [str(drawings / "0.png")] * 2
    result = script(sample.experiment, "fast", run=trained, support=twice).result
    assert result["nats_given_others"][0] == pytest.approx(result["nats_given_others"][1], abs=1e-4)
    alone = script(sample.experiment, "fast", run=trained, support=twice[:1], fit="whole").result
    assert alone["nats_given_others"] is None
    assert len(alone["nats_prior"]) == 1
    with pytest.raises(ValueError, match="fit='crop', but the model is one of drawings"):
        script(sample.experiment, "fast", run=trained, support=twice, fit="crop")


@pytest.mark.parametrize("setting", [{"against": ["names-bytenet"]}, {"observed": "top"}, {"pixels": 2}])
def test_what_drawings_of_ones_own_have_not_is_refused(
    setting: dict[str, Any], trained: str, drawings: Path, script: Any
) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}=.* with support=.*; leave it out"):
        script(sample.experiment, "fast", run=trained, support=str(drawings), **setting)


def test_strings_are_read(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"task": {"length": 10}, "model": {"name": "ngram", "end": True}, "training": {"shots": [0, 1]}}
    run = str(script(train.experiment, "names", "fast", **settings).result["folder"])
    (tmp_path / "mine.txt").write_text("Anna\nHanna\n")
    result = script(sample.experiment, "fast", run=run, support=str(tmp_path / "mine.txt")).result
    assert result["names"] == ["'Anna'", "'Hanna'"]
    assert "given the 1 other, nats/string" in capsys.readouterr().out
    assert '"Hanna"' in Path(result["text"]).read_text()
    model = find_model(run).model()
    own = own_support(["Anna", "Hanna"], model)
    scores = metadensity.evaluate(model, [own.leave_one_out()])
    assert scores.scores[1].nats.tolist() == pytest.approx(result["nats_given_others"])

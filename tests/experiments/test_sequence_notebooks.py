"""Notebooks and figures of strings and sounds: a run of such a task is read and played where others are seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from experiments import train
from experiments.figures.on_axes import draw_events
from experiments.figures.shown import Events
from experiments.figures.sounds import sound_figure
from experiments.figures.surprise import surprise_figure
from tasks.media import Images, Sequences, Strings

NET = {"name": "wavenet", "layers": 2, "planes": 4, "penultimate": 4}


def test_samples_of_strings_are_read(script: Any, executed: Any) -> None:
    run = script(train.experiment, "names", "fast", model=NET).result["folder"]
    out, images = executed("explore_samples", run=run)
    assert "on names (1, 16)" in out
    assert images == []
    none, given = map(float, re.findall(r"([\d.]+) nats given none, ([\d.]+) given 8", out)[0])
    assert 20 < none < 100, "the cost of a name, not of the ends that fill it up"
    assert given > 0


def test_samples_of_sounds_are_heard(script: Any, executed: Any, data_root: Path) -> None:
    task = {"length": 400, "data_root": str(data_root)}
    run = script(train.experiment, "speech", "fast", task=task, model=NET).result["folder"]
    out, images = executed("explore_samples", run=run)
    assert all(f"00 {name}\n" in out for name in ("support 0", "support 3", "sample 7"))
    assert "01 sample 0" not in out
    assert images[0].shape == (6 * 82, (4 + 8) * 162 + 1, 3)
    out, _ = executed("next_utterance", run=run, seconds=0.1, known=0.03)
    assert "trained on 400 samples, on 800 of 8000 a second" in out
    assert re.findall(r"(\d) shots: [\d.]+ bits/sample, \d+ nats/recording", out) == ["0", "1", "2", "4", "8"]
    assert re.search(r"8 utterances save -?[\d.]+ nats/recording", out)


def test_strings_stand_along_their_costs() -> None:
    events = torch.tensor([[[0, 1, 2, 2]], [[1, 1, 0, 1]]])
    nats = torch.tensor([[1.0, 2.0, 4.0, 99.0], [0.5, 0.5, 0.5, 0.5]])
    figure = surprise_figure(Strings("ab", end=2), events, {"0 shots": nats}, [3, 4])
    first, second = figure.axes
    assert [label.get_text() for label in first.get_xticklabels()] == ["a", "b", "end"]
    assert [label.get_text() for label in second.get_xticklabels()] == ["b", "b", "a", "b"]
    assert first.lines[0].get_ydata().tolist() == [1, 2, 4]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["0 shots: 7.0 nats"]
    plain = surprise_figure(Sequences(), events, {"0 shots": nats})
    assert plain.axes[0].lines[0].get_ydata().tolist() == nats[0].tolist()


def test_images_stand_above_their_costs() -> None:
    events = torch.tensor([[[[0, 1], [1, 1]]]])
    figure = surprise_figure(Images(2), events, {"none": torch.ones(1, 2, 2), "all": torch.zeros(1, 2, 2)})
    image, none, given = figure.axes
    assert image.images[0].get_array()[..., 0].tolist() == [[0, 255], [255, 255]]
    assert (none.get_title(), given.get_title()) == ("4.0 nats", "0.0 nats")
    assert none.images[0].get_clim() == given.images[0].get_clim() == (0, 1)


def test_sounds_have_their_seconds_and_hertz() -> None:
    rate = 4000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2000) / rate)
    figure = sound_figure([(tone, rate), (tone[:1000], rate)], ["one", "half"], known=0.1)
    waves = figure.axes[:2]
    assert [axis.get_title() for axis in waves] == ["one", "half"]
    assert [axis.lines[0].get_xdata()[-1] for axis in waves] == pytest.approx([0.49975, 0.24975])
    mesh = figure.axes[2].collections[0]
    loudest = mesh.get_array().reshape(-1, mesh.get_coordinates().shape[1] - 1).mean(1).argmax()
    bands = (mesh.get_coordinates()[:-1, 0, 1] + mesh.get_coordinates()[1:, 0, 1]) / 2
    assert bands[loudest] == pytest.approx(1000)
    assert {tuple(axis.lines[-1].get_xdata()) for axis in figure.axes} == {(0.1, 0.1)}


def test_text_on_axes_is_cut_and_taken_as_it_is() -> None:
    _, axes = plt.subplots()
    events = Events("sample", torch.zeros(50, 1, 1, 100, dtype=torch.long))
    draw_events(axes, Strings("$"), [events], ["a class"])
    (text,) = axes.texts
    lines = text.get_text().split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("a class", "...", 41)
    assert lines[1].startswith('  sample  "$$$$')
    assert lines[1].endswith(" ...")
    axes.figure.canvas.draw()
    plt.close("all")

"""Samples of sounds and strings: as files to hear and to read, in TensorBoard, and completed from their start."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments import evaluate, sample, train
from experiments.figures.images import draw_samples
from experiments.figures.shown import Events, as_text, events_of, grid, parse_text
from experiments.ingredients.task import task_of
from experiments.recording.event_files import read_events
from experiments.recording.run_folder import RunFolder
from experiments.sample import part_of
from metadensity import Episode
from metadensity.files import read_tensors
from metadensity.models import WaveNet
from tasks import TASKS
from tasks.media import Images, Medium, Strings
from tasks.pens import decode, image, in_unit_square
from tasks.speech import mu_law
from tasks.speech.sound_files import read_sound

RATE = 2000
SMALL = {"name": "wavenet", "layers": 2, "planes": 4, "penultimate": 4}


@pytest.fixture(scope="module")
def speech(script: Any, data_root: Path) -> RunFolder:
    """A net on whole recordings at a quarter of their rate: most have fewer samples than there is room for."""
    task = {"length": 1500, "lengths": True, "rate": RATE, "data_root": str(data_root)}
    model = SMALL
    run = script(train.experiment, "fast", task={"name": "speech", **task}, model=model, training={"shots": [0, 2]})
    return RunFolder(run.result["folder"])


@pytest.fixture(scope="module")
def names(script: Any) -> RunFolder:
    model = SMALL
    return RunFolder(script(train.experiment, "names", "fast", model=model).result["folder"])


def codes(path: Path) -> list[int]:
    samples, rate = read_sound(path)
    assert rate == RATE
    return mu_law.encode(samples).codes.tolist()


def test_sounds_are_files_of_the_very_codes(speech: RunFolder, script: Any) -> None:
    result = script(sample.experiment, run=str(speech.path), tasks=2, shots=2, samples=1).result
    held, _ = read_tensors(result["tensors"])
    folder = Path(result["sounds"])
    assert len(list(folder.iterdir())) == 2 * (2 + 1 + 1)
    ends = []
    for task in range(2):
        assert codes(folder / f"{task:02}-sample-0.wav") == held["samples"][0, task, 0].tolist()
        for shot in range(2):
            heard = codes(folder / f"{task:02}-support-{shot}.wav")
            assert heard == held["support"][shot, task, 0, : len(heard)].tolist()
            assert (held["support"][shot, task, 0, len(heard) :] == 128).all(), "what is left out is padding"
            ends.append(len(heard))
    assert min(ends) < 1500, "a recording that is shorter ends where it ends"
    with Image.open(result["picture"]) as picture:
        assert picture.size == (3 * 162 + 1, 2 * 82)
    assert result["text"] is None


def test_samples_are_given_the_lengths_of_their_supports(
    speech: RunFolder, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a model that reads lengths would take the padding of a support for content."""
    given: list[Tensor] = []
    condition = WaveNet.condition_on_lengths

    def spy(self: WaveNet, support: Tensor, lengths: Tensor) -> Any:
        given.append(lengths)
        return condition(self, support, lengths)

    monkeypatch.setattr(WaveNet, "condition_on_lengths", spy)
    result = script(sample.experiment, run=str(speech.path), tasks=2, shots=2, samples=1).result
    episode = task_of(speech, "test").episode(0, tasks=2, shots=2, queries=1)
    assert draw_samples(speech.model(), episode, 1, seed=0).shape == (1, 2, 1, 1500)
    assert episode.support_lengths is not None
    assert [lengths.tolist() for lengths in given] == [episode.support_lengths.tolist()] * 2
    for shot, row in enumerate(episode.support_lengths.tolist()):
        for task, length in enumerate(row):
            assert len(codes(Path(result["sounds"]) / f"{task:02}-support-{shot}.wav")) == length


def test_a_sound_goes_on_from_its_start(speech: RunFolder, script: Any) -> None:
    settings = {"run": str(speech.path), "tasks": 2, "shots": 1, "samples": 2}
    result = script(sample.experiment, **settings, observed=100).result
    held, header = read_tensors(result["tensors"])
    assert header["observed"] == 100
    assert (held["samples"][..., :100] == held["query"][..., :100]).all()
    assert not (held["samples"][..., 100:200] == held["query"][..., 100:200]).all()
    assert codes(Path(result["sounds"]) / "01-completion-1.wav") == held["samples"][1, 1, 0].tolist()
    half = script(sample.experiment, **settings, observed="top").result
    held, _ = read_tensors(half["tensors"])
    query = codes(Path(half["sounds"]) / "00-query-0.wav")
    known = len(query) // 2
    assert held["samples"][0, 0, 0, :known].tolist() == query[:known]
    assert held["samples"][0, 0, 0, known : known + 20].tolist() != query[known : known + 20]
    for wrong in (0, 1500, "bottom"):
        with pytest.raises(ValueError, match="a number of places from 1 to 1499"):
            script(sample.experiment, **settings, observed=wrong)


def test_strings_are_read_and_completed(names: RunFolder, script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"run": str(names.path), "tasks": 2, "shots": 3, "samples": 2}
    result = script(sample.experiment, **settings).result
    held, _ = read_tensors(result["tensors"])
    said = Path(result["text"]).read_text()
    assert said in capsys.readouterr().out
    assert (result["picture"], result["sounds"]) == (None, None)
    alphabet = "".join(TASKS["names"](split="test").recipe["alphabet"])
    found = parse_text(said)
    assert len(found) == 2
    for task, (_, lines) in enumerate(found):
        assert [name for name, _ in lines] == ["support"] * 3 + ["query"] + ["sample"] * 2
        for shot in range(3):
            assert lines[shot][1] == _string(held["support"][shot, task, 0], alphabet)
            assert 0 < len(lines[shot][1]) <= 16
        assert lines[-1][1] == _string(held["samples"][1, task, 0], alphabet)
    completed = script(sample.experiment, **settings, observed="top").result
    for _, lines in parse_text(Path(completed["text"]).read_text()):
        query = dict(lines)["query"]
        for name, string in lines:
            if name == "completion":
                assert string.startswith(query[: (len(query) + 1) // 2])


def _string(levels: Tensor, alphabet: str) -> str:
    """The twin: character by character up to the last level."""
    found = ""
    for level in levels.tolist():
        if level == len(alphabet):
            break
        found += alphabet[level]
    return found


def test_tensorboard_plays_sounds(speech: RunFolder) -> None:
    import wave

    events = read_events(speech.path / "tensorboard")
    assert events.Tags()["images"] == ["support beside samples"]
    tags = events.Tags()["audio"]
    assert len(tags) == 6 * (2 + 1 + 6)
    folder = speech.path / "samples" / "validation"
    for name in ("00 support 1", "05 sample 3"):
        (event,) = events.Audio(f"support beside samples/{name}")
        with wave.open(io.BytesIO(event.encoded_audio_string)) as file:
            whole = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert event.sample_rate == RATE
        kept = codes(folder / f"{name.replace(' ', '-')}.wav")
        assert mu_law.encode(whole / 32768).codes.tolist() == kept


def test_tensorboard_shows_strings(names: RunFolder) -> None:
    events = read_events(names.path / "tensorboard")
    assert events.Tags()["images"] == events.Tags()["audio"] == []
    (event,) = events.Tensors("support beside samples/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    kept = (names.path / "samples" / "validation.txt").read_text()
    assert all(line.startswith("    ") for line in shown.rstrip("\n").split("\n")), "verbatim in Markdown"
    assert [line[4:] for line in shown.rstrip("\n").split("\n")] == kept.rstrip("\n").split("\n")


def test_reports_of_strings_and_sounds_name_their_units(names: RunFolder, speech: RunFolder, script: Any) -> None:
    for run, noun, dim in ((names, "string", "character"), (speech, "recording", "sample")):
        done = script(evaluate.experiment, "fast", run=str(run.path), shots=[0, 2], limit=4, baselines=False)
        folder = Path(done.result["folder"])
        report = (folder / "evaluation.md").read_text()
        assert f"| shots | nats/{dim} | bits/{dim} | nats/{noun} | 95 % interval |" in report
        assert f"{noun}s of 4 class" in report
        assert f"use of the support at 2 shots, nats/{noun};" in report.lower()
        assert "image" not in report
        assert "/dim" not in report
        assert done.result["words"] == {"noun": noun, "dim": dim}


def test_a_text_holds_what_breaks_lines() -> None:
    medium = Strings('a\n" \\\u2028é')
    events = [Events("support", torch.arange(7).view(1, 1, 1, 7)), Events("against 0", torch.tensor([[[[6, 0]]]]))]
    assert parse_text(as_text(medium, events, ["title"])) == [
        ("title", [("support", 'a\n" \\\u2028é'), ("against 0", "éa")])
    ]


def test_what_cannot_be_shown_is_not() -> None:
    events = [Events("support", torch.zeros(2, 1, 2, 3, 3, dtype=torch.long))]
    assert grid(Medium(), events) is None
    assert as_text(Medium(), events, ["title"]) == ""
    assert grid(Images(2), [Events("sample", torch.zeros(1, 1, 1, 3, 3, dtype=torch.long), block=None)]) is None


def test_the_grid_has_its_blocks_in_order() -> None:
    def shade(level: int, count: int) -> Tensor:
        return torch.full((count, 1, 1, 4, 4), level)

    episode = Episode(shade(1, 2), shade(2, 1))
    picture = grid(Images(256), events_of(episode, [shade(3, 2), shade(4, 1)], completed=True))
    assert picture is not None
    row = [level for level in picture[3, :, 0].tolist() if level != 255]
    assert row == [1] * 8 + [150] + [2] * 4 + [3] * 8 + [150] + [4] * 4
    plain = grid(Images(256), events_of(episode, [shade(3, 1)]))
    assert plain is not None
    assert 2 not in plain, "a query stands in no picture of samples"
    none = grid(Images(256), events_of(Episode(shade(1, 0), shade(2, 1)), [shade(3, 1)]))
    assert none is not None
    assert [level for level in none[3, :, 0].tolist() if level != 255] == [3] * 4


def test_half_of_a_sequence_is_half_of_its_own_length() -> None:
    query = torch.zeros(1, 2, 1, 10, dtype=torch.long)
    episode = Episode(query, query, query_lengths=torch.tensor([[10, 5]]))
    assert part_of("top", episode).sum(-1).flatten().tolist() == [5, 2]
    assert part_of(7, episode).sum(-1).flatten().tolist() == [7, 5]
    assert part_of("left", Episode(query, query)).sum(-1).flatten().tolist() == [5, 5]
    image = torch.zeros(1, 1, 1, 4, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="or None for samples"):
        part_of(2, Episode(image, image))


def test_pairs_are_translated(script: Any) -> None:
    """The source is kept, the target drawn; of tasks without sources that is refused."""
    task = {"symbols": 4, "shortest": 2, "longest": 3}
    run = script(train.experiment, "transduction", "fast", task=task, model=SMALL).result["folder"]
    result = script(sample.experiment, run=run, tasks=2, shots=1, samples=2, observed="given").result
    for _, lines in parse_text(Path(result["text"]).read_text()):
        source = dict(lines)["query"].split(">")[0]
        assert 2 <= len(source) <= 3
        assert set(source) <= set("abcd")
        assert [text.startswith(f"{source}>") for name, text in lines if name == "completion"] == [True, True]
    other = script(train.experiment, "names", "fast", model=SMALL).result["folder"]
    with pytest.raises(ValueError, match="the queries of names are no pairs"):
        script(sample.experiment, run=other, tasks=2, shots=1, samples=1, observed="given")


def test_drawings_of_a_pen_are_seen(script: Any) -> None:
    """Supports in the grid are the drawings themselves, pixel for pixel; TensorBoard has the same grid."""
    task = {"drawings": 6, "grid": 14, "length": 64}
    trained = script(train.experiment, "pens", "fast", task=task, model=SMALL)
    result = script(sample.experiment, run=trained.result["folder"], tasks=2, shots=2, samples=1).result
    held, _ = read_tensors(result["tensors"])
    with Image.open(result["picture"]) as opened:
        picture = np.asarray(opened)
    assert picture.shape == (2 * 30, 3 * 30 + 1, 3)
    for shot in range(2):
        strokes = in_unit_square(decode(held["support"][shot, 1, 0].numpy(), 14), 14)
        assert ((picture[31:59, 30 * shot + 1 :][:, :28, 0] == 0) == image(strokes, 28)).all()
    (event,) = read_events(Path(trained.result["folder"]) / "tensorboard").Images("support beside samples")
    with Image.open(io.BytesIO(event.encoded_image_string)) as seen, Image.open(trained.result["picture"]) as kept:
        assert (np.asarray(seen) == np.asarray(kept)).all()
    assert trained.result["words"] == {"noun": "drawing", "dim": "move"}

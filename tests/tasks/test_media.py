"""How events are shown: what is seen, heard and read of them, and what their units are called."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import TASKS, ImageTasks
from tasks.media import OF_IMAGES, Images, Medium, Sequences, Sounds, Strings, Volumes, Words, spectrogram, usual_medium
from tasks.speech import mu_law
from tasks.speech.sound_files import read_sound, wav

RATE = 8000


def sine(hertz: float, samples: int) -> torch.Tensor:
    """Codes ``(1, samples)`` of a loud tone."""
    wave = 0.9 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)
    return torch.from_numpy(mu_law.encode(wave).codes.astype(np.int64))[None]


def test_every_code_survives_a_sound_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.arange(256)[None]
    samples, rate = Sounds(RATE, mu_law.SAMPLES).sound(codes)
    (tmp_path / "all.wav").write_bytes(wav(samples, rate))
    for missing in (False, True):  # by soundfile, and by the standard library
        if missing:
            monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
        read, found = read_sound(tmp_path / "all.wav")
        assert found == RATE
        assert mu_law.encode(read).codes.tolist() == list(range(256))
        assert np.abs(read - mu_law.SAMPLES).max() <= 2.0**-15


def test_a_sound_ends_where_it_is_said_to() -> None:
    medium, codes = Sounds(RATE, mu_law.SAMPLES), sine(1000, 400)
    assert [len(medium.sound(codes, length)[0]) for length in (1, 100, None)] == [1, 100, 400]
    whole, half = medium.picture(codes), medium.picture(codes, 200)
    assert whole.shape == half.shape == (80, 160, 3)
    assert (half[:20, 80:] == 255).all(), "no wave after the end"
    assert (half[40:, 80:] == 255).all(), "no spectrogram after the end"
    assert (whole[:20, 80:] < 255).any()


def test_the_spectrogram_has_the_tone_at_its_height() -> None:
    samples, rate = Sounds(RATE, mu_law.SAMPLES).sound(sine(1000, 1600))
    decibels, frequencies, seconds = spectrogram(samples, rate)
    assert (frequencies[decibels.mean(1).argmax()], seconds[-1] < 0.2) == (1000, True)
    assert decibels.max() == 0
    picture = Sounds(RATE, mu_law.SAMPLES).picture(sine(1000, 1600))[40:, :, 0]
    assert picture.mean(1).argmin() in (29, 30), "a quarter of the way up, of 40 rows"


def test_silence_is_not_loud() -> None:
    medium = Sounds(RATE, mu_law.SAMPLES)
    silent = medium.picture(torch.full((1, 300), 128))
    assert (silent[40:] == 255).all()
    assert medium.picture(torch.tensor([[200]]), 1).shape == (80, 160, 3), "one sample is a sound"
    assert np.unique(medium.picture(torch.tensor([[200]]), 0)).tolist() == [200, 255], "none: a line on white"


def test_strings_end_at_the_first_end() -> None:
    medium = Strings("ab c", end=4)
    assert medium.text(torch.tensor([[1, 2, 0, 3, 4, 0, 4]])) == "b ac"
    assert medium.text(torch.tensor([[4, 0]])) == ""
    assert medium.text(torch.tensor([[0, 1, 3]]), 2) == "ab"
    with pytest.raises(ValueError, match="level 4 is none of the 4 characters"):
        Strings("ab c").text(torch.tensor([[1, 4]]))


def test_what_is_known_of_nothing_but_its_shape() -> None:
    assert usual_medium((3, 4, 4), 256) == Images(256)
    assert usual_medium((1, 4, 4), 2, ink=True) == Images(2, ink=True)
    assert usual_medium((2, 5), 12) == Sequences()
    assert Sequences().text(torch.tensor([[10, 3, 7], [1, 0, 2]]), 2) == "10,1 3,0"
    assert usual_medium((1, 4, 4, 4), 2, ink=True) == Volumes(2, ink=True)
    for shape in ((2, 4, 4, 4), (2, 4, 4)):
        medium, event = usual_medium(shape, 2), torch.zeros(shape, dtype=torch.long)
        assert type(medium) is Medium
        assert (medium.picture(event), medium.sound(event), medium.text(event)) == (None, None, None)


def test_words_are_said_and_kept() -> None:
    words = Words("utterance", "sample")
    assert (words.nats, words.nats_per_dim, words.bits_per_dim) == ("nats/utterance", "nats/sample", "bits/sample")
    assert (words.one, words.nouns, Words("string").one) == ("an utterance", "utterances", "a string")
    assert Words.of_record(words.record()) == words
    assert Words.of_record(None) == Words.of_record({}) == OF_IMAGES == Words("image", "dim")


def test_tasks_say_what_they_are(data_root: Path) -> None:
    sounds = TASKS["speech"](split="test", length=200, rate=4000, data_root=data_root)
    codes = sounds.episode(0, 1, 0, 1).query[0, 0]
    samples, rate = sounds.medium.sound(codes)  # type: ignore[misc]
    assert rate == 4000
    assert mu_law.encode(samples).codes.tolist() == codes[0].tolist()
    text = TASKS["text"](split="test", length=30, passage=3, data_root=data_root)
    passage = (data_root / "text" / "tiny_shakespeare.txt").read_text()
    assert text.medium.text(text.episode(0, 1, 0, 1).query[0, 0]) in passage
    nouns = {name: TASKS[name](split="test").medium.words.nats for name in ("names", "chains", "templates", "hershey")}
    expected = {"names": "string", "chains": "sequence", "templates": "image", "hershey": "image"}
    assert nouns == {name: f"nats/{noun}" for name, noun in expected.items()}


def test_a_task_of_ones_own_says_it_or_falls_back() -> None:
    def made(**more: Medium) -> ImageTasks:
        return ImageTasks(
            "own", "test", 0, images=np.eye(4, dtype=np.uint8)[:, None], labels=[0, 0, 1, 1], class_names=["a", "b"],
            group_names=["g"], class_group=[0, 0], event_shape=(1, 4), levels=2, recipe={}, **more,
        )  # fmt: skip

    assert made().medium == Sequences()
    own = Strings("-x")
    assert made(medium=own).medium is own


def test_wav_clips_and_rounds() -> None:
    import wave

    with wave.open(io.BytesIO(wav(np.array([-1.5, -1.0, 0.0, 1.2 / 32768, 1.0]), 11025))) as file:
        assert file.getparams()[:4] == (1, 2, 11025, 5)
        assert np.frombuffer(file.readframes(5), "<i2").tolist() == [-32768, -32768, 0, 1, 32767]

"""Other voices: a part of the training tasks, one voice a task, a pure function of seed and index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import DataError
from tasks.data import notices
from tasks.speech import mu_law
from tasks.speech.task import SILENCE
from tasks.speech.voices import Voice

from .test_speech import fsdd_like, make

__all__ = ["fsdd_like"]
PLAIN = Voice(1.0, 0.0, 1.0, 0.0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_voice_that_changes_nothing_and_each_change_by_hand() -> None:
    codes = mu_law.encode(np.sin(np.arange(400) / 9) * 0.3).codes
    samples = mu_law.SAMPLES[codes]
    assert (PLAIN.of(codes, 400, rng()) == codes).all()
    assert (PLAIN.of(codes, 100, rng()) == codes[:100]).all()
    assert (replace(PLAIN, gain=0.5).of(codes, 400, rng()) == mu_law.encode(samples / 2).codes).all()
    assert (replace(PLAIN, speed=2.0).of(codes, 400, rng()) == codes[::2]).all()
    slow = replace(PLAIN, speed=0.5).of(codes, 2000, rng())
    assert len(slow) == 800
    assert (slow[:798:2] == codes[:399]).all()
    before = np.concatenate([[0], samples[:-1]])
    assert (replace(PLAIN, tilt=0.25).of(codes, 400, rng()) == mu_law.encode(samples + 0.25 * before).codes).all()
    noisy = mu_law.SAMPLES[replace(PLAIN, noise=0.01).of(codes, 400, rng())] - samples
    assert 0.008 < noisy.std() < 0.012
    assert replace(PLAIN, gain=9.0).of(codes, 400, rng()).max() == 255


def test_a_part_of_the_training_tasks_and_of_no_other_split(fsdd_like: Path) -> None:
    settings = {"length": 300, "lengths": True, "by": "speaker"}
    plain, voiced = make(fsdd_like, **settings), make(fsdd_like, voices=0.5, **settings)
    one, other, again = (task.episode(3, 40, 2, 1) for task in (plain, voiced, voiced))
    assert torch.equal(other.query, again.query)
    assert torch.equal(one.query_ids, other.query_ids)  # type: ignore[arg-type]
    moved = (one.query != other.query).flatten(2).any(2)[0]
    assert 10 <= int(moved.sum()) <= 30  # of 40, half of them expected; outside with probability 0.0007
    assert torch.equal((one.support != other.support).flatten(2).any(2)[0], moved)
    assert other.query_lengths is not None
    assert torch.equal(one.query[:, ~moved], other.query[:, ~moved])
    for clip, length in zip(other.query[0, :, 0], other.query_lengths[0], strict=True):
        assert (clip[int(length) :] == SILENCE).all()
    fewer = voiced.episode(3, 5, 2, 1)
    assert torch.equal(fewer.query, other.query[:, :5])
    assert plain.fingerprint == voiced.fingerprint
    assert plain.recipe != voiced.recipe
    for split in ("validation", "test", "train+test"):
        assert make(fsdd_like, split, voices=1.0, **settings).recipe == make(fsdd_like, split, **settings).recipe


def test_another_corpus_beside(fsdd_like: Path, data_root: Path) -> None:
    settings = {"length": 8000, "lengths": True, "by": "speaker"}
    train = make(fsdd_like, beside="commands", **settings)
    assert train.classes == make(fsdd_like, **settings).classes + 22
    assert train.recipe["beside"] == "commands"
    tested = make(fsdd_like, "test", beside="commands", **settings)
    assert tested.recipe == make(fsdd_like, "test", **settings).recipe


def test_another_corpus_is_not_beside_its_own_speakers_held_out(fsdd_like: Path, data_root: Path) -> None:
    for path in list(fsdd_like.glob("*_bob_*.wav")):
        path.rename(path.with_name(path.name.replace("bob", "theo")))
    settings = {"length": 256, "by": "speaker", "beside": "fsdd", "data_root": data_root}
    with pytest.raises(ValueError, match=r"beside='fsdd' would train on theo, who are held out here"):
        make(fsdd_like, held_out="theo", **settings)
    assert any(name.startswith("fsdd: theo") for name in make(fsdd_like, held_out="cy", **settings).group_names)


def test_a_joined_split_says_that_it_has_no_more_voices(fsdd_like: Path) -> None:
    notices.SAID.clear()
    make(fsdd_like, "train", voices=1.0, lengths=True)
    assert not any("of the split train alone" in said for said in notices.SAID)
    make(fsdd_like, "train+test", voices=1.0, lengths=True)
    assert any("train+test: beside=None and voices=1.0 are of the split train alone" in said for said in notices.SAID)


def test_what_is_refused(fsdd_like: Path) -> None:
    with pytest.raises(ValueError, match=r"voices=0\.5 with lengths=False; give a part from 0 to 1"):
        make(fsdd_like, voices=0.5)
    with pytest.raises(ValueError, match=r"voices=1\.5"):
        make(fsdd_like, voices=1.5, lengths=True)
    with pytest.raises(ValueError, match=r"beside='songs'; give None, or.* one of fsdd, commands"):
        make(fsdd_like, beside="songs")
    with pytest.raises((ValueError, DataError), match="beside='commands'"):
        make(fsdd_like, beside="commands", by="word")


def test_words_that_are_drawn_together_are_of_one_speaker_in_one_voice(
    fsdd_like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The voice would tell rivals apart, not the word."""
    heard: list[Voice] = []
    of = Voice.of
    monkeypatch.setattr(Voice, "of", lambda voice, *rest: heard.append(voice) or of(voice, *rest))
    source = make(fsdd_like, voices=1.0, length=300, lengths=True, by="speaker+word")
    episode = source.grouped_episode(0, 4, 1, 1, 2)
    assert episode.group_ids is not None
    assert episode.group_ids[0] == episode.group_ids[1]
    assert episode.group_ids[2] == episode.group_ids[3]
    assert [heard[0]] * 4 == heard[:4]  # two tasks, a query and a support of each
    assert [heard[4]] * 4 == heard[4:]
    assert heard[0] != heard[4]

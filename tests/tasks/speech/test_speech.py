"""Speech: codes by our rule whatever the file, splits by speaker, windows and whole recordings, and what is refused."""

from __future__ import annotations

import struct
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tasks import SPLITS, TASKS, DataError, ImageTasks, StoredEpisodes
from tasks.data.notices import SAID
from tasks.episodes.nway import draw_nway
from tasks.speech import mu_law
from tasks.speech.corpora import sound_folder
from tasks.speech.sound_files import read_sound

RATE = 8000


def write(path: Path, whole: Any, width: int = 2, rate: int = RATE, channels: int = 1) -> Path:
    """A WAV of whole numbers, by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        shift = 128 if width == 1 else 0
        file.writeframes(b"".join(int(n + shift).to_bytes(width, "little", signed=width > 1) for n in whole))
    return path


def tone(samples: int, seed: int, offset: int = 0) -> np.ndarray:
    """16-bit numbers that are not silent."""
    return np.random.default_rng(seed).integers(-9000, 9000, samples) + offset


@pytest.fixture
def fsdd_like(tmp_path: Path) -> Path:
    """Four speakers, two words, three takes each, called as FSDD's; of 300 to 302 samples."""
    for who, speaker in enumerate(["ann", "bob", "cy", "dee"]):
        for word in (0, 1):
            for take in range(3):
                samples = tone(300 + take, seed=100 * who + 10 * word + take, offset=50 * who)
                write(tmp_path / "recordings" / f"{word}_{speaker}_{take}.wav", samples)
    return tmp_path / "recordings"


def make(folder: Path, split: str = "train", **options: Any) -> ImageTasks:
    task = TASKS["speech"](split=split, folder=folder, **{"length": 256, **options})
    assert isinstance(task, ImageTasks)
    return task


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_both_readers_follow_the_rule(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2 ** (8 * width - 1)
    whole = [-most, -most + 1, -1, 0, 1, most // 3, most - 1]
    path = write(tmp_path / "a.wav", whole, width)
    expected = np.array(whole) / most
    found, rate = read_sound(path)
    assert (found.tolist(), rate) == (expected.tolist(), RATE)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    found, rate = read_sound(path)
    assert (found.tolist(), rate) == (expected.tolist(), RATE)


def test_flac_and_floats_are_read_by_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tone(100, seed=0).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", whole, RATE)
    assert (read_sound(tmp_path / "a.flac")[0] == whole / 32768).all()
    loud = np.array([0.25, -1.5, 1.01])
    soundfile.write(tmp_path / "b.wav", loud, RATE, subtype="DOUBLE")
    assert (read_sound(tmp_path / "b.wav")[0] == loud).all()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"a\.flac is no WAV file, and others take soundfile. Install it: pip install"):
        read_sound(tmp_path / "a.flac")
    with pytest.raises(DataError, match=r"b\.wav cannot be read as whole-number WAV \(unknown format: 3\)"):
        read_sound(tmp_path / "b.wav")


def test_what_is_no_sound_of_one_channel_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mu.wav", tone(9, 0).astype(np.int16), RATE, subtype="ULAW")
    with pytest.raises(DataError, match=r"mu\.wav holds samples of format ULAW\. G\.711 is another alphabet"):
        read_sound(tmp_path / "mu.wav")
    with pytest.raises(DataError, match=r"two\.wav has 2 channels"):
        read_sound(write(tmp_path / "two.wav", [1, 2, 3, 4], channels=2))
    with pytest.raises(DataError, match=r"none\.wav holds no samples"):
        read_sound(write(tmp_path / "none.wav", []))
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"text\.wav cannot be read as sound"):
        read_sound(tmp_path / "text.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav holds samples that are no finite numbers"):
        read_sound(tmp_path / "nan.wav")


def test_a_cut_file_of_the_standard_library_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = write(tmp_path / "a.wav", [1, 2, 3, 4])
    path.write_bytes(path.read_bytes()[:-3])
    assert (read_sound(path)[0] * 32768).tolist() == [1, 2]
    header = bytearray(write(tmp_path / "b.wav", [1, 2]).read_bytes())
    header[20:22] = struct.pack("<H", 7)
    (tmp_path / "b.wav").write_bytes(header)
    with pytest.raises(DataError, match=r"unknown format: 7"):
        read_sound(tmp_path / "b.wav")


def test_windows_are_the_middle_and_codes_are_those_of_the_samples(fsdd_like: Path) -> None:
    task = make(fsdd_like, "train+validation+test")
    assert (task.event_shape, task.levels, task.images, task.group_noun) == ((1, 256), 256, 24, "speaker")
    assert task.class_names[:2] == [f"{task.group_names[0]}: {word}" for word in (0, 1)]
    assert sorted(task.group_names) == ["ann", "bob", "cy", "dee"]
    number = task.class_names.index("bob: 1")
    found = task.pixels(np.flatnonzero(task.labels == number))[:, 0].numpy()
    for take in range(3):
        samples = tone(300 + take, seed=110 + take, offset=50) / 32768
        start = (300 + take - 256) // 2
        assert (found[take] == mu_law.encode(samples).codes[start : start + 256]).all()
    assert task.episode(0, 2, 1, 1).support_lengths is None


def test_whole_recordings_have_lengths(fsdd_like: Path) -> None:
    task = make(fsdd_like, length=301, lengths=True)
    assert any("recordings are cut to 301 samples" in line and "4 of 12" in line for line in SAID)
    counts = [300, 301, 301] * 4
    assert task.lengths(range(12)).tolist() == counts  # type: ignore[union-attr]
    assert (task.pixels(np.arange(0, 12, 3))[..., 300:] == 128).all()
    episode = task.episode(3, tasks=5, shots=1, queries=2)
    for part in ("support", "query"):
        ids, lengths = getattr(episode, f"{part}_ids"), getattr(episode, f"{part}_lengths")
        assert torch.equal(lengths, torch.tensor(counts)[ids])
    stored = StoredEpisodes.build(task, [1], 2)
    for batch in stored.episodes(task, 1, 99):
        assert batch.query_lengths is not None
        assert torch.equal(batch.query_lengths, torch.tensor(counts)[batch.query_ids])
    assert make(fsdd_like, length=301).fingerprint != task.fingerprint
    one = draw_nway(task, 0, ways=2, shots=1, queries=2)
    for pixels, known in ((one.support, one.support_lengths), (one.query, one.query_lengths)):
        assert known is not None
        for sequence, length in zip(pixels.flatten(0, -3), known.flatten(), strict=True):
            (number,) = (i for i in range(12) if torch.equal(task.pixels(i), sequence))
            assert int(length) == counts[number]


@pytest.mark.parametrize(("by", "classes"), [("speaker", 2), ("word", 2), ("speaker+word", 4), (None, 4)])
def test_classes_are_speakers_words_or_both(fsdd_like: Path, by: str | None, classes: int) -> None:
    parts = [make(fsdd_like, split, by=by) for split in SPLITS]
    assert parts[0].classes == classes
    assert [part.images for part in parts] == [12, 6, 6]
    if by == "word":
        assert [part.class_names for part in parts] == [["0", "1"]] * 3
    else:
        groups = [set(part.group_names) for part in parts]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert parts[0].recipe["by"] == (by or "speaker+word")


def test_one_speaker_is_held_out(fsdd_like: Path) -> None:
    names = {split: make(fsdd_like, split, held_out="dee").group_names for split in SPLITS}
    assert names == {"train": ["bob", "cy"], "validation": ["ann"], "test": ["dee"]}
    with pytest.raises(ValueError, match="held_out='eve'; give one of ann, bob, cy, dee"):
        make(fsdd_like, held_out="eve")


def test_the_offset_is_taken_out_and_clipping_counted(fsdd_like: Path, tmp_path: Path) -> None:
    task = make(fsdd_like, "train+validation+test", length=300, centred=True)
    first = task.pixels([np.flatnonzero(task.labels == task.class_names.index("dee: 1"))[0]])[0, 0].numpy()
    samples = tone(300, seed=310, offset=150) / 32768
    assert (first == mu_law.encode(samples - np.median(samples)).codes).all()
    assert not (first == mu_law.encode(samples).codes).all()
    for who in "abc":
        for take in range(2):
            samples = np.full(40, 30_000)
            samples[:15] = -30_000 + take
            write(tmp_path / "loud" / who / f"{take}.wav", samples)
    make(tmp_path / "loud", "train", length=40, centred=True)
    assert "speech, folder, train: 30 samples beyond [-1, 1] are clipped." in SAID


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    time = np.arange(800) / 16_000
    samples = (9000 * np.sin(2 * np.pi * 440 * time)).astype(int)
    for who in "abc":
        for take in range(2):
            write(tmp_path / who / f"{take}.wav", samples, rate=16_000)
    task = make(tmp_path, length=200)
    found = mu_law.decode(task.pixels([0])[0, 0].numpy())
    expected = 9000 / 32768 * np.sin(2 * np.pi * 440 * (np.arange(200) + 100) / RATE)
    assert np.abs(found - expected).max() < 0.01
    assert (task.group_noun, task.recipe["by"]) == ("class", "word")
    assert make(tmp_path, length=400, rate=16_000).fingerprint != task.fingerprint


def test_short_recordings_are_left_out_and_said(fsdd_like: Path) -> None:
    write(fsdd_like / "1_ann_3.wav", tone(200, 1))
    kept = make(fsdd_like, "train+validation+test")
    assert kept.images == 24
    assert any("1 recordings are left out, as they have fewer than 256 samples" in line for line in SAID)
    with pytest.raises(DataError, match=r"no class has 2 recordings of 900 samples\. Give a smaller length"):
        make(fsdd_like, length=900)


def test_folders_that_are_none(tmp_path: Path, fsdd_like: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder"):
        make(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no WAV or FLAC files"):
        make(tmp_path / "empty")
    write(tmp_path / "mixed" / "a" / "0.wav", [1])
    write(tmp_path / "mixed" / "beside.wav", [1])
    with pytest.raises(DataError, match=r"holds 1 sound files beside its folders, such as beside\.wav"):
        make(tmp_path / "mixed")
    write(tmp_path / "one" / "a" / "0.wav", [1])
    with pytest.raises(DataError, match="holds the classes a; training, validation and test take three"):
        make(tmp_path / "one")
    with pytest.raises(ValueError, match="by='speaker', but in a folder of classes speakers are not known"):
        make(tmp_path / "one", by="speaker")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus": "timit"}, "corpus='timit'; give one of fsdd, commands, or folder="),
        ({"by": "digit"}, r"by='digit'; a class is one of speaker\+word, speaker, word"),
        ({"encoding": "g711"}, "encoding='g711'; there is 'mu-law-256', by the formula of the literature"),
        ({"length": 0}, "length=0; give at least 1"),
        ({"rate": 0}, "rate=0; give at least 1"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASKS["speech"](**options)


def test_other_archives_than_the_one_that_was_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fsdd_8k_ulaw\.npz is missing. Put the archive there"):
        TASKS["speech"](data_root=tmp_path)
    path = tmp_path / "speech" / "fsdd_8k_ulaw.npz"
    path.parent.mkdir()
    arrays = {"digit": [0], "speaker": [0], "take": [0], "speaker_name": ["x"], "ulaw": [1], "offset": [0, 1]}
    np.savez(path, **{key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(DataError, match="holds other recordings"):
        TASKS["speech"](data_root=tmp_path)
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="is damaged"):
        TASKS["speech"](data_root=tmp_path)


def zipped(folder: Path, path: Path, top: str = "free-spoken-digit-dataset-1.0.8/recordings") -> Path:
    """A zip as GitHub makes it: a folder at the top, and other files beside the recordings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("free-spoken-digit-dataset-1.0.8/README.md", "spoken digits")
        file.writestr("free-spoken-digit-dataset-1.0.8/piano/c.wav", "another sound")
        file.writestr("__MACOSX/free-spoken-digit-dataset-1.0.8/recordings/._0_ann_0.wav", "junk")
        for sound in sorted(folder.rglob("*.wav")):
            file.write(sound, f"{top}/{sound.relative_to(folder)}")
    return path


@pytest.mark.parametrize("without", [(), ("soundfile",)])
def test_a_zip_is_the_folder_that_it_holds(
    without: tuple[str, ...], fsdd_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in without:
        monkeypatch.setitem(sys.modules, module, None)
    path = zipped(fsdd_like, tmp_path / "fsdd.zip")
    for split in SPLITS:
        one, other = make(fsdd_like, split), make(path, split)
        assert (one.fingerprint, one.recipe) == (other.fingerprint, other.recipe)
    write(tmp_path / "birds" / "wren" / "a.wav", tone(300, 1))
    write(tmp_path / "birds" / "owl" / "b.wav", tone(300, 2))
    assert sound_folder(zipped(tmp_path / "birds", tmp_path / "birds.zip")).by_class


def test_fsdd_is_read_as_it_is_published(tmp_path: Path) -> None:
    """In place of the archive of codes, by the committed speakers, one of whom this release lacks and one is new."""
    for who, speaker in enumerate(["george", "jackson", "lucas", "theo", "yweweler", "zoe"]):
        for word in (0, 1):
            for take in range(3):
                write(tmp_path / "r" / f"{word}_{speaker}_{take}.wav", tone(300, seed=100 * who + 10 * word + take))
    zipped(tmp_path / "r", tmp_path / "speech" / "free-spoken-digit-dataset-1.0.8.zip")
    parts = {split: TASKS["speech"](split, tmp_path, length=256) for split in SPLITS}
    names = {split: part.group_names for split, part in parts.items()}
    assert names == {"train": ["george", "lucas", "theo"], "validation": ["yweweler"], "test": ["jackson"]}
    assert "speech, fsdd: the speakers zoe are in no split, and are left out." in SAID
    test = parts["test"]
    assert isinstance(test, ImageTasks)
    assert test.recipe["corpus"] == "fsdd"
    samples = tone(300, seed=112) / 32768
    assert (test.pixels(5)[0].numpy() == mu_law.encode(samples).codes[22:278]).all()
    assert test.fingerprint == TASKS["speech"]("test", tmp_path, length=256).fingerprint


def test_published_archives_that_are_none_are_refused(tmp_path: Path, fsdd_like: Path) -> None:
    with pytest.raises(DataError, match=r"is missing.*Or put the published zip beside it, from https.*not downloaded"):
        TASKS["speech"](data_root=tmp_path)
    first = zipped(fsdd_like, tmp_path / "speech" / "free-spoken-digit-dataset-master.zip")
    with pytest.raises(DataError, match=r"holds ann, bob, cy, dee, and none of train \(george, .*Get a later release"):
        TASKS["speech"](data_root=tmp_path)
    second = tmp_path / "speech" / "free-spoken-digit-dataset-1.0.8.zip"
    second.write_bytes(first.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"dataset-1\.0\.8\.zip, free-spoken-digit-dataset-master\.zip\. Keep one"):
        TASKS["speech"](data_root=tmp_path)
    first.unlink()
    with pytest.raises(DataError, match=r"1\.0\.8\.zip is damaged, or no zip \(.*\)\. Replace it"):
        TASKS["speech"](data_root=tmp_path)
    for bird in ("wren", "owl"):
        write(tmp_path / "birds" / bird / "a.wav", tone(300, 1))
    zipped(tmp_path / "birds", second)
    with pytest.raises(DataError, match=r"not called digit_speaker_index\. Get it from https"):
        TASKS["speech"](data_root=tmp_path)
    (tmp_path / "none").mkdir()
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    with pytest.raises(DataError, match=r"none\.zip holds no WAV or FLAC files"):
        make(tmp_path / "none.zip")


def test_damaged_recordings_are_named_together_whatever_their_split(fsdd_like: Path) -> None:
    (fsdd_like / "0_ann_1.wav").write_bytes(b"no sound")
    write(fsdd_like / "1_dee_2.wav", [1, 2], channels=2)
    said = r"2 of 24 sound files cannot be used:\n.*0_ann_1\.wav cannot be read .*\n.*1_dee_2\.wav has 2 channels"
    for split in SPLITS:
        with pytest.raises(DataError, match=said):
            make(fsdd_like, split)
    for who in ("bob", "cy"):
        for take in range(3):
            for word in (0, 1):
                (fsdd_like / f"{word}_{who}_{take}.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"14 of 24 sound files(.|\n)*\nand 4 more\."):
        make(fsdd_like)


def test_a_damaged_recording_in_a_zip_is_named(tmp_path: Path, fsdd_like: Path) -> None:
    (fsdd_like / "0_ann_1.wav").write_bytes(b"no sound")
    path = zipped(fsdd_like, tmp_path / "fsdd.zip")
    with pytest.raises(DataError, match=r"fsdd\.zip/free.*/recordings/0_ann_1\.wav cannot be read as sound"):
        make(path, "train+validation+test")


@pytest.mark.parametrize("corpus", ["fsdd", "commands"])
def test_the_published_corpora(corpus: str, data_root: Path) -> None:
    parts = {split: TASKS["speech"](split=split, data_root=data_root, corpus=corpus) for split in SPLITS}
    sizes = {"fsdd": [(4, 40, 2000), (1, 10, 500), (1, 10, 500)], "commands": [(16, 16, 640), (3, 3, 120), (3, 3, 120)]}
    assert [(len(p.group_names), p.classes, p.images) for p in parts.values()] == sizes[corpus]
    if corpus == "fsdd":  # silence is everyone's most frequent code once the offset is out; before, it tells who speaks
        everyone: dict[str, Any] = {"data_root": data_root, "by": "speaker", "lengths": True, "length": 18262}
        found = []
        for centred in (False, True):
            task = TASKS["speech"](split="train+validation+test", centred=centred, **everyone)
            assert isinstance(task, ImageTasks)
            modes = {}
            for number, name in enumerate(task.class_names):
                ids = np.flatnonzero(task.labels == number)
                real = torch.arange(18262) < task.lengths(ids)[:, None]  # type: ignore[index]
                modes[name] = int(np.bincount(task.pixels(ids)[:, 0][real].numpy()).argmax())
            found.append(modes)
        assert found[0] == {"george": 116, "jackson": 124, "lucas": 128, "nicolas": 102, "theo": 128, "yweweler": 128}
        assert set(found[1].values()) == {128}

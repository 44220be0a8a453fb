"""Spoken words as tasks: a class is a speaker saying a word, or a speaker, or a word."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count
from tasks.checks import SPLITS, split_parts
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError, find_data_root
from tasks.images import ImageTasks
from tasks.media import Sounds
from tasks.speech import mu_law
from tasks.speech.corpora import ARCHIVES, Corpus, Recording, archive, published_fsdd, sound_folder
from tasks.speech.sound_files import RULE
from tasks.speech.voices import VoicedTasks
from tasks.splits.committed import load_split
from tasks.splits.random_splits import drawn_groups

BY = ("speaker+word", "speaker", "word")
LEAST = 2  # recordings of a class: a support and a query
SILENCE = int(mu_law.encode(np.zeros(1)).codes[0])  # what stands in places that are not real


def speech(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    corpus: str = "fsdd",
    folder: str | os.PathLike[str] | None = None,
    by: str | None = None,
    held_out: str | None = None,
    length: int = 1024,
    lengths: bool = False,
    centred: bool = False,
    rate: int = 8000,
    encoding: str = mu_law.ENCODING,
    beside: str | None = None,
    voices: float = 0.0,
) -> ImageTasks:
    """Recordings ``(1, length)`` of 256 levels, the mu-law codes of their samples; a class is who speaks what.

    split: "train", "validation", "test", or several joined by "+". By speaker: four, one and one of FSDD's six; 16, 3
        and 3 of the commands' 22. Those of a folder are drawn by hash, by speaker or by class, a tenth each and one at
        least. Speakers, or else the words themselves, are the groups.
    data_root: the folder that holds ``speech/fsdd_8k_ulaw.npz`` or ``speech/commands_8k_ulaw.npz``; in place of the
        former also FSDD's published ``speech/free-spoken-digit-dataset*.zip``, with the same speakers in each split.
    seed: fixes the episodes.
    corpus: "fsdd", the Free Spoken Digit Dataset, or "commands", 40 Arabic words by 22 speakers, one take of each.
    folder: in place of a corpus, WAV or FLAC files, by path or relative to the data root, in a folder or a zip: in a
        folder for each class, or all called word_speaker_index as those of FSDD's published archive.
    by: what a class is, "speaker+word", "speaker" or "word"; None: the first of these that has two recordings of some
        class. Words come again in every split, said by others.
    held_out: a speaker to test on; the next one in the alphabet is the one to validate on. For leave-one-out tables.
    length: places of a sequence. A recording gives the ``length`` samples in its middle; shorter ones are left out,
        which is said.
    lengths: whether a recording is whole instead: its first ``length`` samples, and where it has fewer, the episodes
        say how many places are real.
    centred: whether the median of each recording is taken from its samples. In FSDD the offset of the microphone
        tells who speaks.
    rate: samples in a second; recordings of others are resampled.
    encoding: the name of the alphabet; there is one, ``tasks.speech.mu_law``.
    beside: another corpus, all of whose speakers join the training split, each a class: more voices to learn from.
    voices: part of the tasks of the training split that are heard in a voice made of the recorded one, see
        ``tasks.speech.voices``; of whole recordings, ``lengths=True``.

    Raises ValueError for options out of range, DataError for recordings that are missing, damaged or others.
    """
    parts = split_parts("speech", split)
    length, rate = require_count("length", length, 1), require_count("rate", rate, 1)
    _require_words(corpus, by, encoding)
    found, known = _corpus(corpus, folder, data_root)
    by = _classes_by(found, by)
    of_split = _split(found, known, held_out)
    chosen = [group for part in parts for group in of_split[part]]
    members = {group: _members(found, by, group) for group in chosen} if by != "word" else _words(found, chosen)
    _require_more(beside, voices, lengths, corpus if folder is None else None, by)
    training, more = parts == ("train",), None
    if beside is not None and training:
        more, _ = _corpus(beside, None, data_root)
        who = sorted({recording.speaker for recording in more.recordings})
        apart = {speaker.lower() for part in SPLITS[1:] for speaker in of_split[part]}
        if same := [speaker for speaker in who if speaker.lower() in apart]:
            raise ValueError(
                f"beside={beside!r} would train on {in_short(same)}, who are held out here. Give another, or None."
            )
        members |= {f"{beside}: {speaker}": _members(more, "speaker", speaker) for speaker in who}
    if "train" in parts and not training and (beside is not None or voices):
        say_once(
            f"speech, {found.name}, {split}: beside={beside!r} and voices={voices} are of the split train alone; here "
            "all recordings are as they are."
        )
    held: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    names: list[str] = []
    group_of: list[str] = []
    left_out: list[str] = []
    clipped = 0
    for group, classes in members.items():
        for name, recordings in classes.items():
            encoded = [codes_of(recording, rate, centred) for recording in recordings]
            clipped += sum(beyond for _, beyond in encoded)
            fits = [lengths or len(codes) >= length for codes, _ in encoded]
            fits = fits if sum(fits) >= LEAST else [False] * len(fits)
            left_out += [recording.name for recording, fit in zip(recordings, fits, strict=True) if not fit]
            if any(fits):
                labels += [len(names)] * sum(fits)
                names.append(name)
                group_of.append(group)
                held += [codes for (codes, _), fit in zip(encoded, fits, strict=True) if fit]
    _say(f"speech, {found.name}, {split}", left_out, length, held if lengths else [], clipped)
    if not names:
        raise DataError(
            f"speech, split {split}: no class has {LEAST} recordings of {length} samples. Give a smaller length."
        )
    groups = list(dict.fromkeys(group_of))
    voiced = {"voices": float(voices)} if voices and training else {}
    kind = partial(VoicedTasks, voices=voices, silence=SILENCE) if voiced else ImageTasks
    return kind(
        "speech",
        "+".join(parts),
        seed,
        images=np.stack([window_of(codes, length, lengths) for codes in held])[:, None],
        labels=labels,
        class_names=names,
        group_names=groups,
        class_group=[groups.index(group) for group in group_of],
        group_noun="class" if found.by_class else "word" if by == "word" else "speaker",
        event_shape=(1, length),
        levels=mu_law.LEVELS,
        recipe={
            "task": "speech",
            "version": 1,
            "corpus": found.name,
            "images_sha256": found.sha256,
            "by": by,
            "held_out": held_out,
            "length": length,
            "lengths": bool(lengths),
            "centred": bool(centred),
            "rate": rate,
            "encoding": mu_law.ENCODING,
            "conversion": RULE,
            **({} if more is None else {"beside": beside, "beside_sha256": more.sha256}),
            **voiced,
        },
        lengths=[min(len(codes), length) for codes in held] if lengths else None,
        medium=Sounds(rate, mu_law.SAMPLES),
    )


def _require_more(beside: str | None, voices: float, lengths: bool, corpus: str | None, by: str) -> None:
    if beside is not None and (beside not in ARCHIVES or beside == corpus or by == "word"):
        others = ", ".join(name for name in ARCHIVES if name != corpus)
        raise ValueError(f"beside={beside!r}; give None, or, where classes are of speakers, one of {others}.")
    if not 0 <= voices <= 1 or (voices and not lengths):
        raise ValueError(
            f"voices={voices} with lengths={lengths}; give a part from 0 to 1, and lengths=True for any but 0, as "
            "another voice is slower or faster."
        )


def _require_words(corpus: str, by: str | None, encoding: str) -> None:
    if corpus not in ARCHIVES:
        raise ValueError(f"corpus={corpus!r}; give one of {', '.join(ARCHIVES)}, or folder= with recordings.")
    if by is not None and by not in BY:
        raise ValueError(f"by={by!r}; a class is one of {', '.join(BY)}; None takes what the recordings allow.")
    if encoding != mu_law.ENCODING:
        raise ValueError(
            f"encoding={encoding!r}; there is {mu_law.ENCODING!r}, by the formula of the literature. G.711's codes and "
            "those of other packages stand for other amplitudes, so that likelihoods of them cannot be compared."
        )


def _corpus(
    corpus: str, folder: str | os.PathLike[str] | None, data_root: str | os.PathLike[str] | None
) -> tuple[Corpus, Mapping[str, Any]]:
    """The recordings, and their committed split; empty where there is none."""
    if folder is None:
        known, root = load_split("speech")[corpus], find_data_root(data_root).path
        if corpus == "fsdd" and not (root / "speech" / ARCHIVES[corpus]).exists():
            published = published_fsdd(root)
            if published is not None:
                return published, _known_speakers(published, known)
        return archive(corpus, root, known["sha256"]), known
    path = Path(folder).expanduser()
    return sound_folder(path if path.is_absolute() or path.exists() else find_data_root(data_root).path / path), {}


def _known_speakers(found: Corpus, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The committed split, of the speakers that a release of FSDD has; others are left out, which is said.

    Raises DataError where a split is left without speakers.
    """
    speakers = {recording.speaker for recording in found.recordings}
    split = {part: [speaker for speaker in known[part] if speaker in speakers] for part in SPLITS}
    if missing := [f"{part} ({', '.join(known[part])})" for part in SPLITS if not split[part]]:
        raise DataError(
            f"the published archive of FSDD holds {in_short(sorted(speakers))}, and none of {' and '.join(missing)}. "
            "Get a later release, or give it as folder=, whose split is drawn by hash."
        )
    if others := sorted(speakers.difference(*split.values())):
        say_once(f"speech, fsdd: the speakers {in_short(others)} are in no split, and are left out.")
    return split


def _classes_by(found: Corpus, by: str | None) -> str:
    if found.by_class:
        if by not in (None, "word"):
            raise ValueError(f"by={by!r}, but in a folder of classes speakers are not known. Leave by=None.")
        return "word"
    if by is not None:
        return by
    speakers = {recording.speaker for recording in found.recordings}
    enough = any(len(each) >= LEAST for who in speakers for each in _members(found, BY[0], who).values())
    return BY[0] if enough else BY[1]


def _split(found: Corpus, known: Mapping[str, Any], held_out: str | None) -> dict[str, list[str]]:
    """Speakers by split; or classes, where speakers are not known."""
    groups = sorted({recording.word if found.by_class else recording.speaker for recording in found.recordings})
    if held_out is not None:
        if held_out not in groups or len(groups) < len(SPLITS):
            raise ValueError(f"held_out={held_out!r}; give one of {in_short(groups)}, of three at least.")
        at = groups.index(held_out)
        apart = {"test": [held_out], "validation": [groups[(at + 1) % len(groups)]]}
        return {"train": [g for g in groups if g not in [*apart["test"], *apart["validation"]]], **apart}
    if known:
        return {part: list(known[part]) for part in SPLITS}
    if len(groups) < len(SPLITS):
        what = "classes" if found.by_class else "speakers"
        raise DataError(f"the folder holds the {what} {in_short(groups)}; training, validation and test take three.")
    tenth = max(1, len(groups) // 10)
    return drawn_groups(groups, {"test": tenth, "validation": tenth}, 0)


def _members(found: Corpus, by: str, speaker: str) -> dict[str, list[Recording]]:
    """The recordings of each class of one speaker."""
    members: dict[str, list[Recording]] = {}
    for recording in found.recordings:
        if recording.speaker == speaker:
            members.setdefault(speaker if by == "speaker" else f"{speaker}: {recording.word}", []).append(recording)
    return dict(sorted(members.items()))


def _words(found: Corpus, chosen: Sequence[str]) -> dict[str, dict[str, list[Recording]]]:
    """The recordings of each word by the speakers that are chosen, or of the classes that are; each its own group."""
    words: dict[str, list[Recording]] = {}
    for recording in found.recordings:
        if (recording.word if found.by_class else recording.speaker) in chosen:
            words.setdefault(recording.word, []).append(recording)
    order = chosen if found.by_class else sorted(words)
    return {word: {word: words[word]} for word in order}


def codes_of(recording: Recording, rate: int, centred: bool) -> tuple[NDArray[np.uint8], int]:
    """The codes of a recording, and how many of its samples lay beyond [-1, 1] and were clipped."""
    if recording.codes is not None and not centred and rate == 8000:
        return recording.codes, 0
    samples = recording.samples(rate)
    if centred:
        samples = samples - np.median(samples)
    return mu_law.encode(samples)


def window_of(codes: NDArray[np.uint8], length: int, whole: bool) -> NDArray[np.uint8]:
    """``length`` of the codes: the first, then silence, of a ``whole`` recording, otherwise those in the middle."""
    if not whole:
        start = (len(codes) - length) // 2
        return codes[start : start + length]
    return np.pad(codes[:length], (0, max(0, length - len(codes))), constant_values=SILENCE)


def _say(where: str, left_out: list[str], length: int, whole: list[NDArray[np.uint8]], clipped: int) -> None:
    if left_out:
        say_once(
            f"{where}: {len(left_out):,} recordings are left out, as they have fewer than {length:,} samples or are "
            f"the only one of their class: {in_short(left_out)}."
        )
    if cut := sum(len(codes) > length for codes in whole):
        say_once(f"{where}: {cut:,} of {len(whole):,} recordings are cut to {length:,} samples.")
    if clipped:
        say_once(f"{where}: {clipped:,} samples beyond [-1, 1] are clipped.")

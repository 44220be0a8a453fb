"""Where recordings come from: two archives by their checksum, FSDD as it is published, any folder of sound by class."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.files import ARCHIVE_ERRORS, Arrays
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError
from tasks.speech import mu_law
from tasks.speech.sound_files import SUFFIXES, read_sound

FSDD_NAME = re.compile(r"([^_/]+)_([^_/]+)_(\d+)\.(?:wav|flac)")  # word, speaker, index
ARCHIVES = {"fsdd": "fsdd_8k_ulaw.npz", "commands": "commands_8k_ulaw.npz"}
ARCHIVE_RATE = 8000
PUBLISHED = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/master.zip"  # FSDD
_NAMED = 10  # files that cannot be read
PUBLISHED_FILES = "free-spoken-digit-dataset*.zip"  # as GitHub and Zenodo call it, whatever the release


@dataclass(frozen=True)
class Recording:
    """One recording. speaker: "" where it is not known. word: or the class that a folder stands for.

    codes: mu-law codes at ``ARCHIVE_RATE``, where that is what there is; otherwise ``path`` is its file, or, in an
    archive, what it is called, ``content`` then being the file's.
    """

    name: str
    speaker: str
    word: str
    codes: NDArray[np.uint8] | None = None
    path: Path | None = None
    content: bytes | None = None

    def samples(self, rate: int) -> NDArray[np.float64]:
        """Its samples at ``rate``: resampled by scipy's polyphase filter where it was recorded at another."""
        if self.codes is not None:
            samples, own = mu_law.decode(self.codes), ARCHIVE_RATE
        else:
            assert self.path is not None
            samples, own = read_sound(self.path, self.content)
        if rate == own:
            return samples
        from scipy.signal import resample_poly  # takes a second to import

        common = gcd(rate, own)
        return np.asarray(resample_poly(samples, rate // common, own // common))


@dataclass(frozen=True)
class Corpus:
    """Recordings in order. sha256: over all that they are made of. by_class: words are classes, speakers unknown."""

    name: str
    recordings: list[Recording]
    sha256: str
    by_class: bool = False


def archive(name: str, data_root: Path, expected: str) -> Corpus:
    """The recordings of ``speech/<archive>.npz``: "fsdd" or "commands". DataError where it is missing or another."""
    path = data_root / "speech" / ARCHIVES[name]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            held: Arrays = {key: stored[key] for key in stored.files}
        recordings = _READ[name](held)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Put the archive there, name the folder that holds speech/{ARCHIVES[name]} in "
            f"METADENSITY_DATA or data_root, or give folder= with the recordings as sound files."
            + (
                f" Or put the published zip beside it, from {PUBLISHED}; no checksum of it is known, so it is not "
                "downloaded."
                if name == "fsdd"
                else ""
            )
        ) from None
    except (*ARCHIVE_ERRORS, KeyError, IndexError) as problem:
        raise DataError(f"{path} is damaged ({problem!r}). Replace it.") from problem
    found = _sha256(recordings)
    if found != expected:
        raise DataError(f"{path} holds other recordings (checksum {found}, not {expected}) than those that were split.")
    return Corpus(name, recordings, found)


def _fsdd(held: Arrays) -> list[Recording]:
    names, start = [str(name) for name in held["speaker_name"]], held["offset"]
    return [
        Recording(f"{digit}_{names[who]}_{take}", names[who], str(digit), codes=held["ulaw"][start[i] : start[i + 1]])
        for i, (digit, who, take) in enumerate(zip(held["digit"], held["speaker"], held["take"], strict=True))
    ]


def _commands(held: Arrays) -> list[Recording]:
    words, speakers = [str(name) for name in held["keyword_name"]], held["speaker_id"]
    return [
        Recording(f"{words[word]}_{speakers[who]}_{take}", f"speaker {speakers[who]}", words[word], codes=codes)
        for codes, word, who, take in zip(held["ulaw"], held["keyword"], held["speaker"], held["take"], strict=True)
    ]


_READ: dict[str, Callable[[Arrays], list[Recording]]] = {"fsdd": _fsdd, "commands": _commands}


def _sha256(recordings: list[Recording]) -> str:
    digest = hashlib.sha256()
    for recording in recordings:
        assert recording.codes is not None
        digest.update(f"{recording.name}\n{recording.speaker}\n{recording.word}\n{len(recording.codes)}\n".encode())
        digest.update(recording.codes.tobytes())
    return digest.hexdigest()


def published_fsdd(data_root: Path) -> Corpus | None:
    """FSDD's published zip, ``speech/free-spoken-digit-dataset*.zip``; None where there is none.

    Raises DataError where there are several, or where one is damaged or holds other recordings than FSDD's.
    """
    found = sorted((data_root / "speech").glob(PUBLISHED_FILES))
    if len(found) > 1:
        raise DataError(f"{data_root / 'speech'} holds {', '.join(path.name for path in found)}. Keep one of them.")
    if not found:
        return None
    corpus = sound_folder(found[0])
    if corpus.by_class:
        raise DataError(
            f"{found[0]} holds sound files that are not called digit_speaker_index. Get it from {PUBLISHED}."
        )
    return replace(corpus, name="fsdd")


def sound_folder(folder: Path) -> Corpus:
    """The recordings of a folder or a zip: FSDD's, where all files are called word_speaker_index, or a folder a class.

    Of a zip what lies in its folder ``recordings`` alone, where it has one. Raises DataError where there is no such
    folder, no sound file in it, where some lie in no class's folder or cannot be read, or where a zip is damaged.
    """
    if folder.is_file():
        files = _in_zip(folder)
    elif folder.is_dir():
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        files = [(path.relative_to(folder).as_posix(), path, None) for path in paths]
    else:
        raise DataError(f"folder={folder} is no folder. Give one that holds WAV or FLAC files, or a zip of them.")
    if not files:
        raise DataError(f"{folder} holds no WAV or FLAC files.")
    matches = [FSDD_NAME.fullmatch(path.name.lower()) for _, path, _ in files]
    beside = [name for name, _, _ in files if "/" not in name]
    if all(matches) and (beside or len({path.parent for _, path, _ in files}) == 1):
        recordings = [
            Recording(path.stem, match[2], match[1], path=path, content=content)
            for (_, path, content), match in zip(files, matches, strict=True)
            if match is not None
        ]
    elif beside:
        raise DataError(
            f"{folder} holds {len(beside):,} sound files beside its folders, such as {beside[0]}. Sort all into "
            "folders, one a class, or call all of them word_speaker_index, as FSDD's recordings/7_theo_3.wav."
        )
    else:
        recordings = [
            Recording(name, "", name.rpartition("/")[0], path=path, content=content) for name, path, content in files
        ]
    contents: list[Any] = [
        [name, hashlib.sha256(path.read_bytes() if content is None else content).hexdigest()]
        for name, path, content in files
    ]
    _require_readable(files)
    return Corpus("folder", recordings, sha256_of_json(contents), by_class=not recordings[0].speaker)


def _require_readable(files: list[tuple[str, Path, bytes | None]]) -> None:
    """Raise DataError that names all that cannot be read, of whatever split: not one by one, nor after training."""
    problems = []
    for _, path, content in files:
        try:
            read_sound(path, content)
        except DataError as problem:
            problems.append(str(problem))
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        rest = f"\nand {len(problems) - _NAMED:,} more." if len(problems) > _NAMED else ""
        raise DataError(
            f"{len(problems):,} of {len(files):,} sound files cannot be used:\n" + "\n".join(problems[:_NAMED]) + rest
        )


def _in_zip(path: Path) -> list[tuple[str, Path, bytes | None]]:
    """The sound files of a zip, by their names below the folder that holds all of them, which is the zip's own."""
    try:
        with zipfile.ZipFile(path) as file:
            sounds = [PurePosixPath(name) for name in file.namelist() if name.lower().endswith(SUFFIXES)]
            sounds = sorted(name for name in sounds if "__MACOSX" not in name.parts)
            sounds = [name for name in sounds if "recordings" in name.parts] or sounds
            if not sounds:
                return []
            top = os.path.commonpath([name.parent for name in sounds]) if len(sounds) > 1 else sounds[0].parent
            return [(name.relative_to(top).as_posix(), path / name, file.read(str(name))) for name in sounds]
    except ARCHIVE_ERRORS as problem:
        raise DataError(f"{path} is damaged, or no zip ({problem}). Replace it.") from problem

"""Where recordings come from: two archives by their checksum, FSDD's own files, and any folder of sound by class."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
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


@dataclass(frozen=True)
class Recording:
    """One recording. speaker: "" where it is not known. word: or the class that a folder stands for.

    codes: mu-law codes at ``ARCHIVE_RATE``, where that is what there is; otherwise ``path`` is its file.
    """

    name: str
    speaker: str
    word: str
    codes: NDArray[np.uint8] | None = None
    path: Path | None = None

    def samples(self, rate: int) -> NDArray[np.float64]:
        """Its samples at ``rate``: resampled by scipy's polyphase filter where it was recorded at another."""
        if self.codes is not None:
            samples, own = mu_law.decode(self.codes), ARCHIVE_RATE
        else:
            assert self.path is not None
            samples, own = read_sound(self.path)
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
            "METADENSITY_DATA or data_root, or give folder= with the recordings as sound files."
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


def sound_folder(folder: Path) -> Corpus:
    """The recordings of a folder: FSDD's, where all files are called word_speaker_index, or else a folder a class.

    Raises DataError where there is no such folder, no sound file in it, or where some lie in no class's folder.
    """
    if not folder.is_dir():
        raise DataError(f"folder={folder} is no folder. Give one that holds WAV or FLAC files.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no WAV or FLAC files.")
    matches = [FSDD_NAME.fullmatch(path.name.lower()) for path in paths]
    names = [path.relative_to(folder).as_posix() for path in paths]
    beside = [name for name in names if "/" not in name]
    if all(matches) and (beside or len({path.parent for path in paths}) == 1):
        recordings = [
            Recording(path.stem, match[2], match[1], path=path)
            for path, match in zip(paths, matches, strict=True)
            if match is not None
        ]
    elif beside:
        raise DataError(
            f"{folder} holds {len(beside):,} sound files beside its folders, such as {beside[0]}. Sort all into "
            "folders, one a class, or call all of them word_speaker_index, as FSDD's recordings/7_theo_3.wav."
        )
    else:
        recordings = [
            Recording(name, "", name.rpartition("/")[0], path=path) for name, path in zip(names, paths, strict=True)
        ]
    contents: list[Any] = [[name, hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in zip(names, paths)]  # noqa: B905
    return Corpus("folder", recordings, sha256_of_json(contents), by_class=not recordings[0].speaker)

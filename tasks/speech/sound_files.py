"""Sound files as samples, WAV and FLAC, converted by one rule whatever reads them; and samples as WAV."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.roots import DataError

SUFFIXES = (".wav", ".flac")
RULE = "whole numbers of b bits over 2**(b-1), floats as they are"
"""How samples become numbers in [-1, 1]; what lies beyond is clipped, and counted, when it is encoded."""
_WHOLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32"}
_FLOATS = {"FLOAT", "DOUBLE"}


def read_sound(path: Path, content: bytes | None = None) -> tuple[NDArray[np.float64], int]:
    """The samples ``(n,)`` of a file of one channel, by ``RULE``, and how many there are in a second.

    content: of the file, where it lies in an archive and ``path`` is only what it is called.

    By soundfile, or where that is not installed by the standard library, which reads whole-number WAV alone. Raises
    DataError for a file that is missing, damaged, empty or of several channels, and for other formats, by their name.
    """
    try:
        import soundfile
    except ImportError:
        samples, rate = _by_wave(path, content)
    else:
        samples, rate = _by_soundfile(soundfile, path, content)
    if samples.ndim > 1 and samples.shape[1] > 1:
        raise DataError(f"{path} has {samples.shape[1]} channels. Put the one that is meant into a file of its own.")
    if not samples.size:
        raise DataError(f"{path} holds no samples. Leave it out.")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are no finite numbers. Leave it out.")
    return samples.reshape(-1), rate


def wav(samples: NDArray[np.float64], rate: int) -> bytes:
    """A WAV file of samples ``(n,)`` in [-1, 1], 16 bits each by ``RULE``, ``rate`` of them a second.

    What is decoded from mu-law codes, written and read again has the same codes: these lie further apart.
    """
    whole = np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype("<i2")
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.tobytes())
    return held.getvalue()


def _by_soundfile(soundfile: Any, path: Path, content: bytes | None) -> tuple[NDArray[np.float64], int]:
    """Whole numbers are read as such: how soundfile makes floats of them differs between formats."""
    try:
        with soundfile.SoundFile(path if content is None else io.BytesIO(content)) as file:
            kind = file.subtype
            if kind in _WHOLE:
                return file.read(dtype="int32", always_2d=True) / 2.0**31, file.samplerate
            if kind in _FLOATS:
                return file.read(dtype="float64", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, OSError) as problem:
        raise DataError(f"{path} cannot be read as sound ({problem}). Replace it.") from problem
    more = " G.711 is another alphabet than the one here." if kind in ("ULAW", "ALAW") else ""
    raise DataError(f"{path} holds samples of format {kind}.{more} Convert it to PCM, of 16 bits for example.")


def _by_wave(path: Path, content: bytes | None) -> tuple[NDArray[np.float64], int]:
    if path.suffix.lower() != ".wav":
        raise DataError(f"{path} is no WAV file, and others take soundfile. Install it: pip install soundfile")
    try:
        with wave.open(str(path) if content is None else io.BytesIO(content), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as problem:  # "unknown format: 7", say: the tag is named
        raise DataError(
            f"{path} cannot be read as whole-number WAV ({problem}). Other formats take soundfile: pip install "
            "soundfile. A damaged file has to be replaced."
        ) from problem
    held = np.frombuffer(raw[: len(raw) // (width * channels) * width * channels], dtype=np.uint8).reshape(-1, width)
    if width == 1:  # the only unsigned one
        whole = held[:, 0].astype(np.int64) - 128
    else:
        place = 8 * np.arange(width)
        whole = (held.astype(np.int64) << place).sum(1)
        whole -= (whole >> (8 * width - 1)) << (8 * width)
    return (whole / 2.0 ** (8 * width - 1)).reshape(-1, channels), rate

"""Recordings and strings of one's own as sequences of the levels that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.notices import in_short
from tasks.data.roots import DataError
from tasks.own.given import Given, examples
from tasks.speech import mu_law
from tasks.speech.corpora import Recording
from tasks.speech.sound_files import SUFFIXES, read_sound
from tasks.speech.task import codes_of, window_of

TEXTS = (".txt", ".text", ".csv", ".tsv", ".md", ".abc", "")

Sequenced = tuple[list[str], NDArray[np.uint8], list[int] | None, list[str]]
"""Names, levels ``(n, T)``, how many places of each are real (None: all), and what was done to them."""


def recordings(given: Given, recipe: Mapping[str, Any]) -> Sequenced:
    """Sound files in the alphabet, at the rate and of the length that a recipe of ``speech`` says.

    Raises DataError for what ``tasks.speech.sound_files`` cannot read, and for recordings that are too short; TypeError
    for arrays, which do not say their rate.
    """
    rate, length, whole = int(recipe["rate"]), int(recipe["length"]), bool(recipe.get("lengths"))
    names, codes, short, cut, clipped, rates = [], [], [], [], 0, dict[int, int]()
    for name, path in examples(given, SUFFIXES):
        if not isinstance(path, Path):
            raise TypeError(f"{name} is an array, which does not say how many samples a second has; give a WAV file.")
        own = read_sound(path)[1]
        rates[own] = rates.get(own, 0) + 1
        found, beyond = codes_of(Recording(name, "", "", path=path), rate, bool(recipe.get("centred")))
        clipped += beyond
        if not len(found) or (not whole and len(found) < length):
            short.append(f"{name} ({len(found):,})")
            continue
        cut += [name] if len(found) > length else []
        names.append(name)
        codes.append(found)
    if short:
        raise DataError(
            f"the model reads {length:,} samples, {length / rate:.3g} s at {rate:,} a second, and these are shorter at "
            f"that rate: {in_short(short)}. Give longer recordings."
        )
    notes = [
        f"{count} of {len(names)} resampled from {own:,} to {rate:,} samples a second"
        for own, count in sorted(rates.items())
        if own != rate
    ]
    if cut:
        part = "first" if whole else "middle"
        notes.append(f"{len(cut)} of {len(names)} cut to {length / rate:.3g} s, the {part} {length:,} samples")
    if recipe.get("centred"):
        notes.append("the median was taken from each, as from those that the model was trained on")
    if clipped:
        notes.append(f"{clipped:,} samples beyond [-1, 1] are clipped")
    notes.append(f"8-bit mu-law ({mu_law.ENCODING}), {rate:,} samples a second")
    lengths = [min(len(found), length) for found in codes] if whole else None
    return names, np.stack([window_of(found, length, whole) for found in codes]), lengths, notes


def strings(given: Given, recipe: Mapping[str, Any], levels: int) -> Sequenced:
    """Strings in the alphabet that a recipe says: the lines of text files, or a list of strings.

    Where the model knows an end, shorter strings end; one without, of ``text``, reads windows, into which the text is
    cut. Raises DataError for strings that are too long, hold other characters, or are too few characters for a window.
    """
    alphabet, length = str(recipe["alphabet"]), int(recipe["length"])
    ends = levels == len(alphabet) + 1
    notes: list[str] = []
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(item, str) for item in given):
        texts = list(map(str, given))
        if texts and all(Path(item).is_file() for item in texts):
            texts = _texts(texts)
    else:
        texts = _texts(given)
    if ends:
        found = [line for text in texts for line in text.splitlines() if line]
        if long := [repr(line) for line in found if len(line) > length]:
            raise DataError(f"the model reads strings of at most {length} characters; longer are {in_short(long, 5)}.")
        if not found:
            raise DataError("support holds no strings; give one a line.")
    else:
        whole = "".join(texts)
        found = [whole[start : start + length] for start in range(0, len(whole) - length + 1, length)]
        if not found:
            raise DataError(f"the model reads windows of {length} characters, and there are {len(whole)}; give more.")
        left = len(whole) % length
        notes.append(f"cut into windows of {length} characters" + (f"; the last {left} are left out" if left else ""))
    place = {character: level for level, character in enumerate(alphabet)}
    if unknown := sorted({character for line in found for character in line} - set(alphabet)):
        first = next(line for line in found if unknown[0] in line)
        raise DataError(
            f"the model does not know the characters {in_short(list(map(repr, unknown)))}, the first of them in "
            f"{first!r}; it knows {alphabet!r}. Replace them."
        )
    codes = np.full((len(found), length), len(alphabet) if ends else 0, dtype=np.uint8)
    for row, line in enumerate(found):
        codes[row, : len(line)] = [place[character] for character in line]
    lengths = [min(len(line) + 1, length) for line in found] if ends else None
    return [repr(line if len(line) <= 24 else f"{line[:21]}...") for line in found], codes, lengths, notes


def _texts(given: Given) -> list[str]:
    found = []
    for name, path in examples(given, TEXTS):
        if not isinstance(path, Path):
            raise TypeError(f"{name} is an array; give strings, one a line of a text file.")
        try:
            found.append(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
        except (OSError, UnicodeDecodeError) as problem:
            raise DataError(f"{path} is no text in UTF-8 ({problem}). Convert it.") from problem
    return found

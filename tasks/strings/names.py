"""First and last names by language, from the word lists of Faker: few-shot orthography."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import re
import unicodedata
from typing import Any

import numpy as np

from metadensity.checks import require_count
from tasks.checks import SPLITS, split_parts
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.images import ImageTasks
from tasks.media import Strings
from tasks.splits.committed import load_split
from tasks.strings.spelling import SPELLINGS_VERSION, respelt
from tasks.styles import require_styles

LEAST = 40  # words of a list
LISTS = re.compile(r"(first|last)_names(_\w+)?")
RELEASE = "40.63.0"  # of Faker; others hold other words


def names(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    length: int = 16,
    styles: int = 0,
) -> ImageTasks:
    """Names as strings ``(1, length)``; a class is a list, such as Danish last names, its group the language.

    The last level is the end: it stands in all places after the name, and what follows the first of it costs nothing,
    so that likelihoods are those of strings. The others are the characters of all lists, as the recipe has them.

    split: "train" (17 languages), "validation" (4), "test" (8), or several joined by "+". No name stands in two splits:
        test keeps all of its own, validation what test does not hold, training the rest.
    data_root: not used; the lists come with Faker, of one release.
    seed: fixes the episodes.
    length: places; names of more characters are left out, which is said. One of as many has no room for an end.
    styles: further classes for each list of a split that holds "train": the list again, so many times, each time with
        some letters exchanged, see ``tasks.strings.spelling``. The other splits stay as they are.

    Raises ValueError for options out of range, DataError where Faker is missing or holds other lists.
    """
    parts = split_parts("names", split)
    length, styles = require_count("length", length, 1), require_styles(styles)
    content = load_split("names")
    lists = _lists()
    found = lists_sha256(lists)
    if found != content["images_sha256"]:
        raise DataError(
            f"Faker's lists have checksum {found}, not {content['images_sha256']}. Install the release that was split: "
            f"pip install faker=={RELEASE}"
        )
    alphabet = content["alphabet"]
    end = len(alphabet)
    taken: set[str] = set()
    chosen: dict[str, dict[str, list[str]]] = {}
    for part in reversed(SPLITS):
        languages = set(content[part])
        mine = {name: words for name, words in lists.items() if language_of(name) in languages}
        chosen[part] = {name: [word for word in words if word not in taken] for name, words in mine.items()}
        taken |= {word for words in mine.values() for word in words}
    kept: dict[str, list[str]] = {}
    long = []
    for part in parts:
        for name, words in chosen[part].items():
            fitting = [word for word in words if len(word) <= length]
            long += [word for word in words if len(word) > length]
            if len(fitting) >= LEAST:
                kept[name] = fitting
    if long:
        say_once(
            f"names, {split}: {len(long):,} names of more than {length} characters are left out: {in_short(long, 5)}."
        )
    if not kept:
        raise DataError(f"names, {split}: no list has {LEAST} names of {length} characters at most. Give more.")
    drawn: dict[str, Any] = {}
    if styles and "train" in parts:
        drawn = {"styles": styles, "styles_version": SPELLINGS_VERSION}
        of_train = [name for name in kept if language_of(name) in content["train"]]
        kept |= {
            f"{name} style {n}": respelt(kept[name], alphabet, f"{name} {n}")
            for n in range(1, styles + 1)
            for name in of_train
        }
    number = {character: place for place, character in enumerate(alphabet)}
    every = [word for words in kept.values() for word in words]
    images = np.full((len(every), 1, length), end, dtype=np.uint8)
    for row, word in enumerate(every):
        images[row, 0, : len(word)] = [number[character] for character in word]
    languages_kept = list(dict.fromkeys(map(language_of, kept)))
    return ImageTasks(
        "names",
        "+".join(parts),
        seed,
        images=images,
        labels=np.repeat(np.arange(len(kept)), [len(words) for words in kept.values()]),
        class_names=[name.replace("_names", " names").replace("_", " ") for name in kept],
        group_names=languages_kept,
        class_group=[languages_kept.index(language_of(name)) for name in kept],
        group_noun="language",
        event_shape=(1, length),
        levels=end + 1,
        end=end,
        medium=Strings(alphabet, end),
        recipe={
            "task": "names",
            "version": 1,
            "images_sha256": found,
            "length": length,
            "least": LEAST,
            "alphabet": alphabet,
            **drawn,
        },
    )


def language_of(name: str) -> str:
    """The language of a list, "da" of "da_DK first_names"."""
    return re.split("[_ ]", name, maxsplit=1)[0]


def lists_sha256(lists: dict[str, list[str]]) -> str:
    """SHA-256, in hex, over the names of the lists and their words."""
    return hashlib.sha256(
        "\n".join(f"{name}: {', '.join(words)}" for name, words in lists.items()).encode()
    ).hexdigest()


def _lists() -> dict[str, list[str]]:
    """The lists of Latin names by "locale list", sorted, of ``LEAST`` words at least, each word once, in NFC.

    A list that only joins others of its locale, those by gender, is left out.
    """
    try:
        person = importlib.import_module("faker.providers.person")
    except ImportError:
        raise DataError(
            f"the task names needs the word lists of Faker. Install them: pip install faker=={RELEASE}"
        ) from None
    found: dict[str, list[str]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(person.__path__)):
        held: dict[str, Any] = vars(importlib.import_module(f"faker.providers.person.{module}").Provider)
        lists = {name: _latin(value) for name, value in sorted(held.items()) if LISTS.fullmatch(name)}
        for name, words in lists.items():
            parts = {other for other in lists if other.startswith(f"{name}_") and lists[other]}
            if len(words) >= LEAST and not parts:
                found[f"{module} {name}"] = words
    return found


def _latin(value: Any) -> list[str]:
    """The words of a list, sorted; none where it is no list, or holds a letter that is not Latin."""
    if not isinstance(value, dict | list | tuple):
        return []
    words = {unicodedata.normalize("NFC", word.strip()) for word in value if isinstance(word, str)} - {""}
    letters = {letter for word in words for letter in word}
    return sorted(words) if all(ord(c) < 0x250 or 0x1E00 <= ord(c) < 0x1F00 for c in letters) else []

"""Fiddle tunes in ABC notation, from the corpus of music21: a class is a tune, an example one of its bars."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from metadensity.checks import require_count
from tasks.checks import SPLITS, split_parts
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.images import ImageTasks
from tasks.splits.committed import load_split
from tasks.strings.abc_notation import PARSER, PARSER_VERSION, Tune, read_tunes

RELEASE = "10.5.1"  # of music21; others may hold other texts
BOOKS = ("oneills1850", "airdsAirs", "ryansMammoth")  # 1903, 1778 to 1801 and 1883; no other part of the corpus is read
SHORTEST, LONGEST = 3, 16  # characters of a bar
LEAST = 10  # different bars of a tune


def tunes(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    length: int = LONGEST,
) -> ImageTasks:
    """Bars of fiddle tunes as strings ``(1, length)`` of ABC notation; a class is a tune, each of its bars once.

    The tunes of three old books, O'Neill's 1850, Aird's Airs and Ryan's Mammoth Collection, that have ten different
    bars of 3 to 16 characters; see ``tasks.strings.abc_notation`` for what a bar is. Settings of one tune, which have
    a title or a quarter of their bars in common, are a theme, the group, and stand in one split. The last level is
    the end: it stands in all places after the bar, and what follows the first of it costs nothing.

    split: "train", "validation", "test", or several joined by "+". No bar stands in two splits: test keeps all of its
        own, validation what test does not hold, training the rest.
    data_root: not used; the tunes come with music21, of one release, which is not imported.
    seed: fixes the episodes.
    length: places; bars of more characters are left out. One of as many has no room for an end.

    Raises ValueError for options out of range, DataError where music21 is missing or holds other tunes.
    """
    parts = split_parts("tunes", split)
    length = require_count("length", length, SHORTEST)
    content = load_split("tunes")
    texts = _texts()
    found = texts_sha256(texts)
    if found != content["images_sha256"]:
        raise DataError(
            f"music21's fiddle tunes have checksum {found}, not {content['images_sha256']}. Install the release that "
            f"was split: pip install music21=={RELEASE}"
        )
    read = read_books(texts)
    theme = {name: names[0] for names in content["themes"] for name in names}
    held_out = {name for part in SPLITS[1:] for name in content[part]}
    members = {**{part: content[part] for part in SPLITS[1:]}, "train": [name for name in read if name not in held_out]}
    taken: set[str] = set()
    chosen: dict[str, dict[str, list[str]]] = {}
    for part in reversed(SPLITS):
        bars = {name: different_bars(read[name]) for name in members[part]}
        fitting = {name: [bar for bar in own if bar not in taken and len(bar) <= length] for name, own in bars.items()}
        chosen[part] = {name: own for name, own in fitting.items() if len(own) >= LEAST}
        taken |= {bar for own in bars.values() if len(own) >= LEAST for bar in own}
    kept = {name: own for part in parts for name, own in chosen[part].items()}
    if short := [name for part in parts for name in members[part] if name not in kept and length < LONGEST]:
        say_once(
            f"tunes, {split}: {len(short):,} tunes have fewer than {LEAST} different bars of {length} characters at "
            f"most, and are left out: {in_short(short, 5)}."
        )
    if not kept:
        raise DataError(f"tunes, {split}: no tune has {LEAST} bars of {length} characters at most. Give more.")
    alphabet = content["alphabet"]
    end = len(alphabet)
    number = {character: place for place, character in enumerate(alphabet)}
    every = [bar for own in kept.values() for bar in own]
    images = np.full((len(every), 1, length), end, dtype=np.uint8)
    for row, bar in enumerate(every):
        images[row, 0, : len(bar)] = [number[character] for character in bar]
    themes = list(dict.fromkeys(theme.get(name, name) for name in kept))
    place = {name: at for at, name in enumerate(themes)}
    return ImageTasks(
        "tunes",
        "+".join(parts),
        seed,
        images=images,
        labels=np.repeat(np.arange(len(kept)), [len(own) for own in kept.values()]),
        class_names=[f"{title(read[name])} ({name})" for name in kept],
        group_names=[f"{title(read[name])} ({name})" for name in themes],
        class_group=[place[theme.get(name, name)] for name in kept],
        group_noun="theme",
        event_shape=(1, length),
        levels=end + 1,
        end=end,
        recipe={
            "task": "tunes",
            "version": 1,
            "images_sha256": found,
            "parser": PARSER,
            "parser_version": PARSER_VERSION,
            "length": length,
            "shortest": SHORTEST,
            "least": LEAST,
            "alphabet": alphabet,
        },
    )


def title(tune: Tune) -> str:
    """The first title of a tune."""
    return tune.titles[0] if tune.titles else "untitled"


def different_bars(tune: Tune) -> list[str]:
    """The bars of ``SHORTEST`` to ``LONGEST`` characters, each once, in the order in which they first come."""
    return list(dict.fromkeys(bar for bar in tune.bars if SHORTEST <= len(bar) <= LONGEST))


def read_books(texts: dict[str, str]) -> dict[str, Tune]:
    """All tunes by "book/file number"."""
    return {f"{name} {tune.number}": tune for name, text in texts.items() for tune in read_tunes(text)}


def texts_sha256(texts: dict[str, str]) -> str:
    """SHA-256, in hex, over the names of the files and their texts."""
    return hashlib.sha256("".join(f"{name}\n{text}\n" for name, text in texts.items()).encode()).hexdigest()


def _texts() -> dict[str, str]:
    """The ABC files of the three books by "book/file", sorted within each book.

    music21 is found and not imported, which would take seconds. Raises DataError where it or a book is missing, or a
    file is no text.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the task tunes needs the corpus of music21. Install it, which brings it: pip install music21=={RELEASE}"
        )
    return _read(Path(spec.submodule_search_locations[0]) / "corpus")


@lru_cache(maxsize=2)
def _read(corpus: Path) -> dict[str, str]:
    texts = {}
    for book in BOOKS:
        paths = sorted((corpus / book).glob("*.abc"))
        if not paths:
            raise DataError(
                f"{corpus / book} holds no ABC files: this music21 came without its corpus. Install the release that "
                f"has it: pip install --force-reinstall music21=={RELEASE}"
            )
        for path in paths:
            try:
                texts[f"{book}/{path.stem}"] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as problem:
                raise DataError(
                    f"{path} is no text in UTF-8 ({problem}). Install music21 again: pip install --force-reinstall "
                    f"music21=={RELEASE}"
                ) from problem
    return texts

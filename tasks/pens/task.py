"""Pen drawings as tasks: a class is a glyph, a character or a category, its examples drawings of it, move by move."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count, require_uint64
from metadensity.files import Arrays
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import cached
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError, find_data_root
from tasks.hershey.task import split_glyphs
from tasks.images import ImageTasks
from tasks.media import Drawings
from tasks.pens.coding import MOST_REACH, decode, encode, in_unit_square, levels_of, on_grid, require_coding
from tasks.pens.drawings import HERSHEY_SIZE, STROKES, Drawing, hershey_drawings, omniglot_drawings
from tasks.pens.quickdraw import quickdraw_drawings, quickdraw_files
from tasks.pens.rendering import image
from tasks.splits.committed import load_split
from tasks.splits.random_splits import drawn_groups

CORPORA = {"hershey": "font", "omniglot": "alphabet"}  # and what a group of theirs is called
LEAST = 2  # drawings of a class: a support and a query
PACKED = "archives_sha256"  # how the same strokes are packed: of a cache, not of a recipe
CODING = "pen moves 1"  # renamed when the same strokes begin to give other symbols
Split = Mapping[str, Mapping[str, list[str]]]
"""Classes by group, by part."""


def pens(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    corpus: str = "hershey",
    folder: str | os.PathLike[str] | None = None,
    length: int = 128,
    grid: int = 28,
    reach: int = MOST_REACH,
    tolerance: float = 0.5,
    drawings: int = 20,
    drawing_seed: int = 0,
) -> ImageTasks:
    """Drawings as strings ``(1, length)`` of moves of a pen, one symbol each; see ``tasks.pens.coding``.

    ``tasks.pens.decode`` gives the strokes of a string on the grid, ``tasks.pens.image`` and ``tasks.pens.film`` what
    they look like. The last level is the end: it stands in all places after the drawing, and what follows the first of
    it costs nothing, so that likelihoods are those of drawings.

    split: "train", "validation", "test", or several joined by "+". Of "hershey" the committed split of the task
        hershey, glyph by glyph; of "omniglot" the five alphabets of small1, Tagalog, and Japanese (katakana) and
        Sanskrit: those to train on are the ones that the task omniglot trains on with ``protocol=small1``, and what
        that tests on is in none of these. Those of a folder are drawn by hash, by category, a tenth each and one at
        least.
    data_root: the folder that holds ``omniglot/strokes_background_small1.zip`` and ``-small2.zip``.
    seed: fixes the episodes.
    corpus: "hershey", the strokes whose images the task hershey has, or "omniglot", the published strokes.
    folder: in place of a corpus, QuickDraw's ``.ndjson`` files or sketch-rnn's ``.npz``, one a category, by path or
        relative to the data root.
    length: places; drawings of more moves are left out, which is said. One of as many has no room for an end.
    grid: cells along a side. Hershey's and Omniglot's drawings lie in it as in their images; QuickDraw's fill it.
    reach: cells of the longest move along an axis, 1 to 5; there are 2 (2 reach + 1)^2 + 1 symbols.
    tolerance: cells by which points are left out where the line is straight, from 0; see ``coding.on_grid``.
    drawings: of a class at most, the first of them; of Hershey's as many hands.
    drawing_seed: of the hands of Hershey's glyphs, as that of the task hershey.

    Raises ValueError for options out of range, DataError for drawings that are missing, damaged or others.
    """
    parts = split_parts("pens", split)
    length = require_count("length", length, 2)
    grid, reach = require_coding(grid, reach)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance={tolerance}; give cells, 0 or more.")
    drawings = require_count("drawings", drawings, LEAST)
    if folder is None and corpus not in CORPORA:
        raise ValueError(f"corpus={corpus!r}; give one of {', '.join(CORPORA)}, or folder= with QuickDraw's files.")
    source, classes_of, noun, read = strokes_source(corpus, folder, data_root, drawings, drawing_seed)
    recipe: dict[str, Any] = {
        "task": "pens",
        "version": 1,
        **source,
        "coding": CODING,
        "grid": grid,
        "reach": reach,
        "tolerance": float(tolerance),
        "drawings": drawings,
    }
    held = cached("pens", recipe, lambda: _encoded(read(), grid, reach, tolerance, drawings, recipe["corpus"]))
    chosen = _of_splits(held, classes_of, length)
    where = f"pens, {recipe['corpus']}, {split}"
    if long := [name for part in parts for name in chosen[part].long]:
        classes = list(dict.fromkeys(long))
        say_once(
            f"{where}: {len(long):,} drawings of {len(classes):,} classes are left out, as they take over {length} "
            f"moves, or as fewer than {LEAST} of their class are left: {in_short(classes, 5)}."
        )
    if known := [name for part in parts for name in chosen[part].known]:
        say_once(f"{where}: {len(known):,} drawings are left out, as a later split has the same: {in_short(known, 5)}.")
    kept = {name: strings for part in parts for name, strings in chosen[part].strings.items()}
    if not kept:
        raise DataError(f"{where}: no class has {LEAST} drawings of {length} moves at most. Give a greater length.")
    every = [string for strings in kept.values() for string in strings]
    end = levels_of(reach) - 1
    images = np.full((len(every), 1, length), end, dtype=np.uint8)
    for row, string in enumerate(every):
        images[row, 0, : len(string)] = string
    return ImageTasks(
        "pens",
        "+".join(parts),
        seed,
        images=images,
        **described_classes(kept, classes_of, parts),
        group_noun=noun,
        event_shape=(1, length),
        levels=end + 1,
        end=end,
        medium=Drawings(partial(_seen, grid, reach)),
        recipe={**{key: value for key, value in recipe.items() if key != PACKED}, "length": length},
    )


def _seen(grid: int, reach: int, string: NDArray[np.int64]) -> NDArray[np.bool_]:
    """What a string looks like, two pixels a cell."""
    return image(in_unit_square(decode(string, grid, reach), grid), 2 * grid)


@dataclass
class _Chosen:
    """The strings of a split by class, and the classes of drawings that are left out: too long, or known elsewhere."""

    strings: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    long: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)


def _of_splits(held: Arrays, classes_of: Split, length: int) -> dict[str, _Chosen]:
    """What each split keeps: test all, validation what test does not hold, training the rest."""
    strings = np.split(held["symbols"], np.cumsum(held["lengths"])[:-1])
    own: dict[int, list[NDArray[np.uint8]]] = {}
    for label, string in zip(held["labels"].tolist(), strings, strict=True):
        own.setdefault(label, []).append(string)
    by_name = {name: own[number] for number, name in enumerate(json.loads(held["names"].tobytes()))}
    taken: set[bytes] = set()
    chosen = {}
    for part in reversed(SPLITS):
        here = chosen[part] = _Chosen()
        mine: set[bytes] = set()
        for name in (name for names in classes_of[part].values() for name in names):
            new = [string for string in by_name[name] if string.tobytes() not in taken]
            fits = [string for string in new if len(string) <= length]
            fits = fits if len(fits) >= LEAST else []
            here.known += [name] * (len(by_name[name]) - len(new))
            here.long += [name] * (len(new) - len(fits))
            mine |= {string.tobytes() for string in fits}
            if fits:
                here.strings[name] = fits
        taken |= mine
    return chosen


def described_classes(kept: Mapping[str, Sized], classes_of: Split, parts: Sequence[str]) -> dict[str, Any]:
    """What ``ImageTasks`` is told of the examples that were kept, by class: their labels, and classes and groups."""
    group = {name: group for part in parts for group, names in classes_of[part].items() for name in names}
    groups = list(dict.fromkeys(group[name] for name in kept))
    return {
        "labels": np.repeat(np.arange(len(kept)), [len(own) for own in kept.values()]),
        "class_names": list(kept),
        "group_names": groups,
        "class_group": [groups.index(group[name]) for name in kept],
    }


def strokes_source(
    corpus: str,
    folder: str | os.PathLike[str] | None,
    data_root: str | os.PathLike[str] | None,
    drawings: int,
    drawing_seed: int,
) -> tuple[dict[str, Any], Split, str, Any]:
    """What the recipe says of the strokes, their split, what a group is called, and what reads them."""
    if folder is not None:
        path = Path(folder).expanduser()
        path = path if path.is_absolute() or path.is_dir() else find_data_root(data_root).path / path
        files = quickdraw_files(path)
        if len(files) < len(SPLITS):
            raise DataError(
                f"{path} holds the categories {', '.join(files)}; training, validation and test take three at least."
            )
        tenth = max(1, len(files) // 10)
        drawn = drawn_groups(files, {"test": tenth, "validation": tenth}, 0)
        split = {part: {name: [name] for name in names} for part, names in drawn.items()}
        of_folder = {"corpus": "folder", "images_sha256": _files_sha256(list(files.values()))}
        return of_folder, split, "category", lambda: quickdraw_drawings(files, drawings)
    if corpus == "omniglot":
        content = load_split("pens")
        paths = [find_data_root(data_root).path / "omniglot" / name for name in STROKES]
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(
                f"{missing[0]} is missing. Put the published file there, from https://github.com/brendenlake/omniglot, "
                "folder python, or name the folder that holds omniglot/ in METADENSITY_DATA or data_root."
            )
        return (
            {
                "corpus": corpus,
                "images_sha256": content["characters_sha256"],
                PACKED: [_files_sha256([path]) for path in paths],
            },
            {part: content[part] for part in SPLITS},
            CORPORA[corpus],
            lambda: _as_split(omniglot_drawings(paths), content["characters_sha256"]),
        )
    glyphs = {part: split_glyphs(part) for part in SPLITS}
    by_font: dict[str, dict[str, list[str]]] = {part: {} for part in SPLITS}
    for part, members in glyphs.items():
        for glyph in members:
            by_font[part].setdefault(glyph.font, []).append(glyph.name)
    drawing_seed = require_uint64("drawing_seed", drawing_seed)
    source: dict[str, Any] = {
        "corpus": corpus,
        "fonts_sha256": load_split("hershey")["fonts_sha256"],
        "size": HERSHEY_SIZE,
        "drawing_seed": drawing_seed,
    }
    every = [glyph for part in SPLITS for glyph in glyphs[part]]
    return source, by_font, CORPORA[corpus], lambda: hershey_drawings(every, drawing_seed, drawings)


def _as_split(found: dict[str, list[Drawing]], expected: str) -> dict[str, list[Drawing]]:
    """``found``, once its drawings are those that were split; DataError otherwise."""
    sha256 = drawings_sha256(found)
    if sha256 != expected:
        raise DataError(
            f"the archives of strokes hold other drawings (checksum {sha256}, not {expected}) than those that were "
            "split. Get the published ones, from https://github.com/brendenlake/omniglot, folder python."
        )
    return found


def drawings_sha256(found: Mapping[str, list[Drawing]]) -> str:
    """SHA-256, in hex, over the names of classes and all points of their strokes, to a millionth of the side."""
    digest = hashlib.sha256()
    for name, drawings in found.items():
        digest.update(f"{name}: {[[len(stroke) for stroke in drawing] for drawing in drawings]}\n".encode())
        for drawing in drawings:
            digest.update(np.rint(np.concatenate(drawing) * 1e6).astype("<i8").tobytes())
    return digest.hexdigest()


def _files_sha256(paths: list[Path]) -> str:
    """SHA-256, in hex, over the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _encoded(
    found: Mapping[str, list[Drawing]], grid: int, reach: int, tolerance: float, drawings: int, corpus: str
) -> Arrays:
    """The strings of all drawings, one after the other, their lengths and classes; the names of these as JSON."""
    strings, labels = [], []
    clipped = points = cut = 0
    for number, own in enumerate(found.values()):
        for drawing in own[:drawings]:
            cells, beyond = on_grid(drawing, grid, tolerance)
            points += sum(map(len, drawing))
            clipped, cut = clipped + beyond, cut + (beyond > 0)
            strings.append(encode(cells, grid, reach))
            labels.append(number)
    moves = sum(map(len, strings))
    if clipped:
        say_once(f"pens, {corpus}: {clipped:,} points of {cut:,} drawings lie beyond the image and are clipped to it.")
    say_once(f"pens, {corpus}: {points:,} points of {len(strings):,} drawings are {moves:,} moves on a grid of {grid}.")
    return {
        "symbols": np.concatenate(strings),
        "lengths": np.array([len(string) for string in strings]),
        "labels": np.array(labels),
        "names": np.frombuffer(json.dumps(list(found)).encode(), dtype=np.uint8),
    }

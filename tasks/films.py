"""Films of a glyph being drawn, stroke by stroke: a class is a glyph, its examples are the films of several hands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count
from metadensity.files import Arrays
from metadensity.progress import with_progress
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import cached
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.images import ImageTasks
from tasks.pens.drawings import Drawing
from tasks.pens.rendering import film
from tasks.pens.task import CORPORA, LEAST, PACKED, Split, described_classes, strokes_source

Film = NDArray[np.bool_]  # (frames, size, size)


def films(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    corpus: str = "hershey",
    size: int = 16,
    frames: int = 4,
    drawings: int = 20,
    drawing_seed: int = 0,
) -> ImageTasks:
    """Binary films ``(1, frames, size, size)`` of a drawing as it grows, ink 1; the last frame is the drawing.

    Each frame has an equal part more of the way that the pen makes, in the order of the strokes, and ink stays; see
    ``tasks.pens.film``. A film that another of the same or of a later split equals is left out, which is said.

    split: "train", "validation", "test", or several joined by "+": those of the task pens.
    data_root: the folder that holds ``omniglot/strokes_background_small1.zip`` and ``-small2.zip``.
    seed: fixes the episodes.
    corpus: "hershey", glyphs of the Hershey fonts in several hands, which need no data, or "omniglot", the published
        strokes of its drawers.
    size: side of a frame in pixels, from 4. frames: of a film, from 1; 1 is the drawing alone.
    drawings: of a class at most, the first of them; of Hershey's as many hands.
    drawing_seed: of the hands of Hershey's glyphs, as that of the task hershey.

    Raises ValueError for options out of range, DataError for drawings that are missing, damaged or others.
    """
    parts = split_parts("films", split)
    size, frames = require_count("size", size, 4), require_count("frames", frames, 1)
    drawings = require_count("drawings", drawings, LEAST)
    if corpus not in CORPORA:
        raise ValueError(f"corpus={corpus!r}; give one of {', '.join(CORPORA)}.")
    source, classes_of, noun, read = strokes_source(corpus, None, data_root, drawings, drawing_seed)
    recipe: dict[str, Any] = {
        "task": "films",
        "version": 1,
        **source,
        "pixels": size,
        "frames": frames,
        "drawings": drawings,
    }
    held = cached("films", recipe, lambda: _filmed(read(), size, frames, drawings))
    chosen = _of_splits(held, classes_of, frames * size * size)
    where = f"films, {corpus}, {split}"
    if left_out := [name for part in parts for name in chosen[part].left_out]:
        say_once(
            f"{where}: {len(left_out):,} films are left out, as another is the same, they have no ink, or fewer than "
            f"{LEAST} of their class are left: {in_short(left_out, 5)}."
        )
    kept = {name: own for part in parts for name, own in chosen[part].films.items()}
    if not kept:
        raise DataError(f"{where}: no class has {LEAST} different films. Give a greater size, or more drawings.")
    return ImageTasks(
        "films",
        "+".join(parts),
        seed,
        images=np.concatenate(list(kept.values())),
        packed=True,
        **described_classes(kept, classes_of, parts),
        group_noun=noun,
        event_shape=(1, frames, size, size),
        levels=2,
        ink=True,
        recipe={key: value for key, value in recipe.items() if key != PACKED},
    )


@dataclass
class _Chosen:
    """Of a split, packed films ``(n, bytes)`` by class, and the classes of those that are left out."""

    films: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def _of_splits(held: Arrays, classes_of: Split, pixels: int) -> dict[str, _Chosen]:
    """What each split keeps, once each: test all, validation what test does not hold, training the rest."""
    names = json.loads(held["names"].tobytes())
    own = {name: held["films"][held["labels"] == number] for number, name in enumerate(names)}
    ink = np.bitwise_count(held["films"]).sum(1)
    one_level = {held["films"][row].tobytes() for row in np.flatnonzero((ink == 0) | (ink == pixels))}
    taken, chosen = set(one_level), {}
    for part in reversed(SPLITS):
        here = chosen[part] = _Chosen()
        for name in (name for each in classes_of[part].values() for name in each):
            new = {film.tobytes(): film for film in own[name] if film.tobytes() not in taken}
            fits = list(new.values()) if len(new) >= LEAST else []
            here.left_out += [name] * (len(own[name]) - len(fits))
            if fits:
                here.films[name] = np.stack(fits)
                taken |= new.keys()
    return chosen


def _filmed(found: Mapping[str, list[Drawing]], size: int, frames: int, drawings: int) -> Arrays:
    """All films, packed, with their classes; the names of these as JSON."""
    every = with_progress(found.values(), "filming drawings, this once", "classes")
    made = [[film(drawing, size, frames=frames) for drawing in own[:drawings]] for own in every]
    flat = np.stack([each.ravel() for own in made for each in own])
    return {
        "films": np.packbits(flat, axis=1),
        "labels": np.repeat(np.arange(len(made)), [len(own) for own in made]),
        "names": np.frombuffer(json.dumps(list(found)).encode(), dtype=np.uint8),
    }

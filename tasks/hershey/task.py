"""The embedded default: glyphs of the 32 Hershey stroke fonts, each drawn by several hands.

Fonts are the groups (alphabets), glyphs the classes (characters). Nothing is downloaded: the strokes come
with the package Hershey-Fonts. The splits are by font, in ``splits/hershey.json``; ``split_by`` draws others.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import PIL

from metadensity.checks import require_count, require_uint64
from metadensity.files import Arrays
from metadensity.progress import with_progress
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import cached, sha256_of_json
from tasks.data.roots import DataError
from tasks.hershey.choose_split import SMALLEST_FONT
from tasks.hershey.drawing import draw
from tasks.hershey.glyphs import Glyph, fonts_checksum, hershey_fonts, normalised
from tasks.images import ImageTasks
from tasks.splits.committed import load_split
from tasks.splits.random_splits import drawn_groups, drawn_shapes, require_split_by, without_shared_shapes
from tasks.styles import STYLES_VERSION, require_styles, style

# Raised when the same arguments begin to give other pixels; old caches are then left alone.
DRAWING_VERSION = 1


def hershey(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    size: int = 28,
    drawings: int = 20,
    drawing_seed: int = 0,
    split_by: str | None = None,
    split_seed: int = 0,
    styles: int = 0,
) -> ImageTasks:
    """Glyphs of the Hershey fonts, binary, ``(1, size, size)``, ink = 1.

    split: "train" (670 characters), "validation" (85), "test" (413), or several joined by "+".
    data_root: not used; the strokes come with Hershey-Fonts.
    seed: fixes the episodes, not the images.
    size: side of an image in pixels, from 8.
    drawings: images of each character, by as many hands; more of them keep the first ones.
    drawing_seed: fixes the images; drawing d of a character is a function of (drawing_seed, character, d, size).
    split_by, split_seed: None for the committed split. "group" draws anew, by ``split_seed``, which of its 23 fonts
        are held out; test keeps its fonts whole, and training loses every shape that stands there. "class" draws which
        shapes are held out, as many characters as the committed split has, of fonts that training knows.
    styles: further classes for each one of a split that holds "train": the character again, so many times, each in a
        style of its own, see ``tasks.styles``. The other splits stay as they are.

    Raises ValueError for options out of range, DataError where the installed fonts are not the ones split.
    """
    size = require_count("size", size, 8)
    drawings = require_count("drawings", drawings, 2)
    drawing_seed = require_uint64("drawing_seed", drawing_seed)
    split_seed = require_split_by(split_by, split_seed)
    styles = require_styles(styles)
    parts = split_parts("hershey", split)
    drawn: dict[str, Any] = {}
    if split_by is None:
        glyphs = [glyph for part in parts for glyph in split_glyphs(part)]
    else:
        by_part, drawn = _drawn(split_by, split_seed)
        glyphs = [glyph for part in parts for glyph in by_part[part]]
    fonts = list(dict.fromkeys(glyph.font for glyph in glyphs))
    recipe = {
        "task": "hershey",
        "version": DRAWING_VERSION,
        "fonts_sha256": load_split("hershey")["fonts_sha256"],
        "pillow": PIL.__version__,
        "size": size,
        "drawings": drawings,
        "drawing_seed": drawing_seed,
        "characters": [glyph.name for glyph in glyphs],
    }

    def build(glyphs: list[Glyph]) -> Arrays:
        shown = with_progress(glyphs, "drawing glyphs, this once", "glyphs")
        images = np.stack([draw(glyph, drawing_seed, drawings, size) for glyph in shown])
        return {"images": np.packbits(images.reshape(-1, size * size), axis=1)}

    if split_by is None:
        images = cached("hershey", recipe, lambda: build(glyphs))["images"]
    else:  # all characters are drawn at once, for all random splits
        every = [glyph for part in SPLITS for glyph in split_glyphs(part)]
        held = cached("hershey", {**recipe, "characters": [glyph.name for glyph in every]}, lambda: build(every))
        row = {glyph.name: number for number, glyph in enumerate(every)}
        wanted = np.array([row[glyph.name] for glyph in glyphs])
        images = held["images"].reshape(len(every), drawings, -1)[wanted].reshape(len(glyphs) * drawings, -1)
    if styles and "train" in parts:
        drawn |= {"styles": styles, "styles_version": STYLES_VERSION}
        further = [in_style(glyph, number) for number in range(1, styles + 1) for glyph in glyphs]
        of_these = {**recipe, **drawn, "characters": [glyph.name for glyph in further]}
        images = np.concatenate([images, cached("hershey_styles", of_these, lambda: build(further))["images"]])
        glyphs = glyphs + further
    return ImageTasks(
        "hershey",
        "+".join(parts),
        seed,
        images=images,
        labels=np.repeat(np.arange(len(glyphs)), drawings),
        class_names=[glyph.name for glyph in glyphs],
        group_names=fonts,
        class_group=[fonts.index(glyph.font) for glyph in glyphs],
        event_shape=(1, size, size),
        group_noun="font",
        levels=2,
        recipe={**recipe, **drawn},
        packed=True,
        ink=True,
    )


def in_style(glyph: Glyph, number: int) -> Glyph:
    """The glyph in one of its styles, in a box of its own."""
    matrix = style(glyph.name, number)
    bent = normalised(glyph.font, glyph.code, [stroke @ matrix.T for stroke in glyph.strokes])
    assert bent is not None
    return replace(bent, style=number)


@lru_cache(maxsize=16)
def _drawn(split_by: str, split_seed: int) -> tuple[dict[str, list[Glyph]], dict[str, Any]]:
    """The glyphs of the splits drawn by a seed, and what the recipe says of them."""
    committed = {part: split_glyphs(part) for part in SPLITS}
    glyph = {glyph.name: glyph for part in SPLITS for glyph in committed[part]}
    shape = {name: names[0] for names in load_split("hershey")["shapes"] for name in names}
    classes = {name: (glyph[name].font, shape.get(name, name)) for name in sorted(glyph)}
    if split_by == "class":
        names = drawn_shapes(classes, {part: len(committed[part]) for part in SPLITS}, split_seed)
    else:
        sizes = {part: len({glyph.font for glyph in committed[part]}) for part in SPLITS}
        fonts = drawn_groups((font for font, _ in classes.values()), sizes, split_seed)
        names = without_shared_shapes(fonts, classes, SMALLEST_FONT)
    said = {"split_by": split_by, "split_seed": split_seed, "split_sha256": sha256_of_json(names)}
    return {part: [glyph[name] for name in names[part]] for part in SPLITS}, said


def split_glyphs(part: str) -> list[Glyph]:
    """The glyphs of one part of the committed split, by font and code."""
    content = load_split("hershey")
    fonts = hershey_fonts()
    if fonts_checksum(fonts) != content["fonts_sha256"]:
        raise DataError(
            "the installed package Hershey-Fonts holds other strokes than the ones that were split, so the splits "
            "may leak. Install the version that the project pins, or choose the split anew with "
            "'python -m tasks.hershey.choose_split'."
        )
    chosen = {(font, code) for font, codes in content["characters"][part].items() for code in codes}
    order = [font for font in content["fonts"][part] if font in content["characters"][part]]
    return [glyph for font in order for glyph in fonts[font] if (font, glyph.code) in chosen]

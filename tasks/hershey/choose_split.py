"""The split of the characters of the Hershey fonts; ``python -m tasks.hershey.choose_split`` writes the file again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.hershey.glyphs import BITMAP_OVERLAP, STROKE_DISTANCE, Glyph, alike, fonts_checksum, hershey_fonts
from tasks.splits.committed import save_split

# By script, so that the held-out alphabets are ones that training has not seen in any style. The order
# matters: a shape that several fonts hold belongs to the first that lists it.
FONTS = {
    "train": (
        *("rowmans", "futural", "rowmand", "futuram", "timesr", "timesrb", "rowmant", "timesi", "timesib"),
        *("gothiceng", "gothgbt", "gothicita", "gothitt", "mathlow", "mathupp", "meteorology", "music", "markers"),
    ),
    "validation": ("greek", "greeks", "greekc", "timesg", "astrology"),
    "test": ("japanese", "cyrillic", "cyrilc_1", "gothicger", "gothgrt", "scriptc", "scripts", "cursive", "symbolic"),
}
SMALLEST_FONT = 5

Characters = dict[str, dict[str, list[int]]]


class LeakError(ValueError):
    """One shape stands in two splits."""


def choose(fonts: Mapping[str, Sequence[Glyph]], by_split: Mapping[str, Sequence[str]] = FONTS) -> Characters:
    """Which characters each split keeps, as ``{split: {font: codes}}``.

    Training chooses first, then validation, then test, so that training stays large and what is tested
    is new: a split drops every character that is alike to one of an earlier split. Exact copies within
    a split are kept once. A font left with fewer than ``SMALLEST_FONT`` characters is left out.
    """
    chosen: Characters = {}
    earlier: list[Glyph] = []
    for split, names in by_split.items():
        shapes = {glyph.shape_key: glyph for glyph in earlier}
        candidates = []
        for font in names:
            for glyph in fonts[font]:
                if glyph.shape_key not in shapes:
                    shapes[glyph.shape_key] = glyph
                    candidates.append(glyph)
        if earlier:
            known = set(alike(candidates, earlier).nonzero()[0].tolist())
            candidates = [glyph for number, glyph in enumerate(candidates) if number not in known]
        codes = {font: [glyph.code for glyph in candidates if glyph.font == font] for font in names}
        chosen[split] = {font: kept for font, kept in codes.items() if len(kept) >= SMALLEST_FONT}
        earlier += [glyph for glyph in candidates if glyph.font in chosen[split]]
    return chosen


def shapes(glyphs: Sequence[Glyph]) -> list[list[str]]:
    """Names of glyphs that are one shape, directly or through others that are alike; glyphs alike to none left out.

    Splits that keep each of these lists together share no shape.
    """
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(alike(glyphs, glyphs), directed=False)
    found = [[glyphs[i].name for i in (labels == label).nonzero()[0]] for label in np.unique(labels)]
    return [names for names in found if len(names) > 1]


def require_no_leak(characters: Mapping[str, Sequence[Glyph]]) -> None:
    """Raise LeakError, naming the pairs, where a character of one split is alike to one of another."""
    splits = list(characters)
    for number, split in enumerate(splits):
        for other in splits[number + 1 :]:
            mine, theirs = characters[split], characters[other]
            pairs = [(mine[i].name, theirs[j].name) for i, j in zip(*alike(mine, theirs).nonzero(), strict=True)]
            if pairs:
                shown = ", ".join(f"{a} and {b}" for a, b in pairs[:5])
                raise LeakError(
                    f"{len(pairs)} shapes stand in both {split} and {other}: {shown}. Drop them from one of the two."
                )


def main() -> None:
    """Write ``splits/hershey.json``."""
    fonts = hershey_fonts()
    characters = choose(fonts)
    chosen = {(font, code) for by_font in characters.values() for font, codes in by_font.items() for code in codes}
    pooled = [glyph for glyphs in fonts.values() for glyph in glyphs if (glyph.font, glyph.code) in chosen]
    save_split(
        "hershey",
        {
            "about": "Characters by font, as code points from 32 in Hershey-Fonts; see tasks/_hershey_split.py.",
            "fonts_sha256": fonts_checksum(fonts),
            "fonts": {split: list(names) for split, names in FONTS.items()},
            "same_shape": {"stroke_distance": STROKE_DISTANCE, "bitmap_overlap": BITMAP_OVERLAP},
            "characters": characters,
            "shapes": shapes(pooled),
        },
    )
    for split, by_font in characters.items():
        print(split, sum(map(len, by_font.values())), {font: len(codes) for font, codes in by_font.items()})


if __name__ == "__main__":
    main()

"""Examples of one's own as they were given and as a model sees them, beside its samples, with numbers and words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tasks.media import Medium
from tasks.own import OwnSupport

CELL, GAP, TEXT = 104, 8, 13  # pixels: of an image's side, at least, between images, of the letters
MOST = 12  # rows that are shown
_INK, _GREY, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def own_picture(own: OwnSupport, samples: Tensor, numbers: Sequence[str], title: str) -> NDArray[np.uint8]:
    """A row an example: as it was given, as the model sees it, its numbers; right of them samples. Returns (H, W, 3).

    samples: ``(N, tasks, C, H, W)``, of one task for all examples or of one for each, which then stand in its row.
    numbers: of each example, such as "45.1 nats". Below stand ``own.notes``.
    """
    shown = min(len(own), MOST)
    seen = [_cell(Image.fromarray(_picture(own.medium, image))) for image in own.support[:shown, 0]]
    drawn = [[_cell(Image.fromarray(_picture(own.medium, image))) for image in row] for row in samples.transpose(0, 1)]
    if len(drawn) == 1:
        (all_of_them,) = drawn
        wide = -(-len(all_of_them) // max(shown, -(-len(all_of_them) // MOST)))
        drawn = [all_of_them[start : start + wide] for start in range(0, len(all_of_them), wide)]
    drawn = drawn[:MOST]
    side, font = seen[0].width, ImageFont.load_default(TEXT)
    line = TEXT + 5
    rows, columns = max(shown, len(drawn)), max(map(len, drawn))
    words = round(TEXT * 9)
    right = 3 * GAP + 2 * (side + GAP) + words + 2 * GAP
    width = max(right + columns * (side + GAP) + GAP, 620)
    notes = [wrapped for note in own.notes for wrapped in _wrapped(f"- {note}", width)]
    if shown < len(own):
        notes += [f"- {len(own) - shown} more drawings are given and not shown"]
    top = GAP + 2 * line + GAP
    height = top + rows * (side + GAP) + GAP + line * (len(notes) + 1)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, _INK, font)
    for x, text in ((GAP, "given"), (2 * GAP + side, "as the model sees it"), (right, "samples of the model")):
        pen.text((x, GAP + line), text, _GREY, font)
    for row in range(shown):
        y = top + row * (side + GAP)
        _paste(page, own.originals[row].convert("RGB"), GAP, y, side)
        _paste(page, seen[row], 2 * GAP + side, y, side)
        pen.multiline_text((4 * GAP + 2 * side, y + GAP), numbers[row], _INK, font)
    for row, images in enumerate(drawn):
        for column, image in enumerate(images):
            _paste(page, image, right + column * (side + GAP), top + row * (side + GAP), side)
    pen.line([(right - GAP, top), (right - GAP, top + rows * (side + GAP) - GAP)], _GREY)
    for number, note in enumerate(notes):
        pen.text((GAP, top + rows * (side + GAP) + GAP + number * line), note, _GREY, font)
    return np.asarray(page)


def _picture(medium: Medium, image: Tensor) -> NDArray[np.uint8]:
    found = medium.picture(image)
    assert found is not None
    return found


def _cell(image: Image.Image) -> Image.Image:
    """The image about as large as a cell, each pixel a whole number of pixels wide."""
    zoom = max(1, round(CELL / image.width))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def _paste(page: Image.Image, image: Image.Image, x: int, y: int, side: int) -> None:
    """In the middle of a cell, framed."""
    if image.size != (side, side):
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    left, upper = x + (side - image.width) // 2, y + (side - image.height) // 2
    page.paste(image, (left, upper))
    ImageDraw.Draw(page).rectangle((left - 1, upper - 1, left + image.width, upper + image.height), outline=(200,) * 3)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(30, round(width / (TEXT * 0.52))), subsequent_indent="  ")

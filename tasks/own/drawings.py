"""A drawing of any size, paper and pen as one of those that a model of ink was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tasks.data.roots import DataError
from tasks.hershey.drawing import PEN, THINNEST_PEN
from tasks.omniglot.archives import SIDE
from tasks.omniglot.shrink import shrunk
from tasks.own.thinning import Bitmap, thinned

MOST = 512  # pixels a side that are looked at: strokes of larger images stay as wide as they need to be
FAINT = 12  # of 255: what differs less from the paper is no ink
NEAR = (0.75, 1.35)  # pens of so many times the wanted width only grow or shrink by what is missing
FILLED = 0.35  # of the longer side of a drawing: what is wider is no stroke
_UNEVEN = 0.2  # of the contrast: how far the paper's border may vary and still be of one brightness


@dataclass(frozen=True)
class Hand:
    """How the drawings of a task look: where they lie, how wide their pen is, how they are shrunk.

    side: pixels of the canvas that they are drawn on. extent: of the side, the longer side of the box round a drawing.
    pen: pixels of the canvas. middle: of the side, where the middle of the box is, along both axes. shrink, threshold:
    how the canvas becomes ``size`` pixels a side, see ``tasks.omniglot.shrink``. said: whose drawings they are like.
    """

    said: str
    side: int
    extent: float
    pen: float
    middle: float = 0.5
    shrink: str = "area"
    threshold: float = 0.5


def hand_of(recipe: Mapping[str, Any], size: int) -> Hand:
    """The hand of the task that a recipe is of, measured on its drawings; of others one between these."""
    if recipe.get("task") == "omniglot":
        threshold = recipe.get("threshold")
        return Hand(
            "Omniglot's", SIDE, 0.63, 5.0, 0.485, recipe["shrink"], 0.5 if threshold is None else float(threshold)
        )
    side = 4 * size
    if recipe.get("task") == "digits":  # of 32 x 32, counted by squares of 4 x 4
        return Hand("the digits", side, 0.97, side / 8)
    pen = max(sum(PEN) / 2 * size / 28, THINNEST_PEN) * 4
    if recipe.get("task") == "hershey":
        return Hand("the drawn glyphs", side, 0.91, pen)
    return Hand("handwriting", side, 0.8, pen)


@dataclass
class Done:
    """What was done to how many drawings, in words, in the order in which it was first done."""

    counts: Counter[str] = field(default_factory=Counter)

    def said(self, drawings: int) -> list[str]:
        """One line for each; with a count where it was not done to all."""
        return [what if count == drawings else f"{count} of {drawings}: {what}" for what, count in self.counts.items()]


def ink_of(image: Image.Image, name: str, done: Done) -> Bitmap:
    """Where an image, on whatever paper, holds ink: ``(H, W)``, at most ``MOST`` pixels a side.

    Paper is what the border holds, evened out where it is lit unevenly; ink is what differs from it by more than two
    fifths of what differs most. Raises DataError where nothing does.
    """
    pixels = np.asarray(_at_most(image.convert("RGB")), dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper: NDArray[np.float32] = np.median(border, axis=0)
    strength = np.abs(pixels - paper).max(-1)
    strongest = _strongest(strength)
    spread = np.abs(border - paper).max(-1)
    if strongest > FAINT and np.quantile(spread, 0.9) > _UNEVEN * strongest:
        paper = _lit(pixels)
        strength = np.abs(pixels - paper).max(-1)
        strongest = _strongest(strength)
        done.counts["the light on the paper was evened out"] += 1
    noise = float(np.quantile(strength, 0.5))
    if strongest < max(FAINT, 4 * noise):
        raise DataError(
            f"{name} holds no drawing: nothing in it stands out from its border. Give one with a margin round it, of a "
            "pen that is darker, or lighter, than the paper."
        )
    ink = strength > 0.4 * strongest
    if float(pixels[ink].mean()) < float(np.mean(paper)):
        done.counts["inverted: dark ink on light paper, and 1 is ink to the model"] += 1
    clean = _without_specks(ink)
    if not np.array_equal(clean, ink):
        done.counts["specks smaller than the pen were left out"] += 1
    return clean


def in_hand(ink: Bitmap, hand: Hand, size: int, levels: int, done: Done, *, box: bool, pen: bool) -> NDArray[np.uint8]:
    """The ink of any image as ``(size, size)`` pixels in ``[0, levels)`` in a hand, the last level all ink.

    box: whether the drawing is cut out and put where the hand puts its own, at their size; otherwise the whole image
    becomes the canvas, its longer side as long. pen: whether strokes of another width are drawn with the hand's pen.
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    low = np.array([rows[0], columns[0]], dtype=float)
    high = np.array([rows[-1], columns[-1]], dtype=float) + 1
    width, longest = pen_width(ink), float((high - low).max())
    redrawn = pen and width < FILLED * longest
    if box:
        room, length = hand.extent * hand.side, longest
        if redrawn:
            room, length = room - hand.pen, max(longest - width, 1.0)
        scale, middle, place = room / length, (low + high) / 2, hand.middle * hand.side
        done.counts[f"boxed and centred, as {hand.said} are"] += 1
    else:
        scale, middle, place = hand.side / max(ink.shape), np.array(ink.shape) / 2, hand.side / 2
    wanted = hand.pen / scale  # pixels of the image
    if redrawn and width < NEAR[0] * wanted:
        done.counts["thickened: a thinner pen would leave dots at the model's size"] += 1
        edge, distance = (wanted - width) / 2, _distance(ink)
    elif redrawn and width > NEAR[1] * wanted:
        done.counts["thinned: drawn again with a pen as wide as the model knows"] += 1
        edge, distance = wanted / 2, np.asarray(ndimage.distance_transform_edt(~thinned(ink)))
    else:
        edge, distance = (wanted - width) / 2 if redrawn else 0.0, _distance(ink)
    # The distance from the ink is smooth, so that strokes stay whole at any scale.
    at = (np.arange(hand.side) + 0.5 - place) / scale
    places = np.meshgrid(at + middle[0] - 0.5, at + middle[1] - 0.5, indexing="ij")
    outside = float(max(ink.shape)) * 2
    canvas = ndimage.map_coordinates(distance, places, order=1, mode="constant", cval=outside) <= edge
    if levels == 2:
        return shrunk(canvas[None], size, hand.shrink, hand.threshold)[0].astype(np.uint8)
    window = hand.side // size
    covered = canvas.reshape(size, window, size, window).mean((1, 3))
    return np.rint(covered * (levels - 1)).astype(np.uint8)


def pen_width(ink: Bitmap) -> float:
    """How wide the strokes are, pixels: twice the distance of their middle from the paper, a median."""
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(ink, 1)))
    ridge = (inside > 0) & (inside == ndimage.maximum_filter(inside, 3))
    return float(2 * np.median(inside[ridge]) - 1)


def _distance(ink: Bitmap) -> NDArray[np.float64]:
    """From the edge of the ink, pixels, below 0 inside."""
    padded = np.pad(ink, 1)  # the border of an image is an edge, too
    away, within = (ndimage.distance_transform_edt(side) for side in (~padded, padded))
    signed = np.where(padded, 0.5 - within, away - 0.5)  # the edge is half a pixel from the middle of the next one
    return np.asarray(signed[1:-1, 1:-1])


def _at_most(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= MOST:
        return image
    size = [max(1, round(side * MOST / longest)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BOX)


def _strongest(strength: NDArray[np.float32]) -> float:
    """What the strongest thousandth holds, 8 pixels at least: not a single one that is off."""
    count = min(strength.size, max(8, strength.size // 1000))
    return float(np.partition(strength.ravel(), -count)[-count])


def _lit(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The paper under light that changes slowly: a median of what lies round each place, wider than any stroke."""
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // 64)
    small = pixels[::step, ::step]
    around = max(3, max(small.shape[:2]) // 3)
    even = np.stack([ndimage.median_filter(small[..., channel], around, mode="nearest") for channel in range(3)], -1)
    parts = [
        np.asarray(Image.fromarray(even[..., channel]).resize((width, height), Image.Resampling.BILINEAR))
        for channel in range(3)
    ]
    return np.stack(parts, -1)


def _without_specks(ink: Bitmap) -> Bitmap:
    """Without what is smaller than half a dot of the pen; strokes touch at corners as well."""
    labels, count = ndimage.label(ink, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == sizes.argmax()
    if count == 1:
        return ink
    kept = sizes >= pen_width(largest) ** 2 / 2
    return np.asarray(kept[labels] & ink)

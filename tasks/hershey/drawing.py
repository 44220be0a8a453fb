"""Simulated handwriting of a glyph: random distortions of its strokes, a pen, a rasteriser."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks.hershey.glyphs import Glyph, Points, subdivided

# Standard deviations, in units of the longer side of the glyph's box unless named otherwise.
ROTATION = 0.09  # radians
LOG_SCALE = 0.07  # of each axis
SHEAR = 0.10
BEND = 0.022  # a smooth bending of the plane, shared by all strokes
STROKE_SHIFT = 0.012
POINT_JITTER = 0.008  # smoothed along the stroke
PEN = (1.5, 2.2)  # pixels of an image of 28 x 28; wider and narrower in proportion to the size
THINNEST_PEN = 1.15  # pixels, at any size: a thinner line would break when it is binarised
SHIFT = 0.05  # at most, of the image's side

_STEP = 0.12
_SUPERSAMPLE = 4
_LIMIT = 2.0  # normal numbers are clipped here, so that no drawer is careless beyond recognition
_KNOTS = np.stack(np.meshgrid([-0.5, -1 / 6, 1 / 6, 0.5], [-0.5, -1 / 6, 1 / 6, 0.5]), axis=-1).reshape(-1, 2)
_AFFINE = 4
_UNIFORM = 3


@dataclass(frozen=True)
class Handwriting:
    """Drawings of one glyph, strokes with the same numbers of points, in pixels of an image.

    points: ``(drawings, points, 2)`` x, y, y downwards. ends: ``(strokes,)``, where in the points each stroke ends.
    pens: ``(drawings,)`` widths of the pens.
    """

    points: Points
    ends: NDArray[np.int64]
    pens: NDArray[np.float64]


def draw(glyph: Glyph, seed: int, drawings: int, size: int) -> NDArray[np.bool_]:
    """``(drawings, size, size)`` bitmaps, ink True; drawing d is a function of (seed, glyph's name, d, size)."""
    return rasterised(written(glyph, seed, drawings, size), size)


def written(glyph: Glyph, seed: int, drawings: int, size: int) -> Handwriting:
    """The strokes that ``draw`` draws."""
    strokes = [subdivided(stroke, _STEP) for stroke in glyph.strokes]
    ends = np.cumsum([len(stroke) for stroke in strokes])
    points, normal, uniform = np.concatenate(strokes), [], []
    key = int.from_bytes(hashlib.sha256(glyph.name.encode()).digest()[:8], "little")
    for drawing in range(drawings):
        # A counter-based generator: each drawing has a stream of its own, however many are made.
        bits = np.random.Philox(key=np.array([seed, key], dtype=np.uint64), counter=drawing << 192)
        random = np.random.Generator(bits)
        uniform.append(random.random(_UNIFORM))
        normal.append(random.standard_normal(_AFFINE + 2 * (len(_KNOTS) + len(strokes) + len(points))))
    hand = np.clip(np.stack(normal), -_LIMIT, _LIMIT)
    chance = np.stack(uniform)
    pens = np.maximum((PEN[0] + (PEN[1] - PEN[0]) * chance[:, 0]) * size / 28, THINNEST_PEN)
    moved = _affine(_wobbled(points, ends, hand[:, _AFFINE:]), hand[:, :_AFFINE])
    return Handwriting(_placed(moved, chance[:, 1:], pens, size), ends, pens)


def _wobbled(points: Points, ends: NDArray[np.int64], hand: Points) -> Points:
    """``(drawings, points, 2)``: the points bent, each stroke shifted, each point jittered."""
    bend, shift, jitter = np.split(hand, [2 * len(_KNOTS), 2 * (len(_KNOTS) + len(ends))], axis=1)
    weight = np.exp(-((points[:, None] - _KNOTS[None]) ** 2).sum(axis=-1) / (2 * 0.3**2))
    out = points + BEND * np.einsum("pk,dkc->dpc", weight, bend.reshape(len(hand), -1, 2))
    stroke = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    out += STROKE_SHIFT * shift.reshape(len(hand), -1, 2)[:, stroke]
    noise = jitter.reshape(len(hand), -1, 2)
    # Neighbours share their noise, and a stroke that closes on itself stays closed to the eye.
    smooth = (np.roll(noise, 1, axis=1) + 2 * noise + np.roll(noise, -1, axis=1)) / 4
    return np.asarray(out + POINT_JITTER * smooth)


def _affine(points: Points, hand: Points) -> Points:
    """Each drawing's points, scaled along both axes, sheared and rotated about the centre."""
    turn, shear = ROTATION * hand[:, 0], SHEAR * hand[:, 1]
    wide, high = np.exp(LOG_SCALE * hand[:, 2]), np.exp(LOG_SCALE * hand[:, 3])
    x = wide[:, None] * points[..., 0] + (shear * high)[:, None] * points[..., 1]
    y = high[:, None] * points[..., 1]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _placed(points: Points, chance: Points, pens: NDArray[np.float64], size: int) -> Points:
    """The points in pixels: the glyph's box fills the image but for the pen, then shrinks and shifts a little."""
    room = size - pens - 1  # half a pixel is left free on each side
    low, high = points.min(axis=1), points.max(axis=1)
    extent = (high - low).max(axis=1)
    # A drawing that came out larger than the image is fitted into it; a smaller one stays smaller.
    scale = room / np.maximum(extent, 1.05)
    slack = room[:, None] - (high - low) * scale[:, None]
    shift = (2 * chance - 1) * np.minimum(slack / 2, SHIFT * size)
    centre = (low + high)[:, None] / 2
    return np.asarray((points - centre) * scale[:, None, None] + size / 2 + shift[:, None])


def rasterised(hand: Handwriting, size: int) -> NDArray[np.bool_]:
    """``(drawings, size, size)``: strokes drawn by Pillow at four times the size, then reduced; half covered is ink."""
    points, ends, pens = hand.points, hand.ends, hand.pens
    drawings, side = len(points), size * _SUPERSAMPLE
    canvas = Image.new("L", (side, side * drawings))  # one above the other
    pen = ImageDraw.Draw(canvas)
    # Pillow's integers are pixel centres. A round dot closes each end and each corner that a flat one would notch.
    pixels = points * _SUPERSAMPLE - 0.5
    pixels[..., 1] += (np.arange(drawings) * side)[:, None]
    dotted = _corners(points, ends)
    starts = [0, *ends[:-1].tolist()]
    for drawing in range(drawings):
        width = pens[drawing] * _SUPERSAMPLE
        radius = (width - 1) / 2
        for start, end in zip(starts, ends.tolist(), strict=True):
            pen.line(pixels[drawing, start:end].ravel().tolist(), fill=255, width=round(width))
        for x, y in pixels[drawing, dotted[drawing]].tolist():
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    reduced = np.asarray(canvas.reduce(_SUPERSAMPLE)).reshape(drawings, size, size)
    return reduced >= 128


def _corners(points: Points, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``(drawings, points)``: the ends of strokes, and the points where a stroke turns by more than 20 degrees."""
    step = np.diff(points, axis=1)
    heading = step / np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1e-9)
    dotted = np.ones(points.shape[:2], dtype=bool)
    dotted[:, 1:-1] = (heading[:, 1:] * heading[:, :-1]).sum(axis=-1) < np.cos(np.deg2rad(20))
    dotted[:, ends - 1] = True
    dotted[:, ends[:-1]] = True
    return dotted

"""Drawings as strings: the strokes of a pen on a grid of cells, one symbol a move.

A drawing is a list of strokes, a stroke ``(points, 2)`` cells x, y, y downwards. The pen begins in the middle of the
grid, in the air. A symbol is a move of at most ``reach`` cells along each axis, with the pen on the paper or in the
air; longer ways are several moves in as straight a line as the grid has. Each stroke begins with a move in the air,
which may be to where the pen is, so strokes are told apart; a stroke of one cell, a dot, is a move on the paper to
where the pen is. The last level ends a drawing.

So every drawing has its string, every string is a drawing, and probabilities of strings that sum to one are
probabilities of drawings: pen strokes, their order and their direction included. Why symbols, and not channels dx, dy
and pen: strings with an end are what the models of strings take, and what a move costs is one term, not three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metadensity.checks import require_count

Points = NDArray[np.float64]
Cells = NDArray[np.int64]
MOST_REACH = 5  # with 242 moves and an end, what 8 bits hold


def levels_of(reach: int) -> int:
    """How many symbols there are: moves on the paper, moves in the air, the end, which is the last."""
    return 2 * (2 * reach + 1) ** 2 + 1


def require_coding(grid: int, reach: int) -> tuple[int, int]:
    """Both, once they are found to be in range; TypeError or ValueError otherwise."""
    grid, reach = require_count("grid", grid, 2), require_count("reach", reach, 1)
    if reach > MOST_REACH:
        raise ValueError(f"reach={reach}; give 1 to {MOST_REACH} cells: {levels_of(MOST_REACH)} symbols, of 256.")
    return grid, reach


def on_grid(strokes: Sequence[Points], grid: int, tolerance: float = 0.5) -> tuple[list[Cells], int]:
    """Strokes in the unit square as strokes of cells, and how many of their points lay outside it and were clipped.

    Points that a straight line passes within ``tolerance`` cells are left out first (Ramer 1972, Douglas and Peucker
    1973). What is decoded lies within ``tolerance + 1`` cells of the strokes, and they of it.
    """
    cells, clipped = [], 0
    for stroke in strokes:
        points = np.asarray(stroke, dtype=np.float64)
        clipped += int(((points < 0) | (points > 1)).any(axis=1).sum())
        kept = np.array(simplified((points * grid).tolist(), tolerance))
        inside = np.floor(kept).astype(np.int64).clip(0, grid - 1)
        again = (inside[1:] == inside[:-1]).all(axis=1)
        cells.append(inside[np.concatenate([[True], ~again])])
    return cells, clipped


def simplified(points: Sequence[Sequence[float]], tolerance: float) -> list[Sequence[float]]:
    """The first and the last point, and of the others those without which the line would move by more."""
    kept, spans = {0, len(points) - 1}, [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        (x, y), (end_x, end_y) = points[first], points[last]
        along_x, along_y = end_x - x, end_y - y
        squared = max(along_x * along_x + along_y * along_y, 1e-12)
        furthest, away = first, tolerance * tolerance
        for number in range(first + 1, last):  # strokes are short: numpy would be slower
            from_x, from_y = points[number][0] - x, points[number][1] - y
            share = min(1.0, max(0.0, (from_x * along_x + from_y * along_y) / squared))
            distance = (from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2
            if distance > away:
                furthest, away = number, distance
        if furthest > first:
            kept.add(furthest)
            spans += [(first, furthest), (furthest, last)]
    return [points[number] for number in sorted(kept)]


def encode(strokes: Sequence[Cells], grid: int, reach: int = MOST_REACH) -> NDArray[np.uint8]:
    """The string ``(n,)`` of a drawing, without its end. Raises ValueError for a stroke without points."""
    side = 2 * reach + 1
    symbols: list[int] = []
    at = (grid // 2, grid // 2)
    for stroke in strokes:
        points = [(int(x), int(y)) for x, y in stroke]
        if not points:
            raise ValueError("a stroke has no points; leave it out.")
        ways = [(at, points[0], side * side), *((*way, 0) for way in pairwise(points))]
        if len(points) == 1:
            ways.append((points[0], points[0], 0))
        for start, end, air in ways:
            symbols += [air + (y + reach) * side + x + reach for x, y in _moves(start, end, reach)]
        at = points[-1]
    return np.array(symbols, dtype=np.uint8)


def _moves(start: tuple[int, int], end: tuple[int, int], reach: int) -> Iterator[tuple[int, int]]:
    """Moves from one cell to another, at least one, each of at most ``reach`` cells along an axis."""
    x, y = end[0] - start[0], end[1] - start[1]
    parts = max(1, -(-max(abs(x), abs(y)) // reach))
    places = [tuple((2 * way * part + parts) // (2 * parts) for way in (x, y)) for part in range(parts + 1)]
    for before, after in pairwise(places):
        yield after[0] - before[0], after[1] - before[1]


def decode(string: ArrayLike, grid: int, reach: int = MOST_REACH) -> list[Cells]:
    """The strokes of a string ``(n,)``, as far as its end. A drawing of a model may leave the grid.

    Moves in the air that no move on the paper follows draw nothing. Raises ValueError for symbols that there are not.
    """
    symbols = np.asarray(string).astype(np.int64)
    end, side = levels_of(reach) - 1, 2 * reach + 1
    if symbols.ndim != 1 or (symbols.size and not 0 <= symbols.min() <= symbols.max() <= end):
        raise ValueError(f"string has shape {symbols.shape}; give a row of symbols from 0 to {end}: reach={reach}.")
    ends = (symbols == end).nonzero()[0]
    symbols = symbols[: ends[0]] if len(ends) else symbols
    at = np.array([grid // 2, grid // 2])
    strokes: list[list[Cells]] = []
    drawing = False
    for symbol in symbols:
        air, move = divmod(int(symbol), side * side)
        step = np.array([move % side - reach, move // side - reach])
        if not air:
            if not drawing:
                strokes.append([at])
            if step.any():
                strokes[-1].append(at + step)
        at, drawing = at + step, not air
    return [np.stack(stroke) for stroke in strokes]


def in_unit_square(strokes: Sequence[Cells], grid: int) -> list[Points]:
    """Strokes of cells as strokes through the middles of the cells, in the unit square."""
    return [(stroke + 0.5) / grid for stroke in strokes]

"""Events of any task on axes of matplotlib, for notebooks: their picture, or else their strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from experiments.figures.shown import Events, as_text, grid
from tasks.media import Medium

LINES, WIDE = 40, 60  # of a text; what is more is cut, with dots


def draw_events(axes: Axes, medium: Medium, events: Sequence[Events], titles: Sequence[str]) -> None:
    """The grid of ``experiments.figures.shown``, or its text, with neither ticks nor a frame."""
    axes.axis("off")
    if (picture := grid(medium, events)) is not None:
        axes.imshow(picture, aspect="equal")
        return
    lines = as_text(medium, events, titles).rstrip("\n").split("\n")
    lines = [*lines[:LINES], "..."] if len(lines) > LINES else lines
    said = "\n".join(line if len(line) <= WIDE else f"{line[:WIDE]} ..." for line in lines)
    font: dict[str, Any] = {"family": "monospace", "fontsize": 6, "parse_math": False}
    axes.text(0, 1, said, va="top", transform=axes.transAxes, in_layout=False, **font)

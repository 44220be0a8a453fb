"""Legends hide no points, however many curves there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

from experiments.bench import time_against_pixels
from experiments.figures.grids import split_points
from experiments.figures.inner_loop import inner_curve
from experiments.figures.shot_curves import difference_curve
from metadensity.adaptation import InnerStep
from metadensity.evaluation.comparison import Difference
from metadensity.evaluation.scores import LikelihoodRow

NAMES = [f"a model with a long name, number {number}" for number in range(8)]


def differences() -> Figure:
    found = {shots: Difference(1.0, (0.0, 2.0), 9, 3, 1, None, False) for shots in (0, 1, 2)}
    return difference_curve(dict.fromkeys(NAMES, found), "the reference", "title")


def splits() -> Figure:
    rows = {shots: LikelihoodRow(shots, 50.0, (40.0, 60.0), 1.0, 1.0, 9, 3) for shots in (0, 1, 2)}
    return split_points({name: [rows, rows] for name in NAMES}, "title")


def steps() -> Figure:
    return inner_curve([InnerStep(step, 1.0, 2.0, 1.0, 1.0, 0.1, 0.5) for step in range(4)], "title")


def speeds() -> Figure:
    points = [{"sampler": name, "pixels": 10**k, "seconds": 2.0**k} for name in NAMES for k in range(3)]
    return time_against_pixels(points, {"processor": "one", "threads": 1})


@pytest.mark.parametrize("draw", [differences, splits, steps, speeds])
def test_no_legend_lies_on_its_curves(draw: Callable[[], Figure]) -> None:
    figure = draw()
    figure.canvas.draw()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
        assert legend.get_window_extent().x1 <= figure.bbox.x1 + 1, "the legend is cut off"
        assert axes.get_window_extent().width > 100, "there is no room for the curves"

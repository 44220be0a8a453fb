"""Legends that hide no points."""

from __future__ import annotations

from matplotlib.axes import Axes


def legend_beside(axes: Axes, fontsize: int = 8) -> None:
    """A legend right of the axes; the figure's layout has to be "constrained", which makes room for it."""
    axes.legend(fontsize=fontsize, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)

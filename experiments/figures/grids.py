"""Figures of grids of results: a heat map, and one point for each of several splits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.figures.legends import legend_beside
from metadensity.evaluation.scores import LikelihoodRow


def heat_map(
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    names: tuple[Sequence[str], Sequence[str]],
    labels: tuple[str, str],
    title: str,
    framed: Collection[tuple[int, int]] = (),
    unit: str = "nats/image",
) -> Figure:
    """A grid of values as colours with a text in each cell. names, labels: of the rows and of the columns."""
    rows, columns = names
    figure = Figure(figsize=(2.2 + 1.15 * len(columns), 1.8 + 0.62 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    array = np.ma.masked_invalid(np.asarray(values, dtype=float))  # what is infinite has no colour
    image = axes.imshow(array, cmap="viridis_r", aspect="auto")
    masked = np.ma.getmaskarray(array)
    middle = (array.min() + array.max()) / 2
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            colour = "white" if not masked[i, j] and array[i, j] > middle else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    for i, j in framed:
        axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor="red", linewidth=1.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=labels[1], ylabel=labels[0])
    axes.set_title(title, fontsize=9, wrap=True)
    bar = figure.colorbar(image, label=unit)
    bar.ax.ticklabel_format(useOffset=False)
    return figure


def split_points(by_kind: Mapping[str, Sequence[Mapping[int, LikelihoodRow]]], title: str) -> Figure:
    """Nats/image against shots: for each kind of split a colour, for each split a point with its interval."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ticks = sorted({shots for splits in by_kind.values() for rows in splits for shots in rows})
    whole = sum(map(len, by_kind.values()))
    place = 0
    for number, (kind, splits) in enumerate(by_kind.items()):
        for position, rows in enumerate(splits):
            shift = 0.7 * ((place + 0.5) / whole - 0.5)
            x = [ticks.index(shots) + shift for shots in rows]
            y = [row.nats_per_image for row in rows.values()]
            half = [row.interval[1] - row.nats_per_image for row in rows.values()]
            half = [value if math.isfinite(value) else math.nan for value in half]  # no interval is not drawn
            label = f"{kind}: {len(splits)} split{'s' if len(splits) > 1 else ''}" if not position else None
            axes.errorbar(x, y, yerr=half, fmt="o", markersize=3, capsize=2, color=f"C{number}", label=label)
            place += 1
    axes.set_xticks(range(len(ticks)), [str(shots) for shots in ticks])
    axes.set(xlabel="shots", ylabel="nats/image; 95 % over the classes of a split")
    axes.set_title(title, fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure

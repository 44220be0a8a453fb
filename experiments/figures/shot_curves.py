"""Figures over the number of shots: likelihoods and paired differences with 95 % intervals, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.figures.legends import legend_beside
from metadensity.evaluation.comparison import Difference
from metadensity.evaluation.scores import Evaluation
from metadensity.files import write_atomically
from tasks.media import OF_IMAGES, Words

Points = Mapping[int, tuple[float, tuple[float, float]]]  # by number of shots: mean, interval


def shot_curve(
    evaluations: Mapping[str, Evaluation],
    title: str,
    optimum: Evaluation | None = None,
    words: Words = OF_IMAGES,
) -> Figure:
    """Nats an event against shots, one curve a model with 95 % intervals over classes; the optimum dashed."""
    curves = {name: _points(evaluation) for name, evaluation in evaluations.items()}
    dashed = {} if optimum is None else {"optimum": _points(optimum)}
    return _curves(curves, dashed, title, f"{words.nats}, 95 % intervals")


def difference_curve(
    differences: Mapping[str, Mapping[int, Difference]],
    reference: str,
    title: str,
    words: Words = OF_IMAGES,
) -> Figure:
    """Paired differences in nats an event against shots; below the line is better than ``reference``."""
    curves: dict[str, Points] = {
        name: {shots: (found.mean, found.interval) for shots, found in by_shots.items()}
        for name, by_shots in differences.items()
    }
    figure = _curves(curves, {}, title, f"{words.nats} minus {reference}, 95 % intervals")
    figure.axes[0].axhline(0, color="0.5", linewidth=0.8, zorder=0)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write as PNG, atomically."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomically(path, data.getvalue())
    return path


def _points(evaluation: Evaluation) -> Points:
    return {row.shots: (row.nats_per_image, row.interval) for row in evaluation.rows}


def _curves(solid: Mapping[str, Points], dashed: Mapping[str, Points], title: str, label: str) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ticks = sorted({shots for points in (*solid.values(), *dashed.values()) for shots in points})
    place = {shots: number for number, shots in enumerate(ticks)}  # evenly spaced, as 0 has no logarithm
    curves = [*((*item, "-") for item in solid.items()), *((*item, "--") for item in dashed.items())]
    for number, (name, points, line) in enumerate(curves):
        shift = 0.06 * (number - (len(curves) - 1) / 2)  # so that intervals do not hide each other
        x = [place[shots] + shift for shots in points]
        y = [mean for mean, _ in points.values()]
        ends = [[abs(bound[i] - mean) for mean, bound in points.values()] for i in (0, 1)]
        # Where there is no interval it is infinite, and drawn as none: not as one without width.
        ends = [[end if math.isfinite(end) else math.nan for end in side] for side in ends]
        axes.errorbar(x, y, yerr=ends, fmt=f"o{line}", markersize=3, capsize=2, linewidth=1.2, label=name)
    axes.set_xticks(list(place.values()), [str(shots) for shots in ticks])
    axes.set(xlabel="shots", ylabel=label)
    axes.set_title(title, fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure

"""Figure of the inner loop: likelihoods, gradient norm, distance and overshoot after each step."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures.legends import legend_beside
from metadensity.adaptation import InnerStep


def inner_curve(steps: Sequence[InnerStep], title: str) -> Figure:
    """Support and query NLL against inner steps on the left; gradient norm, distance and overshoot on the right.

    steps: of ``metadensity.adaptation.inner_steps``. A query curve that turns up while the support goes on falling
    shows a loop of too many steps; overshoot, the share of tasks whose support NLL a step raised, too long ones.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    x = [step.step for step in steps]
    left.plot(x, [step.support_nll for step in steps], "o-", markersize=3, linewidth=1.2, label="support, left out")
    left.plot(x, [step.query_nll for step in steps], "o-", markersize=3, linewidth=1.2, label="query")
    left.set(xlabel="inner steps", ylabel="nats/dim, mean over tasks")
    taken = steps[1:]
    x = [step.step for step in taken]
    right.plot(x, [step.gradient_norm for step in taken], "o-", markersize=3, linewidth=1.2, label="gradient norm")
    right.plot(x, [step.update_norm for step in taken], "o-", markersize=3, linewidth=1.2, label="distance moved")
    right.plot(x, [step.step_size for step in taken], "o:", markersize=3, linewidth=1.2, label="mean step size")
    right.plot(x, [step.overshoot for step in taken], "o--", markersize=3, linewidth=1.2, label="overshoot (share)")
    right.set(xlabel="inner step", ylim=(0, None))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        legend_beside(axes)
    figure.suptitle(title, fontsize=9, wrap=True)
    return figure

"""Figures of what each place of an event costs, in nats: as a picture below an image, as a curve along a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from experiments.figures.legends import legend_beside
from tasks.media import Medium

READ = 64  # characters that are read along an axis


def surprise_figure(
    medium: Medium, events: Tensor, costs: Mapping[str, Tensor], lengths: Sequence[int] | None = None
) -> Figure:
    """Events ``(tasks, C, *space)`` and the nats of their places, ``(tasks, *space)`` by name; darker costs more.

    lengths: how many places of each count. Strings stand along the axis, character by character.
    """
    if events.ndim == 3:
        return _curves(medium, events, costs, lengths or [events.shape[-1]] * len(events))
    figure = Figure(figsize=(8, 1.4 * (1 + len(costs))))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(costs), len(events), squeeze=False)
    most = 3 * events.shape[1]
    top = min(float(most), max(float(next(iter(costs.values())).max()), 1e-6))
    for task, event in enumerate(events):
        seen = medium.picture(event)
        if seen is not None:
            axes[0, task].imshow(seen)
        for axis, nats in zip(axes[1:, task], costs.values(), strict=True):
            frames = nats[task] if nats.ndim == 4 else nats[task][None]  # of a volume side by side, as it is shown
            axis.imshow(frames.movedim(0, 1).flatten(1).numpy(), cmap="Greys", vmin=0, vmax=top)
            axis.set_title(f"{nats[task].sum():.1f} nats", fontsize=8)
        for axis in axes[:, task]:
            axis.set(xticks=[], yticks=[])
    return figure


def _curves(medium: Medium, events: Tensor, costs: Mapping[str, Tensor], lengths: Sequence[int]) -> Figure:
    figure = Figure(figsize=(8, 1.2 * len(events) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(events), 1, squeeze=False)[:, 0]
    for axis, event, length, task in zip(axes, events, lengths, range(len(events)), strict=True):
        for name, nats in costs.items():
            shown = nats[task, :length]
            axis.plot(shown.numpy(), linewidth=0.9, label=f"{name}: {shown.sum():.1f} nats")
        text = medium.text(event, length)
        if text is not None and length <= READ and len(text) in (length, length - 1):
            axis.set_xticks(range(length), [*text, "end"][:length], fontsize=7)
        axis.set(ylim=(0, None))
        axis.tick_params(labelsize=7)
        legend_beside(axis, fontsize=7)
    return figure

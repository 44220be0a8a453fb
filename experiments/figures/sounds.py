"""Figures of sounds: the wave over the seconds, and the spectrogram over seconds and hertz below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.media import spectrogram


def sound_figure(
    sounds: Sequence[tuple[NDArray[np.float64], int]], titles: Sequence[str], known: float | None = None
) -> Figure:
    """A column a sound, its samples ``(n,)`` in [-1, 1] and their rate. known: seconds up to a line through all."""
    figure = Figure(figsize=(1.9 * len(sounds) + 0.6, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(sounds), squeeze=False, sharex=True, sharey="row")
    for column, ((samples, rate), title) in enumerate(zip(sounds, titles, strict=True)):
        wave, bands = axes[:, column]
        wave.plot(np.arange(len(samples)) / rate, samples, linewidth=0.4, color="0.2")
        wave.set(ylim=(-1, 1))
        wave.set_title(title, fontsize=8)
        decibels, frequencies, seconds = spectrogram(samples, rate)
        bands.pcolormesh(seconds, frequencies, decibels, cmap="Greys", shading="nearest", rasterized=True)
        bands.set(xlabel="s")
        if known is not None:
            for each in (wave, bands):
                each.axvline(known, color="tab:red", linewidth=0.8)
    axes[1, 0].set(ylabel="Hz")
    return figure

"""Images: grids of supports beside samples, as PNG.

A picture shows the data as they are: level 0 is black and the last one white, or none and all of a colour. Where a task
says that its last level is ink (``TaskDistribution.ink``), level 0 is white paper and the last one black. Events of any
kind are shown by ``experiments.figures.shown``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metadensity import FewShotModel
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws, draw_uniforms
from metadensity.episode import Episode
from metadensity.progress import progress_bar
from tasks.media import Images, as_shown

FRAME = 250  # milliseconds of a frame of a film; the last stands three times as long
GAP, LINE, PAPER = 2, 150, 255  # pixels between images, grey of the line, grey of the background


@torch.no_grad()
def draw_samples(
    model: FewShotModel, episode: Episode, samples: int, seed: int, doing: str = "drawing", progress: bool = False
) -> Tensor:
    """``(samples, tasks, C, *space)`` draws given the episode's supports, from ``seed`` alone.

    doing: what the bar says, where there is ``progress``.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    lengths = episode.support_lengths
    density = model(episode.support.to(device), None if lengths is None else lengths.to(device))
    shape = torch.Size([samples, *density.batch_shape, *density.event_shape])
    with progress_bar(doing, shape.numel(), "pixels", progress) as bar:
        if isinstance(density, SequentialDensity):
            uniforms = draw_uniforms(shape, generator, density.device)
            drawn = density.drawn(Draws(uniforms, report=bar.update))
        else:
            drawn = density.sample((samples,), generator)
            bar.update(drawn.numel())
    model.train(training)
    return drawn.cpu()


def support_beside_samples(
    support: Tensor, samples: Tensor, levels: int, others: Sequence[Tensor] = (), ink: bool = False
) -> NDArray[np.uint8]:
    """One row a task: supports ``(S, tasks, C, H, W)``, a line, samples ``(N, tasks, C, H, W)``. Returns (H', W', 3).

    others: samples of further models, each after a line of its own. ink: of the task, see above. Raises ValueError for
    other than 1 or 3 channels.
    """
    channels = samples.shape[2]
    if channels not in (1, 3) or samples.ndim != 5:
        raise ValueError(f"samples of shape {tuple(samples.shape)} are no pictures; they need 1 or 3 channels in 2-D.")
    blocks = [_row(as_shown(part, levels, ink)) for part in (support, samples, *others) if len(part)]
    line = torch.full((*blocks[0].shape[:3], 1), LINE, dtype=torch.uint8)
    rows = torch.cat([blocks[0]] + [piece for block in blocks[1:] for piece in (line, block)], dim=-1)
    rows = torch.nn.functional.pad(rows, (0, 0, GAP // 2, GAP // 2), value=PAPER)  # (tasks, C, height, width)
    picture = rows.permute(0, 2, 3, 1).flatten(0, 1)
    return picture.expand(-1, -1, 3).numpy()


def save_picture(picture: NDArray[np.uint8], path: str | Path, zoom: int = 3) -> Path:
    """Write as PNG, each pixel ``zoom`` pixels wide."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST).save(path)
    return path


def gif(film: NDArray[np.uint8], zoom: int = 3) -> bytes:
    """Pictures ``(frames, H, W, 3)`` as an animated GIF that goes on for ever, each pixel ``zoom`` pixels wide."""
    size = (film.shape[2] * zoom, film.shape[1] * zoom)
    first, *others = (Image.fromarray(frame).resize(size, Image.Resampling.NEAREST) for frame in film)
    stream = io.BytesIO()
    times = [FRAME] * len(others) + [3 * FRAME]
    first.save(stream, "GIF", save_all=True, append_images=others, duration=times, loop=0)
    return stream.getvalue()


def image_array(pixels: Tensor, levels: int, ink: bool = False) -> NDArray[np.uint8]:
    """One image ``(C, H, W)`` as ``(H, W, 3)``, for matplotlib's imshow. Raises ValueError for no 1 or 3 channels."""
    return Images(levels, ink).picture(pixels)


def _row(images: Tensor) -> Tensor:
    """``(N, tasks, C, H, W)`` side by side: ``(tasks, C, H, N * (W + GAP))``."""
    padded = torch.nn.functional.pad(images, (GAP // 2, GAP // 2), value=PAPER)
    return padded.permute(1, 2, 3, 0, 4).flatten(3)

"""PixelRNN: its training step beside that of a PixelCNN of equal width, and cached sampling against the naive loop.

The step is also timed in torch alone, without the native kernel, whose losses are asserted to be the same; the cached
sampler is in torch, and the naive loop has the kernel. Pixels are asserted equal.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from experiments.benchmarks.sampling import uniforms
from experiments.benchmarks.timing import Row, interleaved, row
from experiments.benchmarks.training import LOSS_TOLERANCE, SHARED, Steps, Work
from metadensity.densities.pixelrnn import PixelRNNDensity
from metadensity.training import MetaTrainer, TrainingConfig

SIZES: dict[str, Any] = {"layers": 7, "planes": 24, "penultimate": 32}
TINY: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}
NETS = {"diagonal_bilstm": "Diagonal BiLSTM", "row_lstm": "Row LSTM"}


def rows(quick: bool) -> list[Row]:
    """Of both nets the training step; of both the cached sampler, at batch 1 and 16."""
    found = [row for name in NETS for row in _steps(name, *((TINY, 8, 2) if quick else (SIZES, 26, 9)))]
    side, sizes = (5, TINY) if quick else (28, SIZES)
    return [*found, *(_sampling(name, side, sizes, batch, quick) for name in NETS for batch in (1, 16))]


def _steps(name: str, sizes: dict[str, Any], size: int, repeats: int) -> list[Row]:
    named = f"{sizes['layers']} layers x {sizes['planes']}, {size}x{size}"
    shared = {**SHARED, "tasks": 2 if size < 10 else SHARED["tasks"]}

    def steps(model: str, plain: bool = False) -> Steps:
        work = Work(named, model, sizes, size)
        return Steps(MetaTrainer(work.build(), work.task(), None, TrainingConfig(**shared)), plain)

    sides = {"ours": steps(name), "plain": steps(name, plain=True), "convolutions": steps("conditional")}
    seconds = interleaved(sides, repeats)
    off = max(abs(a - b) for a, b in zip(sides["ours"].losses, sides["plain"].losses, strict=True))
    assert off < LOSS_TOLERANCE, f"{name}: losses without the kernel are off by {off:.3g} nats/dim"
    title = f"training step: {NETS[name]}, {named}; float32"
    return [
        row(f"{title}, conditional PixelCNN of as many", seconds["ours"], seconds["convolutions"], bar=1 / 3),
        row(f"{title}, torch alone", seconds["ours"], seconds["plain"]),
    ]


def _sampling(name: str, side: int, sizes: dict[str, Any], batch: int, quick: bool) -> Row:
    model = Work(name, name, sizes, side).build()
    density = model(torch.zeros(0, 1, *model.event_shape, dtype=torch.long))
    assert isinstance(density, PixelRNNDensity)
    chances = uniforms(batch, density)
    cached = partial(density.sample_from_uniforms, chances)
    before = interleaved({"cached": cached}, 5)["cached"]
    began = time.perf_counter()
    naive = density.sample_from_uniforms(chances, naive=True)
    seconds = time.perf_counter() - began
    assert torch.equal(cached(), naive), f"{name}: cached and naive sampler draw other pixels"
    after = interleaved({"cached": cached}, 5)["cached"]
    title = f"sampling: {NETS[name]}, {side}x{side}, {sizes['layers']} layers x {sizes['planes']}, batch {batch}"
    return row(f"{title}; cached, naive", (before + after) / 2, seconds, bar=None if quick else 30)

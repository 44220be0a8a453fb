"""Films as volumes: moving templates, whose optimum is known, and glyphs that are drawn stroke by stroke.

The baseline is that of Kalchbrenner et al. 2016, "Video Pixel Networks": the same net with frames whose pixels are
independent given the frames before. Each training is of a quarter of an hour of two cores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.reproductions.plan import Entry, Plan

_TRAINING = {
    "tasks": 32,
    "queries": 2,
    "optimizer": "muon",
    "learning_rate": 2e-2,
    "weight_decay": 0.0,
    "clip": 0.2,
    "average": 0.99,
    "precision": "bfloat16",
}


def _moving(title: str, steps: int, **model: Any) -> Entry:
    """A net of four layers; ``model``: what differs."""
    return Entry(
        title,
        ("moving_templates", "attention", "dot"),
        {
            "task": {"size": 6, "frames": 4, "shifts": 4, "velocities": 4},
            "model": {"layers": 4, "planes": 24, "penultimate": 64, "patch_stride": 2, **model},
            "training": {
                **_TRAINING,
                "steps": steps,
                "shots": [1, 1, 2, 4],
                "withheld": 0.25,
                "validate_every": steps // 10,
                "checkpoint_every": steps // 10,
            },
        },
    )


MOVING = Plan(
    name="moving_templates",
    weight_prefixes=("moving_templates",),
    title="Moving templates, films of four frames of 6x6",
    entries={
        "optimum": Entry("The best possible", optimum=True),
        "frames": _moving("Attention PixelCNN, frames independent", 6000, frame_independent=True),
        "attention": _moving("Attention PixelCNN", 4500),
        "prototypes": _moving("Attention PixelCNN, prototypes", 3000, prototypes=2048),
    },
    shots=(0, 1, 2, 4),
    baseline="frames",
    gain=("prototypes", "frames"),
    queries=2,
    limit=1000,
    train_limit=0,
    fast_task={},
)


def _drawn(title: str, frames: int = 4, **model: Any) -> Entry:
    """A net of five layers on films of Hershey glyphs of 12x12; ``model``: what differs."""
    return Entry(
        title,
        ("films", "attention", "dot", "quarter_hour"),
        {"task": {"size": 12, "frames": frames}, "model": {"layers": 5, "penultimate": 64, "patch_stride": 2, **model}},
    )


def _pixels(frames: int) -> Entry:
    """The floor: smoothed frequencies of each voxel in the support."""
    return Entry("SupportMean", ("films", "support_mean", "baseline"), {"task": {"size": 12, "frames": frames}})


FILMS = Plan(
    name="films",
    weight_prefixes=("films",),
    title="Glyphs being drawn, films of four frames of 12x12",
    entries={
        "support_mean": _pixels(4),
        "frames": _drawn("Attention PixelCNN, frames independent", frame_independent=True),
        "attention": _drawn("Attention PixelCNN"),
    },
    shots=(0, 1, 2, 4),
    baseline="frames",
    gain=("attention", "frames"),
    queries=2,
    limit=826,
    train_limit=0,
    fast_task={"frames": 2, "drawings": 8},
)
FILMS_LAST = replace(
    FILMS,
    name="films_last",
    weight_prefixes=("films_last",),
    title="The last frames of these films alone, drawings of 12x12",
    entries={"support_mean": _pixels(1), "attention": _drawn("Attention PixelCNN", frames=1)},
    baseline="support_mean",
    gain=("attention", "support_mean"),
)

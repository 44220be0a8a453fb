"""The shape of Reed et al. 2018's Online Products experiment (section 4.3): 32x32 colour, three supports, new classes.

Departures: emoji, a class an emoji and its images styles, for products and their photographs; nets of 8 layers of 32
planes (upscalers of 6) for 12 of 128 (18).
"""

from __future__ import annotations

from typing import Any

from experiments.reproductions.plan import Entry, Plan


def _entry(title: str, kind: str, steps: int, paper: float | None = None, **model: Any) -> Entry:
    return Entry(
        title,
        ("emoji", kind, "dot", "logistic"),
        {
            "model": {"layers": 8, "planes": 32, "penultimate": 64, **model},
            "training": {
                "steps": steps,
                "tasks": 16,
                "queries": 1,
                "shots": [3],
                "learning_rate": 3e-3,
                "weight_decay": 0.1,
                "validate_every": 500,
                "validation_tasks": 64,
                "checkpoint_every": 500,
            },
        },
        paper={} if paper is None else {3: (paper, None)},
    )


PRODUCTS = Plan(
    name="products",
    weight_prefixes=("products",),
    title="Online Products' shape on emoji, 32x32",
    entries={
        "conditional": _entry("Conditional PixelCNN", "conditional", 2000),
        "attention": _entry("Attention PixelCNN", "attention", 2000),
        "multiscale": _entry("Multiscale PixelCNN with attention", "multiscale", 2000, 2.14, upscaler_layers=6),
    },
    shots=(3,),
    queries=1,
    baseline="conditional",
    gain=("attention", "conditional"),
    unit="nats/dim",
    own_images_config="folder",
)

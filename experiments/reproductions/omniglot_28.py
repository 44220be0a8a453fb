"""Omniglot as in Bartunov and Vetrov 2018, "Few-shot Generative Modelling with Generative Matching Networks".

28x28 pixels of two values, nearest ones of the 105x105; 30 alphabets to learn from, 20 to test on.
"""

from __future__ import annotations

from typing import Any

from experiments.reproductions.plan import Entry, Plan

SHOTS = (0, 1, 2, 3, 4, 9)
_PIXELS = 28 * 28
_PUBLISHED = (90.9, 82.8, 78.8, 76.4, 74.2, 64.6)  # nats/image, of the best of their models
_NAMED = ("omniglot", "attention", "dot", "long")


def _stage(steps: int, rate: float, styles: int) -> dict[str, Any]:
    return {
        "task": {"size": 28, "shrink": "nearest", "protocol": "background", "styles": styles},
        "training": {
            "steps": steps,
            "learning_rate": rate,
            "tasks": 32,
            "shots": [1, 2, 3, 4, 9],
            "precision": "bfloat16",
            "validate_every": steps // 8,
        },
    }


OMNIGLOT_28 = Plan(
    name="omniglot28",
    weight_prefixes=("omniglot28",),
    title="Omniglot, 28x28, twenty test alphabets",
    entries={
        "attention_styles": Entry("Attention PixelCNN", _NAMED, _stage(8000, 5e-3, 7), in_table=False),
        "attention": Entry(
            "Attention PixelCNN",
            _NAMED,
            _stage(3000, 2e-3, 0),
            initialised_from="attention_styles",
            paper={shots: (nats / _PIXELS, None) for shots, nats in zip(SHOTS, _PUBLISHED, strict=True)},
        ),
    },
    shots=SHOTS,
    baseline="attention",
    queries=4,
    published="Generative Matching Networks, as published",
)

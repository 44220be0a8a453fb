"""Mirroring as in Reed et al. 2018, section 4.1 ("ImageNet flip"): one support, the target flipped left to right.

Departures: photographs of groceries for ImageNet, windows of them; a net of 4 layers of 24 planes for one of 16 of 128;
the mixture of logistics for 256 classes a channel; a patch of the support at every place, so that each pixel has one
of its own. Attention finds the mirrored place on small windows first, in minutes, and larger ones begin with those
weights: at 24x24 from the start it takes far longer to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.reproductions.plan import Entry, Plan

PAPER = {1: (0.90, 0.89)}  # nats/dim, validation and train, as recalled
PAPER_CONDITIONAL = {1: (2.65, 2.64)}


def _entry(
    title: str, kind: str, size: int, tasks: int, steps: int, learning_rate: float = 5e-3, **entry: Any
) -> Entry:
    return Entry(
        title,
        ("mirror", kind, "dot", "logistic"),
        {
            "task": {"folder": "grocery/grocery_64.zip", "size": size, "crops": 8, "resize": 64},
            "model": {"layers": 4, "penultimate": 64, **({"patch_stride": 1} if kind == "attention" else {})},
            "training": {
                "steps": steps,
                "tasks": tasks,
                "learning_rate": learning_rate,
                "weight_decay": 0.0,
                "average": 0.99,
                "validate_every": 500,
                "validation_tasks": 64,
                "checkpoint_every": 500,
            },
        },
        **entry,
    )


def _at_48(title: str, kind: str, paper: Mapping[int, tuple[float, float]]) -> dict[str, Entry]:
    """Three stages, each from the weights of the one before, the first from those of 24x24."""
    first, second, last = f"{kind}_48_first", f"{kind}_48_second", f"{kind}_48"

    def stage(initialised_from: str, steps: int, **entry: Any) -> Entry:
        return _entry(title, kind, 48, 4, steps, 3e-3, initialised_from=initialised_from, **entry)

    return {
        first: stage(kind, 3000, in_table=False),
        second: stage(first, 3000, in_table=False),
        last: stage(second, 9000, paper=paper),
    }


MIRROR = Plan(
    name="mirror",
    weight_prefixes=("mirror",),
    title="Mirroring, 24x24 windows of photographs",
    entries={
        "attention_12": _entry("Attention PixelCNN, 12x12", "attention", 12, 32, 6000, in_table=False),
        "attention": _entry("Attention PixelCNN", "attention", 24, 16, 12_000, initialised_from="attention_12"),
        "conditional": _entry("Conditional PixelCNN", "conditional", 24, 16, 8000),
    },
    shots=(1,),
    queries=1,
    limit=512,
    baseline="conditional",
    gain=("attention", "conditional"),
    unit="nats/dim",
    own_images_config="mirror",
)

MIRROR_48 = replace(
    MIRROR,
    name="mirror48",
    weight_prefixes=("mirror48", *MIRROR.weight_prefixes),
    title="Mirroring, 48x48 windows of photographs",
    entries={
        **{name: replace(entry, in_table=False) for name, entry in MIRROR.entries.items()},
        **_at_48("Attention PixelCNN", "attention", PAPER),
        **_at_48("Conditional PixelCNN", "conditional", PAPER_CONDITIONAL),
    },
    limit=128,
    baseline="conditional_48",
    gain=("attention_48", "conditional_48"),
)

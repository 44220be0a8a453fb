"""Adaptation methods on Omniglot, each trained for a quarter of an hour of one core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.reproductions.omniglot import (
    PAPER_ATTENTION,
    PAPER_ATTENTION_META,
    PAPER_CONDITIONAL,
    PAPER_META,
    SHOTS,
)
from experiments.reproductions.plan import Entry, Plan
from metadensity.adaptation import layer_pattern
from metadensity.adaptation.fine_tuning import CONDITIONING, FineTuning

QUARTER_HOUR = 950.0  # seconds of one core
_LATE: Mapping[str, Any] = {"inner": "support", "adapts": layer_pattern(6, 12), "step_size": 10.0}
_TUNINGS = tuple(FineTuning(steps=20, patience=5, learning_rate=rate) for rate in (1e-4, 3e-4))
_CONDITIONING_TUNINGS = tuple(
    FineTuning(steps=20, patience=5, learning_rate=rate, tuned_names=CONDITIONING) for rate in (3e-4, 1e-3)
)


def quarter_hour(*named: str, steps: int, **model: Any) -> dict[str, Any]:
    """So many steps as take QUARTER_HOUR (``reproduce speeds`` measures them), and two validations at least."""
    training = {"steps": steps, "validate_every": min(500, -(-steps // 2))}
    updates: dict[str, Any] = {"training": training, **({"model": model} if model else {})}
    return {"named": ("omniglot", *named, "quarter_hour"), "updates": updates}


ADAPTATION = Plan(
    name="adaptation",
    weight_prefixes=("quarter_hour", "omniglot"),
    title="Ways to adapt, Omniglot, 4 shots, a quarter of an hour of one core each",
    entries={
        "conditional": Entry(
            "Conditional PixelCNN",
            **quarter_hour("conditional", steps=3800),
            paper=dict(zip(SHOTS, PAPER_CONDITIONAL, strict=True)),
        ),
        "attention": Entry(
            "Attention PixelCNN",
            **quarter_hour("attention", "dot", steps=3500),
            paper=dict(zip(SHOTS, PAPER_ATTENTION, strict=True)),
        ),
        "meta": Entry("Meta PixelCNN", **quarter_hour("meta", steps=860), paper=PAPER_META),
        "attention_meta": Entry(
            "Attention Meta PixelCNN", **quarter_hour("attention_meta", "dot", steps=650), paper=PAPER_ATTENTION_META
        ),
        "maml": Entry("MAML, alpha = 1", **quarter_hour("maml", steps=480, step_size=1.0)),
        "attention_meta_late": Entry(
            "Attention Meta, late layers down the NLL",
            **quarter_hour("attention_meta", "dot", steps=540, **_LATE),
        ),
        "attention_half": Entry("Attention PixelCNN, half the time", **quarter_hour("attention", "dot", steps=1750)),
        "attention_first": Entry(
            "Attention first, then late layers down the NLL",
            **quarter_hour("attention_meta", "dot", steps=270, **_LATE),
            initialised_from="attention_half",
        ),
        "fine_tuned": Entry("Attention PixelCNN, all weights fine-tuned", fine_tunes="attention", tunings=_TUNINGS),
        "fine_tuned_conditioning": Entry(
            "Attention PixelCNN, conditioning fine-tuned", fine_tunes="attention", tunings=_CONDITIONING_TUNINGS
        ),
    },
    shots=(4,),
    baseline="attention",
    limit=72,
)

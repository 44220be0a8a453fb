"""Ablation of the stages of the Omniglot recipe."""

from __future__ import annotations

from dataclasses import replace

from experiments.reproductions.omniglot import OMNIGLOT, SHOTS
from experiments.reproductions.plan import Plan

_STAGES = {
    "attention_first": "20,000 steps of 16 images on the drawings",
    "attention_styles": "+ 12,000 of 16 in seven further styles",
    "attention": "+ 8,000 of 16 on the drawings",
    "attention_longer_styles": "+ 5,000 of 64 in styles",
    "attention_longer": "+ 2,000 of 64 on the drawings",
}

STAGES = Plan(
    name="stages",
    weight_prefixes=("omniglot",),
    title="What each part of the recipe brings to the Attention PixelCNN",
    entries={
        name: replace(OMNIGLOT.entries[name], title=title, paper={}, in_table=True) for name, title in _STAGES.items()
    },
    shots=SHOTS,
    baseline="attention_first",
)

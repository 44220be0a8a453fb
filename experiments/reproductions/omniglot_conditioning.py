"""Ablation of the conditioning on the support, with an equal number of training steps."""

from __future__ import annotations

from experiments.reproductions.omniglot import SHOTS
from experiments.reproductions.omniglot_adaptation import quarter_hour
from experiments.reproductions.plan import Entry, Plan

STEPS = 3500

CONDITIONING = Plan(
    name="conditioning",
    weight_prefixes=("conditioning", "quarter_hour"),
    title="Ways to read the support, Omniglot, 3,500 steps of 16 images each",
    entries={
        "conditional": Entry("One vector f(s)", **quarter_hour("conditional", steps=STEPS)),
        "attention": Entry("+ attention (Attention PixelCNN)", **quarter_hour("attention", "dot", steps=STEPS)),
        "map": Entry("f(s) + a map in place", **quarter_hour("aligned", steps=STEPS, attention=None)),
        "aligned": Entry("+ attention (Aligned PixelCNN, ours)", **quarter_hour("aligned", steps=STEPS)),
    },
    shots=SHOTS,
    baseline="conditional",
    limit=288,
)

"""Speech: a speaker who was never heard, one of FSDD's six left out at a time, and three ways to learn that voice.

Both speakers were chosen by the alphabet before anything was trained: the first and the last. A net speaks relative to
a linear prediction, which is the baseline as well; the ways are those of Chen et al. 2019 (arXiv 1809.10460).
"""

from __future__ import annotations

from typing import Any

from experiments.ingredients.named import NAMED_CONFIGS
from experiments.reproductions.plan import Entry, Plan
from metadensity.adaptation.fine_tuning import EMBEDDING, FineTuning

SHOTS = (0, 8)
HELD_OUT = ("george", "yweweler")


def _plan(speaker: str) -> Plan:
    task: dict[str, Any] = {"task": {"held_out": speaker}}
    counted = {"task": {**NAMED_CONFIGS["speech_minutes"]["task"], **task["task"]}}
    counted["training"] = {"steps": 60, "tasks": 8, "window": 2048, "shots": [0, 1, 2, 4, 8]}
    return Plan(
        name=f"speech_{speaker}",
        weight_prefixes=(f"speech_{speaker}",),
        title=f"Digits by {speaker}, who was never heard",
        entries={
            "histogram": Entry("Histogram of the support", ("speech", "histogram", "baseline"), counted),
            "linear_prediction": Entry(
                "Linear prediction, 16 taps", ("speech", "linear_prediction", "baseline"), counted
            ),
            "wavenet": Entry("WaveNet, f(s)", ("speech_minutes",), {**task, "model": {"support_norm": True}}),
            "wavenet_again": Entry(
                "WaveNet, f(s), another seed",
                ("speech_minutes",),
                {**task, "model": {"support_norm": True}, "seed": 1},
            ),
            "embedding": Entry(
                "WaveNet, f(s) fitted",
                fine_tunes="wavenet",
                tunings=(FineTuning(steps=10, learning_rate=1e-2, early_stopping=False, tuned_names=EMBEDDING),),
            ),
            "all": Entry(
                "WaveNet, all weights fitted",
                fine_tunes="wavenet",
                tunings=(FineTuning(steps=20, learning_rate=1e-3, early_stopping=False),),
            ),
        },
        shots=SHOTS,
        baseline="linear_prediction",
        gain=("wavenet", "linear_prediction"),
        queries=10,
        limit=10,
        train_limit=0,
        unit="bits/sample",
        timed=True,
        fast_task={"length": 512},
    )


SPEECH = tuple(_plan(speaker) for speaker in HELD_OUT)

"""PixelRNN beside PixelCNN on Omniglot: as many parameters, and a quarter of an hour each."""

from __future__ import annotations

from typing import Any

from experiments.reproductions.omniglot import SHOTS
from experiments.reproductions.omniglot_adaptation import quarter_hour
from experiments.reproductions.plan import Entry, Plan


def _trained(*named: str, steps: int, **model: Any) -> dict[str, Any]:
    entry = quarter_hour(*named, steps=steps, **model)
    entry["updates"]["training"]["checkpoint_every"] = 100  # on a busy machine that is minutes
    return entry


RECURRENT = Plan(
    name="recurrent",
    weight_prefixes=("recurrent", "quarter_hour"),
    title="Convolutions and LSTM cells, Omniglot, a quarter of an hour each",
    entries={
        "conditional": Entry("Conditional PixelCNN", **quarter_hour("conditional", steps=3800)),
        "row": Entry("Row LSTM, 9 layers", **_trained("row_lstm", steps=2700, layers=9)),
        "diagonal": Entry("Diagonal BiLSTM, 7 layers", **_trained("diagonal_bilstm", steps=2700)),
        "attention": Entry("Attention PixelCNN", **quarter_hour("attention", "dot", steps=3500)),
        "diagonal_attention": Entry("Diagonal BiLSTM with attention", **_trained("diagonal_bilstm", "dot", steps=2500)),
    },
    shots=SHOTS,
    baseline="conditional",
    limit=288,
)

"""PixelRNN beside PixelCNN on Omniglot: as many parameters, and a quarter of an hour each."""

from __future__ import annotations

from experiments.reproductions.omniglot import SHOTS
from experiments.reproductions.omniglot_adaptation import quarter_hour
from experiments.reproductions.plan import Entry, Plan

RECURRENT = Plan(
    name="recurrent",
    weight_prefixes=("recurrent", "quarter_hour"),
    title="Convolutions and LSTM cells, Omniglot, a quarter of an hour each",
    entries={
        "conditional": Entry("Conditional PixelCNN", **quarter_hour("conditional", steps=3800)),
        "row": Entry("Row LSTM, 9 layers", **quarter_hour("row_lstm", steps=2700, layers=9)),
        "diagonal": Entry("Diagonal BiLSTM, 7 layers", **quarter_hour("diagonal_bilstm", steps=2700)),
        "attention": Entry("Attention PixelCNN", **quarter_hour("attention", "dot", steps=3500)),
        "diagonal_attention": Entry(
            "Diagonal BiLSTM with attention", **quarter_hour("diagonal_bilstm", "dot", steps=2500)
        ),
    },
    shots=SHOTS,
    baseline="conditional",
    limit=288,
)

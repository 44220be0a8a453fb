"""Strings: chains, names, a text and tunes, each beside the counts that any net must beat; see the README for the bars.

Nets are ByteNets; all numbers are exact, of each character or symbol, the end of a string counted as one.
"""

from __future__ import annotations

from typing import Any

from experiments.reproductions.plan import Entry, Plan

SHOTS = (0, 1, 4, 8)
NANOGPT = {0: (1.4697, None)}  # nats a character of the same last tenth, of the best step on it


def _counts(task: str, shots: tuple[int, ...] = SHOTS, end: bool = True, **settings: Any) -> Entry:
    """Counts of three characters, of the training data and, with learned strengths, of the support."""
    training = {"steps": 60, "tasks": 16, "queries": 2, "shots": list(shots)}
    updates = {"task": {"name": task, **settings}, "model": {"end": end}, "training": training}
    return Entry("NGram, order 3", (task, "ngram", "baseline"), updates)


CHAINS = Plan(
    name="chains",
    weight_prefixes=("chains",),
    title="Markov chains of three symbols, sequences of 16",
    entries={
        "optimum": Entry("The best possible", optimum=True),
        "ngram": _counts("chains", (0, 1, 2, 4), False, length=16, levels=3),
        "bytenet": Entry("ByteNet", ("chains_minutes",)),
        "bytenet_again": Entry("ByteNet, another seed", ("chains_minutes",), {"seed": 1}),
    },
    shots=(0, 1, 2, 4),
    baseline="bytenet",
    limit=2000,
    train_limit=0,
    unit="bits/symbol",
    fast_task={},
)

NAMES = Plan(
    name="names",
    weight_prefixes=("names",),
    title="First and last names of eight unseen languages",
    entries={
        "ngram": _counts("names"),
        "bytenet_styles": Entry("ByteNet, in spellings alone", ("names_spellings",), in_table=False),
        "bytenet": Entry("ByteNet", ("names_lists",), initialised_from="bytenet_styles"),
        "styles_again": Entry("ByteNet, in spellings alone", ("names_spellings",), {"seed": 1}, in_table=False),
        "bytenet_again": Entry("ByteNet, another seed", ("names_lists",), {"seed": 1}, initialised_from="styles_again"),
    },
    shots=SHOTS,
    baseline="ngram",
    gain=("bytenet", "ngram"),
    queries=10,
    train_limit=0,
    unit="bits/character",
    fast_task={"styles": 1},
)

TUNES = Plan(
    name="tunes",
    weight_prefixes=("tunes",),
    title="Bars of unseen fiddle tunes",
    entries={
        "ngram": _counts("tunes"),
        "bytenet": Entry("ByteNet", ("tunes_minutes",)),
        "bytenet_again": Entry("ByteNet, another seed", ("tunes_minutes",), {"seed": 1}),
    },
    shots=SHOTS,
    baseline="ngram",
    gain=("bytenet", "ngram"),
    queries=2,
    train_limit=0,
    unit="bits/character",
    fast_task={},
)

TEXT = Plan(
    name="text",
    weight_prefixes=("text",),
    title="Tiny Shakespeare, its last tenth",
    entries={
        "ngram": _counts("text", (0,), False, length=256),
        "bytenet_minutes": Entry("ByteNet, two minutes of one core", ("text_minutes",), paper=NANOGPT),
        "bytenet_again": Entry("ByteNet, another seed", ("text_minutes",), {"seed": 1}),
        "bytenet_hour": Entry("ByteNet with dropout, an hour of one core", ("text_hour",)),
    },
    shots=(0,),
    baseline="ngram",
    gain=("bytenet_minutes", "ngram"),
    queries=4,
    train_limit=0,
    unit="nats/character",
    given=128,
    published="nanoGPT on a GPU, windows of 256 from their start, as published",
    fast_task={},
)

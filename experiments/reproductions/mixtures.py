"""Ensembles of several kinds on Omniglot and of strings, beside their best member and ensembles of one kind."""

from __future__ import annotations

from dataclasses import replace

from experiments.reproductions.omniglot import OMNIGLOT, SHOTS
from experiments.reproductions.omniglot_adaptation import quarter_hour
from experiments.reproductions.plan import Entry, Plan
from experiments.reproductions.strings import NAMES, TUNES

_FOUR = ("attention_longer", "attention_again_longer", "attention", "attention_again")
_ALIKE = (*_FOUR, "quarter_hour")  # 1.34 million parameters
_KINDS = ("attention_longer", "attention_again_longer", "aligned", "nade", "kernel_density")  # 1.44 million
_ROWS = ("attention_longer", "attention_again_longer", "aligned")

MIXTURES = Plan(
    name="mixtures",
    weight_prefixes=("mixtures", "omniglot", "quarter_hour"),
    title="Ensembles of several kinds, Omniglot, 26x26, five test alphabets",
    entries={
        **{name: replace(entry, in_table=name in _ROWS, paper={}) for name, entry in OMNIGLOT.entries.items()},
        "quarter_hour": replace(
            Entry("Attention PixelCNN, a quarter of an hour", **quarter_hour("attention", "dot", steps=3500)),
            in_table=False,
        ),
        "nade": Entry(
            "NADE, a quarter of an hour",
            ("omniglot", "nade", "quarter_hour"),
            {"model": {"hidden": 128}, "training": {"queries": 4}},
        ),
        "kernel_density": Entry("Kernel density", ("omniglot", "kernel_density", "baseline")),
        "alike": Entry("Product of five attention nets", ensemble_of=_ALIKE, combine="product", weights="fitted"),
        "alike_mean": Entry("Mean of the two best of them", ensemble_of=_FOUR[:2]),
        "mixture": Entry("Mixture of five of four kinds", ensemble_of=_KINDS, combine="mixture", weights="fitted"),
        "mean": Entry("Mean of conditionals of these", ensemble_of=_KINDS, weights="fitted"),
        "product": Entry("Product of conditionals of these", ensemble_of=_KINDS, combine="product", weights="fitted"),
        "left_out": Entry(
            "The product, weights of each task by leave-one-out",
            ensemble_of=_KINDS,
            combine="product",
            weights="leave_one_out",
        ),
    },
    shots=SHOTS,
    baseline="alike",
    train_limit=0,
    tuning_limit=120,
)


def _with_counts(plan: Plan) -> Plan:
    """The net of a plan of strings, and its mean and its product with counts."""
    net, counts = "bytenet", "ngram"
    kept = {name: replace(entry, in_table=name in (net, counts)) for name, entry in plan.entries.items()}
    entries = {name: entry for name, entry in kept.items() if not (entry.fine_tunes or entry.optimum)}
    entries["mean"] = Entry("Mean of the net and counts", ensemble_of=(net, counts), weights="fitted")
    entries["product"] = Entry(
        "Product of the net and counts", ensemble_of=(net, counts), combine="product", weights="fitted"
    )
    return replace(
        plan,
        name=f"mixtures_{plan.name}",
        weight_prefixes=(f"mixtures_{plan.name}", *plan.weight_prefixes),
        title=f"{plan.title}: a net with counts",
        entries=entries,
        baseline=net,
        gain=("product", net),
        tuning_limit=48,
        timed=False,
    )


WITH_COUNTS = (_with_counts(NAMES), _with_counts(TUNES))

"""Omniglot as in Reed et al. 2018: 26x26 pixels by 4x4 max-pooling, 45 alphabets to learn from, 5 to test on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.reproductions.plan import Entry, Plan
from metadensity.adaptation.fine_tuning import FineTuning

SHOTS = (1, 2, 4, 8)
# nats/dim, test and train, as recalled
PAPER_CONDITIONAL = ((0.077, 0.070), (0.077, 0.068), (0.077, 0.067), (0.076, 0.065))
PAPER_ATTENTION = ((0.071, 0.066), (0.068, 0.064), (0.066, 0.062), (0.064, 0.060))
PAPER_META = {4: (0.068, 0.065)}
PAPER_ATTENTION_META = {4: (0.069, 0.065)}


def _stage(
    title: str,
    *named: str,
    initialised_from: str,
    steps: int,
    rate: float,
    tasks: int = 16,
    styles: int = 0,
    seed: int = 0,
    **entry: Any,
) -> Entry:
    """An hour's recipe for so many steps more."""
    training = {"steps": steps, "learning_rate": rate, "tasks": tasks, "validate_every": min(1000, steps // 8)}
    updates = {"task": {"styles": styles, "seed": seed}, "training": training}
    return Entry(
        title, ("omniglot", *named, "long"), {**updates, "seed": seed}, initialised_from=initialised_from, **entry
    )


def _in_stages(name: str, title: str, *named: str, seed: int = 0, **entry: Any) -> dict[str, Entry]:
    """An hour on the drawings, then on seven further styles of each character, and back on the drawings.

    The drawings alone fit ever better from there on, and new characters no more; in styles there is more to learn.
    """
    first, styles = f"{name}_first", f"{name}_styles"
    return {
        first: Entry(title, ("omniglot", *named, "long"), {"task": {"seed": seed}, "seed": seed}, in_table=False),
        styles: _stage(
            title, *named, initialised_from=first, steps=12_000, rate=3e-3, styles=7, seed=seed, in_table=False
        ),
        name: _stage(title, *named, initialised_from=styles, steps=8000, rate=2e-3, seed=seed, **entry),
    }


def _longer(name: str, title: str, *named: str, initialised_from: str, seed: int = 0, **entry: Any) -> dict[str, Entry]:
    """Styles and drawings once more, in larger batches."""
    styles = f"{name}_styles"
    return {
        styles: _stage(
            title,
            *named,
            initialised_from=initialised_from,
            steps=5000,
            rate=5e-3,
            tasks=64,
            styles=7,
            seed=seed,
            in_table=False,
        ),
        name: _stage(title, *named, initialised_from=styles, steps=2000, rate=2e-3, tasks=64, seed=seed, **entry),
    }


_STYLES_FIRST: Mapping[str, Any] = {
    "task": {"styles": 7},
    "training": {
        "steps": 4000,
        "tasks": 64,
        "shots": [0, 1, 2, 4, 8],
        "withheld": 0.0,
        "warmup": 200,
        "validate_every": 500,
    },
}
_FEW_STEPS = tuple(FineTuning(steps=steps, early_stopping=False, learning_rate=1e-4) for steps in (3, 5, 7))


def _adapting(initialised_from: str, seed: int, **entry: Any) -> Entry:
    """The Meta PixelCNN from weights of another stage, on episodes that this one did not see."""
    training = {"steps": 1500, "learning_rate": 2e-3, "validate_every": 250}
    updates = {"task": {"seed": seed}, "training": training, "seed": seed}
    return Entry(
        "Meta PixelCNN", ("omniglot", "meta", "quarter_hour"), updates, initialised_from=initialised_from, **entry
    )


OMNIGLOT = Plan(
    name="omniglot",
    weight_prefixes=("omniglot",),
    title="Omniglot, 26x26, five test alphabets",
    entries={
        **_in_stages(
            "conditional",
            "Conditional PixelCNN",
            "conditional",
            paper=dict(zip(SHOTS, PAPER_CONDITIONAL, strict=True)),
        ),
        **_in_stages(
            "attention",
            "Attention PixelCNN",
            "attention",
            "dot",
            paper=dict(zip(SHOTS, PAPER_ATTENTION, strict=True)),
        ),
        **_in_stages("attention_again", "Attention PixelCNN, another seed", "attention", "dot", seed=1),
        **_longer(
            "attention_longer", "Attention PixelCNN, trained longer", "attention", "dot", initialised_from="attention"
        ),
        "tuned": Entry(
            "The same, fine-tuned on each support (ours)", fine_tunes="attention_longer", tunings=_FEW_STEPS
        ),
        **_longer(
            "attention_again_longer",
            "Attention PixelCNN, another seed, trained longer",
            "attention",
            "dot",
            initialised_from="attention_again",
            seed=1,
        ),
        "ensemble": Entry(
            "Ensemble of the last two seeds (ours)", ensemble_of=("attention_longer", "attention_again_longer")
        ),
        "ensemble_tuned": Entry(
            "The same, fine-tuned on each support (ours)", fine_tunes="ensemble", tunings=_FEW_STEPS[-1:]
        ),
        "meta_first": Entry("Unconditional PixelCNN", ("omniglot", "unconditional", "long"), in_table=False),
        "meta_begun": _adapting("meta_first", seed=0, in_table=False),
        "meta": _adapting("meta_begun", seed=1, paper=PAPER_META),
        "attention_meta": Entry(
            "Attention Meta PixelCNN",
            ("omniglot", "attention_meta", "dot", "quarter_hour"),
            {"training": {"steps": 500, "learning_rate": 1e-3, "validate_every": 100}},
            initialised_from="attention_longer",
            paper=PAPER_ATTENTION_META,
        ),
        "aligned_styles": Entry("Aligned PixelCNN", ("omniglot", "aligned", "long"), _STYLES_FIRST, in_table=False),
        "aligned": _stage(
            "Aligned PixelCNN (ours)", "aligned", initialised_from="aligned_styles", steps=8000, rate=2e-3
        ),
    },
    shots=SHOTS,
    baseline="conditional",
    gain=("attention", "conditional"),
    tuning_limit=48,
)

"""Tables that one command makes: ``python -m experiments.reproduce NAME``."""

from experiments.reproductions.omniglot import ADAPTATION, OMNIGLOT
from experiments.reproductions.plan import Entry, Plan

__all__ = ["PLANS", "Entry", "Plan"]

PLANS: dict[str, Plan] = {plan.name: plan for plan in (OMNIGLOT, ADAPTATION)}

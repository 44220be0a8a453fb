"""Seconds a training step of each entry, measured side by side: how many steps fit an equal budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from experiments import train
from experiments.ingredients import build_model, build_task, training_config
from experiments.reporting.tables import Section
from experiments.reproductions.plan import Plan
from experiments.reproductions.trained import recipe
from metadensity.progress import with_progress
from metadensity.training import MetaTrainer


def step_seconds(plan: Plan, fast: bool, rounds: int = 4, steps: int = 4) -> dict[str, float]:
    """CPU seconds a step, by entry that is trained. In each round all make the same steps; the first is left out.

    The mean and not the median: how long a step takes depends on the number of shots that is drawn for it.
    """
    trainers: dict[str, MetaTrainer] = {}
    for name, entry in plan.entries.items():
        if entry.in_table and entry.fine_tunes is None:
            named, updates = recipe(plan, entry, fast)
            config = train.experiment.configuration(named, updates)
            task = build_task(config["task"], "train")
            model = build_model(config["model"], task.event_shape, task.levels, config["seed"])
            trainers[name] = MetaTrainer(model, task, None, training_config(config["training"], config["seed"]))
    spent = dict.fromkeys(trainers, 0.0)
    for each in with_progress(range(rounds), "timing steps", "rounds", not fast):
        for name, trainer in trainers.items():
            began = time.process_time()
            for _ in range(steps):
                trainer.update()
            spent[name] += (time.process_time() - began) * (each > 0)
    return {name: total / ((rounds - 1) * steps) for name, total in spent.items()}


def section(plan: Plan, seconds: Mapping[str, float], budget: float) -> Section:
    """What a step takes, how many there are in ``budget`` seconds of one core, and how many the plan has."""
    rows = []
    for name, each in seconds.items():
        entry = plan.entries[name]
        steps: Any = entry.updates.get("training", {}).get("steps", "")
        rows.append([entry.title, f"{each:.3f}", f"{budget / each:,.0f}", f"{steps:,}" if steps else ""])
    headings = ["model", "seconds a step", f"steps in {budget:.0f} s", "steps of the plan"]
    return Section(f"Training steps of {plan.name}, CPU time", headings, rows)

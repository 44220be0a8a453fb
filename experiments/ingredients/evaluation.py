"""Settings that commands which score models share: ``experiment.config(evaluation_settings)`` adds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metadensity.checks import require_count
from metadensity.evaluation.leaks import DUPLICATES
from metadensity.evaluation.likelihood import autocast


# On which queries models are scored, and how. No docstring, as Sacred's print_config would show it.
def evaluation_settings() -> None:
    split = "test"
    queries = None  # queries that share a support; None: 4, or what the classes allow
    draws = 1  # how often each image is a query
    limit = None  # at most so many episodes, spread over the classes
    duplicates = "trust_ids"  # queries with the pixels of a support image: metadensity.evaluation.leaks.DUPLICATES
    tasks_per_batch = 16
    device = "cpu"  # of the evaluation
    precision = "float32"  # of the evaluation
    seed = 0  # of the supports, of what a bound draws, and of what is trained
    progress = True  # whether bars are shown


# Which fixed episodes a task is scored on.
def episode_settings() -> None:
    episodes = None  # a file of experiments.episodes, which then says queries, draws, limit and seed
    generated_episodes = 1000  # how many episodes of a task that draws its images without end


# Where the data of a trained model lie now; the fingerprint of the training says whether they are the same.
def place_settings() -> None:
    data_root = None  # None: where they lay in training, or METADENSITY_DATA
    folder = None  # of a task over a folder of images; None: where it lay in training


def require_evaluation_settings(config: Mapping[str, Any]) -> None:
    """Raise ValueError for what would be found out once baselines, or models, are trained."""
    autocast(torch.device("cpu"), config["precision"])
    if config["duplicates"] not in DUPLICATES:
        raise ValueError(f"duplicates={config['duplicates']!r}; choose one of {', '.join(map(repr, DUPLICATES))}.")
    require_count("tasks_per_batch", config["tasks_per_batch"], 1)

"""A small source of episodes, a small model and a short run, for tests of training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metadensity import Episode, FewShotModel
from metadensity.models import ConditionalPixelCNN
from metadensity.training import MetaTrainer, TrainingConfig

BASELINES = ("independent", "support_mean", "support_mixture")
NETWORKS = (
    *("unconditional", "conditional", "attention", "aligned", "meta", "maml"),
    *("attention_meta", "multiscale", "ensemble"),
)
OURS = (*BASELINES, *NETWORKS)  # of others the contract suite asks the same


@dataclass(frozen=True)
class Patterns:
    """Each class is a random image; its examples are that image with a tenth of the pixels redrawn.

    Pure in (seed, index); queries are the same for every number of shots. Images have ids of their own, so that the
    guard against support leaks knows two that look the same, which happens with so few pixels, for different ones.
    """

    event_shape: tuple[int, ...] = (1, 4, 4)
    levels: int = 2
    classes: int = 12
    seed: int = 0
    noise: float = 0.1

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        fixed = torch.Generator().manual_seed(self.seed)
        shapes = torch.randint(self.levels, (self.classes, *self.event_shape), generator=fixed)
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + index)
        ids = torch.randint(self.classes, (tasks,), generator=generator)

        def draw(count: int) -> torch.Tensor:
            clean = shapes[ids].expand(count, tasks, *self.event_shape)
            other = torch.randint(self.levels, clean.shape, generator=generator)
            return torch.where(torch.rand(clean.shape, generator=generator) < self.noise, other, clean).to(torch.uint8)

        query, numbers = draw(queries), torch.arange((queries + shots) * tasks).view(-1, tasks)
        return Episode(draw(shots), query, ids, ids // 3, support_ids=numbers[queries:], query_ids=numbers[:queries])


class Recorder:
    """An observer that keeps what it is told; ``stop_at`` ends the run after that step, as a signal would."""

    def __init__(self, stop_at: int | None = None, kept: Path | None = None) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.checkpoints: list[tuple[int, bool]] = []
        self.stop_at, self.kept = stop_at, kept

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.seen.append((step, values))

    def checkpoint(self, trainer: MetaTrainer, best: bool) -> None:
        self.checkpoints.append((trainer.step, best))
        trainer.stopping = trainer.step == self.stop_at

    def last_checkpoint(self, before: int) -> Path | None:
        return self.kept

    def series(self, name: str) -> list[tuple[int, float]]:
        """The values of one metric, with their steps."""
        return [(step, values[name]) for step, values in self.seen if name in values]


def small_network(seed: int = 0, **options: Any) -> ConditionalPixelCNN:
    """A network of a few hundred weights, the same for every equal seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConditionalPixelCNN((1, 4, 4), 2, **{"layers": 2, "planes": 4, "penultimate": 4, **options})


def trainer(model: FewShotModel | None = None, validate: bool = True, **settings: Any) -> MetaTrainer:
    """A short run on ``Patterns``, validated on other classes."""
    config = {"steps": 6, "tasks": 4, "queries": 2, "shots": (0, 1, 3), "warmup": 2, "average": 0.5}
    config |= {"log_every": 1, "validate_every": 3, "validation_tasks": 8, "checkpoint_every": 3} | settings
    validation = Patterns(seed=1) if validate else None
    return MetaTrainer(model or small_network(), Patterns(), validation, TrainingConfig(**config))

"""A small source of episodes, for tests of training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metadensity import Episode


@dataclass(frozen=True)
class Patterns:
    """Each class is a random image; its examples are that image with a tenth of the pixels redrawn.

    Pure in (seed, index); queries are the same for every number of shots.
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

        query = draw(queries)
        return Episode(draw(shots), query, class_ids=ids, group_ids=ids // 3)

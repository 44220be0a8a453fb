"""One step of meta-training against the same work through learn2learn's MAML, and what adapting costs.

Both sides compute the mean query NLL after one second-order step on each task's support, and its gradient. The results
are asserted to agree before anything is timed. Timings of the two sides alternate, and the median of each counts.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metadensity.adaptation import InnerLoop, adapt
from metadensity.models import UnconditionalPixelCNN
from tasks.interop.imports import import_learn2learn

STEP_SIZE = 0.1


@dataclass(frozen=True)
class Work:
    """One benchmark: so many tasks, images of so many places a side, and the size of the network."""

    name: str
    tasks: int
    size: int
    layers: int
    planes: int
    shots: int = 4
    queries: int = 4

    def build(self) -> tuple[UnconditionalPixelCNN, Tensor, Tensor]:
        """The model, support and query."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            event = (1, self.size, self.size)
            model = UnconditionalPixelCNN(event, 2, layers=self.layers, planes=self.planes, penultimate=self.planes)
            return (
                model,
                torch.randint(2, (self.shots, self.tasks, *event)),
                torch.randint(2, (self.queries, self.tasks, *event)),
            )


SMALL = Work("32 small tasks, 2 layers x 8, 8x8", tasks=32, size=8, layers=2, planes=8)
SMALL_14 = Work("32 small tasks, 2 layers x 8, 14x14", tasks=32, size=14, layers=2, planes=8)
WIDE = Work("4 wide tasks, 4 layers x 64, 26x26", tasks=4, size=26, layers=4, planes=64)
PAPER = Work("4 tasks, 12 layers x 24, 26x26", tasks=4, size=26, layers=12, planes=24)


def rows(quick: bool) -> list[dict[str, object]]:
    """Rows with name, ours_s, peer_s and ratio (peer / ours: above 1, ours is faster).

    quick: fewer repeats, and small tasks alone. Seconds are medians of one meta-gradient, or of one evaluation in the
    last row. Raises AssertionError where the two sides do not compute the same.
    """
    repeats = 3 if quick else 7
    small, all_sizes = (SMALL, SMALL_14), (SMALL, SMALL_14, PAPER, WIDE)
    found = [against_learn2learn(work, "auto", repeats) for work in (small if quick else (*small, WIDE))]
    found += [loop_against_vmap(work, repeats) for work in (small if quick else all_sizes)]  # what "auto" chooses
    return [*found, adapted_against_unadapted(SMALL_14 if quick else PAPER, repeats)]


def against_learn2learn(work: Work, way: str, repeats: int) -> dict[str, object]:
    """Our meta-training step, and learn2learn's."""
    model, support, query = work.build()
    ours, peer = _ours(model, support, query, way), _learn2learn(model, support, query)
    _assert_equal(model, ours, peer)
    return _row(f"meta-training step: {work.name}; learn2learn", ours, peer, repeats)


def loop_against_vmap(work: Work, repeats: int) -> dict[str, object]:
    """Our meta-training step in the two ways: what ``auto`` chooses, and the other one as the peer."""
    model, support, query = work.build()
    chosen = "vmap" if InnerLoop().vectorised(model, work.shots) else "loop"
    other = "loop" if chosen == "vmap" else "vmap"
    ours, peer = _ours(model, support, query, chosen), _ours(model, support, query, other)
    _assert_equal(model, ours, peer)
    return _row(f"meta-training step: {work.name}; {chosen}, {other}", ours, peer, repeats)


def adapted_against_unadapted(work: Work, repeats: int) -> dict[str, object]:
    """Scoring queries after one step (ours) and without one (peer): a ratio below 1 is what adapting costs."""
    model, support, query = work.build()

    def adapted() -> Tensor:
        with torch.no_grad():
            return adapt(model, support, InnerLoop(step_size=STEP_SIZE)).log_prob(query)

    def unadapted() -> Tensor:
        with torch.no_grad():
            return model(support).log_prob(query)

    with torch.no_grad():  # a step of no size changes nothing
        still = adapt(model, support, InnerLoop(step_size=1e-20)).log_prob(query)
    torch.testing.assert_close(still, unadapted(), rtol=1e-5, atol=1e-4)
    return _row(f"evaluation: {work.name}; adapted, unadapted", adapted, unadapted, repeats)


def _ours(model: UnconditionalPixelCNN, support: Tensor, query: Tensor, way: str) -> Callable[[], Tensor]:
    def step() -> Tensor:
        model.zero_grad()
        density = adapt(model, support, InnerLoop(step_size=STEP_SIZE, way=way))
        loss = -density.log_prob(query).mean() / query[0, 0].numel()
        loss.backward()
        return loss.detach()

    return step


def _learn2learn(model: UnconditionalPixelCNN, support: Tensor, query: Tensor) -> Callable[[], Tensor]:
    maml = import_learn2learn().algorithms.MAML(model, lr=STEP_SIZE)
    dims = query[0, 0].numel()

    def step() -> Tensor:
        model.zero_grad()
        total = torch.zeros(())
        for task in range(support.shape[1]):
            learner = maml.clone()
            images, queries = support[:, [task]], query[:, [task]]
            learner.adapt(-learner(images).log_prob(images).mean() / dims)
            total = total - learner(images).log_prob(queries).mean() / dims
        loss: Any = total / support.shape[1]
        loss.backward()
        return loss.detach()

    return step


def _assert_equal(model: UnconditionalPixelCNN, ours: Callable[[], Tensor], peer: Callable[[], Tensor]) -> None:
    """The two sides agree on the loss and on the meta-gradient, to float32's rounding."""
    results = []
    for side in (ours, peer):
        loss = side()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append(torch.cat([loss.view(1), *gradients]))
    scale = float(results[1][1:].abs().max())
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4 * scale)


def _row(name: str, ours: Callable[[], Tensor], peer: Callable[[], Tensor], repeats: int) -> dict[str, object]:
    times: tuple[list[float], list[float]] = ([], [])
    for side in (ours, peer):  # once to warm up
        side()
    for _ in range(repeats):
        for side, seconds in zip((ours, peer), times, strict=True):
            gc.collect()
            began = time.perf_counter()
            side()
            seconds.append(time.perf_counter() - began)
    ours_s, peer_s = (statistics.median(seconds) for seconds in times)
    return {"name": name, "ours_s": ours_s, "peer_s": peer_s, "ratio": peer_s / ours_s}

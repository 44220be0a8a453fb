"""A training step (episode, forward, backward, optimiser) against the plain one and the plain PixelCNN's.

Each side is the trainer's own update, in float32 and, where the processor multiplies it in tiles, in bfloat16. The
plain one is computed by torch's operations alone, without native kernels and with the gate as it is written; of nets
over sequences it is a WaveNet or a ByteNet as they are usually written, see sequence_peers.py. In every round each side
makes one step of the same episodes; the loss curves are asserted to agree. Also: which share of the matrix products'
peak, measured in the same run, the step reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.peers import PlainPixelCNN
from experiments.benchmarks.sequence_peers import PlainByteNet, PlainWaveNet
from experiments.benchmarks.timing import Row, interleaved, matmul_peak, row
from metadensity import Episode, FewShotModel, native
from metadensity.models import MODELS, ByteNet, UnconditionalPixelCNN, WaveNet
from metadensity.native.gated_layer import has_amx
from metadensity.nn.functional import gated_layer
from metadensity.nn.functional.gate import gate_plain
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False}
"""The same network in float32, contiguous, eager, under ``torch_alone``."""
FAST: dict[str, dict[str, Any]] = {
    precision: {"precision": precision, "channels_last": True} for precision in ("float32", "bfloat16")
}
"""The settings of TrainingConfig that make it fast; bfloat16 only does where native kernels have products of it."""
SHARED: dict[str, Any] = {"tasks": 16, "queries": 2, "shots": (4,), "steps": 1000, "warmup": 0, "learning_rate": 1e-3}
LOSS_TOLERANCE = 0.02  # nats/dim between the curves at any step: sums in another order part, and differences grow


@dataclass(frozen=True)
class Work:
    """A model of MODELS and its sizes, on images of ``size`` places a side; or on sequences of ``places``."""

    name: str
    model: str
    sizes: dict[str, Any]
    size: int = 26
    places: int = 0
    levels: int = 2
    batch: dict[str, Any] = field(default_factory=dict)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (1, self.places) if self.places else (1, self.size, self.size)

    def task(self) -> Any:
        """Where episodes come from: glyphs, or sequences made up."""
        return Waves(self.event_shape, self.levels) if self.places else TASKS["hershey"](split="train", size=self.size)

    def build(self) -> FewShotModel:
        """The model with random weights, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return MODELS[self.model](self.event_shape, self.levels, **self.sizes)


@dataclass(frozen=True)
class Waves:
    """Sequences whose places go together: sums of random steps, and noise."""

    event_shape: tuple[int, ...]
    levels: int

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """Pure in the index."""
        generator = torch.Generator().manual_seed(index)
        steps, noise = (torch.randn(shots + queries, tasks, *self.event_shape, generator=generator) for _ in range(2))
        waves = (0.05 * steps.cumsum(-1) + 0.3 * noise).tanh()
        pixels = ((waves + 1) / 2 * (self.levels - 1)).round().to(torch.uint8)
        return Episode(pixels[:shots], pixels[shots:])


PAPER: dict[str, Any] = {"layers": 12, "planes": 24, "penultimate": 32}
WIDE: dict[str, Any] = {"layers": 9, "planes": 32, "penultimate": 32}
TINY: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}
FULL = (
    Work("the paper's Omniglot net, attention, 12 layers x 24, 26x26", "attention", PAPER),
    Work("unconditional, 12 layers x 24, 26x26", "unconditional", PAPER),
    Work("unconditional, 9 layers x 32, 28x28", "unconditional", WIDE, 28),
)
SOUND, STRINGS = {"tasks": 8, "queries": 1, "shots": (2,)}, {"tasks": 32, "queries": 2, "shots": (2,)}
SEQUENCES = (
    Work("WaveNet, 31 layers x 32, 1024 samples", "wavenet", {}, places=1024, levels=256, batch=SOUND),
    Work(
        "WaveNet, 21 layers x 64, 1024 samples",
        "wavenet",
        {"layers": 21, "planes": 64},
        places=1024,
        levels=256,
        batch=SOUND,
    ),
    Work("ByteNet, 10 blocks x 64, 24 symbols", "bytenet", {"planes": 64}, places=24, levels=40, batch=STRINGS),
    Work("ByteNet, 10 blocks x 64, 256 symbols", "bytenet", {"planes": 64}, places=256, levels=65, batch=STRINGS),
)
QUICK_SEQUENCES = tuple(
    Work(f"tiny {name}", name, TINY, places=9, levels=3, batch={"tasks": 2}) for name in ("wavenet", "bytenet")
)
QUICK = (Work("tiny attention", "attention", TINY, 8), Work("tiny unconditional", "unconditional", TINY, 8))


def rows(quick: bool) -> list[Row]:
    """Each network's step, fast against plain; unconditional ones also against the plain PixelCNN."""
    repeats, shared = (2, {**SHARED, "tasks": 2}) if quick else (9, SHARED)
    peaks = {dtype: matmul_peak(dtype, *((64, 2) if quick else (2048, 5))) for dtype in (torch.float32, torch.bfloat16)}
    return [
        *(found for work in (QUICK if quick else FULL) for found in _rows_of(work, shared, repeats, peaks)),
        *(
            found
            for work in (QUICK_SEQUENCES if quick else SEQUENCES)
            for threads in ((1,) if quick else (1, 2))
            for found in _sequence_rows(work, threads, repeats)
        ),
    ]


def _sequence_rows(work: Work, threads: int, repeats: int) -> list[Row]:
    """Nets over sequences, against these as they are usually written, on so many threads."""
    before, given = torch.get_num_threads(), {**SHARED, **work.batch}
    torch.set_num_threads(threads)
    try:
        sides = {
            name: Steps(MetaTrainer(work.build(), work.task(), None, TrainingConfig(**given, **settings)))
            for name, settings in _fast().items()
        }
        peer = SequencePeer(work.build())
        sides["plain"] = Steps(MetaTrainer(peer, work.task(), None, TrainingConfig(**given, **PLAIN)))
        seconds = interleaved(sides, repeats)
    finally:
        torch.set_num_threads(before)
    _require_same_curves(work.name, sides)
    places = given["tasks"] * given["queries"] * work.places
    found = [
        row(
            f"training step: {work.name}; {name}, as usually written, {threads} thread{'s' * (threads > 1)}",
            seconds[name],
            seconds["plain"],
            places_per_s=places / seconds[name],
        )
        for name in _fast()
    ]
    found[-1]["bar"] = 2.5
    return found


class SequencePeer(FewShotModel):
    """A plain WaveNet or ByteNet as a model that MetaTrainer can train: only what a training step needs."""

    def __init__(self, ours: FewShotModel) -> None:
        super().__init__(ours.event_shape, ours.levels)
        self.network = PlainWaveNet(ours) if isinstance(ours, WaveNet) else PlainByteNet(cast(ByteNet, ours))

    def condition(self, support: Tensor) -> Any:
        """Not needed."""
        raise NotImplementedError

    def loss(self, support: Tensor, query: Tensor, *others: Any, **more: Any) -> Tensor:
        """See ``FewShotModel.loss``."""
        return -cast(Tensor, self.network(support, query))


def _rows_of(work: Work, shared: dict[str, Any], repeats: int, peaks: dict[torch.dtype, float]) -> list[Row]:
    task = work.task()
    sides = {
        name: Steps(MetaTrainer(work.build(), task, None, TrainingConfig(**shared, **settings)), plain=name == "plain")
        for name, settings in (*_fast().items(), ("plain", PLAIN))
    }
    peer = _plain_peer(work)
    if peer is not None:
        sides["peer"] = Steps(MetaTrainer(peer, task, None, TrainingConfig(**shared, **PLAIN)))
    operations = _operations(MetaTrainer(work.build(), task, None, TrainingConfig(**shared, **PLAIN)))
    seconds = interleaved(sides, repeats)
    _require_same_curves(work.name, sides)
    images = shared["tasks"] * shared["queries"]

    def described(name: str, other: str, peer: str) -> Row:
        rates = {
            "images_per_s": images / seconds[name],
            "peer_images_per_s": images / seconds[other],
            "gflop_a_step": operations / 1e9,
            "share_of_float32_peak": operations / seconds[name] / peaks[torch.float32],
            "share_of_bfloat16_peak": operations / seconds[name] / peaks[torch.bfloat16],
            "peer_share_of_float32_peak": operations / seconds[other] / peaks[torch.float32],
        }
        return row(f"training step: {work.name}; {name}, {peer}", seconds[name], seconds[other], **rates)

    found = [described(name, "plain", "plain") for name in _fast()]
    found[-1]["bar"] = 3
    if peer is not None:
        found += [described(name, "peer", "plain PixelCNN") for name in _fast()]
    return found


def _fast() -> dict[str, dict[str, Any]]:
    """FAST, of it what is fast here; the fastest last."""
    return {name: settings for name, settings in FAST.items() if name == "float32" or has_amx()}


@contextmanager
def torch_alone() -> Iterator[None]:
    """No native kernels, and the gate as it is written, an operation at a time."""
    with native.disabled(), patch.object(gated_layer, "gate", gate_plain):
        yield


class Steps:
    """Training, a step a call; keeps the losses. plain: under ``torch_alone``."""

    def __init__(self, trainer: MetaTrainer, plain: bool = False) -> None:
        self.trainer, self.losses = trainer, list[float]()
        self.within: Callable[[], Any] = torch_alone if plain else nullcontext

    def __call__(self) -> None:
        with self.within():
            self.losses.append(self.trainer.update()[0])


class PeerModel(FewShotModel):
    """The plain PixelCNN as a model that MetaTrainer can train: only what a training step needs."""

    def __init__(self, ours: UnconditionalPixelCNN) -> None:
        super().__init__(ours.event_shape, ours.levels)
        self.network = PlainPixelCNN(ours.network)

    def condition(self, support: Tensor) -> Any:
        """Something with a ``log_prob``."""
        return self

    def log_prob(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Nats, ``(*sample, tasks)``."""
        pixels = value.flatten(0, -len(self.event_shape) - 1)
        terms = torch.nn.functional.cross_entropy(self.network(pixels), pixels.long(), reduction="none")
        return -terms.flatten(1).sum(1).view(value.shape[: -len(self.event_shape)])


def _plain_peer(work: Work) -> PeerModel | None:
    model = work.build()
    return PeerModel(model) if isinstance(model, UnconditionalPixelCNN) else None


def _operations(trainer: MetaTrainer) -> int:
    """Floating-point operations of the products and convolutions of one step, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        trainer.update()
    return int(counter.get_total_flops())


def _require_same_curves(name: str, sides: dict[str, Steps]) -> None:
    for other, steps in sides.items():
        pairs = list(zip(sides["plain"].losses, steps.losses, strict=True))
        off = max(abs(a - b) for a, b in pairs)
        assert math.isfinite(off), f"{name}: the losses of {other} are {steps.losses}"
        assert off < LOSS_TOLERANCE, f"{name}: losses of {other} are off by up to {off:.3g} nats/dim"


def waiting_share(work: Work, repeats: int) -> float:
    """Which share of the time of a fast training step goes into making its episode."""
    task = TASKS["hershey"](split="train", size=work.size)
    trainer = MetaTrainer(work.build(), task, None, TrainingConfig(**SHARED, **list(_fast().values())[-1]))
    sides: dict[str, Callable[[], Any]] = {
        "step": lambda: trainer.update(),
        "episode": lambda: _episode(trainer),
    }
    seconds = interleaved(sides, repeats)
    return seconds["episode"] / seconds["step"]


def _episode(trainer: MetaTrainer) -> Episode:
    config = trainer.config
    return trainer.train.episode(trainer.step, config.tasks, config.shots[0], config.queries)

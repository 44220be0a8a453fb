"""What a step of training costs on many processes, by calculation: ``python -m experiments.benchmarks.ranks``.

Measured here: seconds of one part of a step, bytes of its gradient, seconds to add one gradient to another. Stated: the
network, ``--gbit`` a second and ``--latency`` of a message. Three ways to the sum of the gradients of ``parts`` parts,
one on each process; each in the bytes that one process receives and the messages it waits for:

gather    every process gets all rows and adds them in order (``metadensity.training.gradients``): the same bits on any
          number of processes. (parts - 1) gradients; parts - 1 messages of a ring.
slices    every process gets one slice of all rows, adds these in order, and sends its sum to all: the same bits too.
          2 (parts - 1) / parts gradients; parts - 1 messages at once, then a ring.
ring      the all-reduce of a ring adds each slice in the order of the processes: bits depend on their number.
          2 (parts - 1) / parts gradients; 2 (parts - 1) messages.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from experiments.benchmarks.timing import interleaved, machine
from experiments.benchmarks.training import FULL, QUICK, SHARED, Work
from experiments.reporting.tables import markdown
from metadensity.training import MetaTrainer, TrainingConfig
from metadensity.training.gradients import GradientRows

SIZES = (1, 2, 8, 64, 512)


@dataclass(frozen=True)
class Costs:
    """Seconds of a part's passes and of adding two rows, bytes of a row; seconds that a byte and a message take."""

    part: float
    adding: float
    row: int
    byte: float
    message: float

    def seconds(self, way: str, parts: int) -> float:
        """Of a step with one part on each process, without the optimiser's, which is the same on all."""
        others = parts - 1
        if way == "gather":
            return self.part + others * (self.row * self.byte + self.message + self.adding)
        adding = others / parts * self.adding if way == "slices" else 2 * others / parts * self.adding
        messages = (1 if way == "slices" else others) + others if others else 0
        return self.part + 2 * others / parts * self.row * self.byte + messages * self.message + adding


WAYS = ("gather", "slices", "ring")


def measured(work: Work, shared: dict[str, object], repeats: int, gbit: float, latency: float) -> Costs:
    """One task a part: what a process does of a step."""
    config = TrainingConfig(**{**shared, "tasks": 1, "parts": 1})  # type: ignore[arg-type]
    trainer = MetaTrainer(work.build(), work.task(), None, config)
    trainer.update()
    rows = GradientRows(trainer.model.parameters())
    one, other = rows.row(torch.tensor(0.0)), rows.row(torch.tensor(0.0))
    episode = trainer.train.episode(0, 1, config.shots[0], config.queries)
    found = interleaved({"part": lambda: trainer._backward(episode), "adding": lambda: one.add_(other)}, repeats)
    return Costs(found["part"], found["adding"], one.numel() * one.element_size(), 8 / (gbit * 1e9), latency)


def table(costs: Costs, sizes: tuple[int, ...] = SIZES) -> str:
    """Milliseconds of a step by way and number of processes, and tasks a second beside those of one process."""
    cells = []
    for size in sizes:
        seconds = [costs.seconds(way, size) for way in WAYS]
        speeds = [size * costs.part / each for each in seconds]
        cells.append(
            [str(size), *(f"{1e3 * each:.1f} ({speed:.1f}x)" for each, speed in zip(seconds, speeds, strict=True))]
        )
    return markdown(["processes", *(f"{way}, ms (tasks a second)" for way in WAYS)], cells)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gbit", type=float, default=10.0, help="bandwidth of each process's link, Gbit a second")
    parser.add_argument("--latency", type=float, default=50e-6, help="seconds that a message takes at least")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which say nothing about speed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    work, repeats = (QUICK[0], 2) if given.quick else (FULL[0], 15)
    costs = measured(work, SHARED, repeats, given.gbit, given.latency)
    here = machine()
    print(
        f"{work.name}: one task of {SHARED['queries']} queries takes {1e3 * costs.part:.1f} ms, its gradient has "
        f"{costs.row / 1e6:.2f} MB, adding one takes {1e3 * costs.adding:.2f} ms ({here['processor']}, one thread). "
        f"Stated: {given.gbit:g} Gbit a second, {1e6 * given.latency:.0f} us a message.\n\n{table(costs)}"
    )


if __name__ == "__main__":
    main()

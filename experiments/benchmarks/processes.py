"""A training step by two processes of one thread each, against one process of two threads.

The same net and parts of a step in each. A launch makes some steps and says how long each took; launches of all sides
take turns. The states at the end are asserted to be the same bits where each process has one thread. Two processes that
share nothing, with one part each, are as fast as the machine lets two be.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from experiments.benchmarks.timing import Row, row
from experiments.benchmarks.training import FULL, QUICK, SHARED, Work
from metadensity.files import content_hash
from metadensity.processes import joined
from metadensity.training import MetaTrainer, TrainingConfig

PARTS = 2
SIDES = {"two processes of one thread": (2, 1), "one process of two threads": (1, 2), "one of one": (1, 1)}
APART = "two that share nothing, a part each"
BAR = 1.5
_SAID = "STEPS "


def rows(quick: bool) -> list[Row]:
    """The step of the paper's Omniglot net, in float32."""
    work, rounds, steps = (QUICK[0], 1, 2) if quick else (FULL[0], 3, 8)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in [*SIDES, APART]}
    for _ in range(rounds):
        for name, (size, threads) in SIDES.items():
            found[name].append(_launched(size, threads, steps, quick))
        with ThreadPoolExecutor() as pool:
            found[APART] += pool.map(lambda parts: _launched(1, 1, steps, quick, parts), (1, 1))
    for part in zip(found["two processes of one thread"], found["one of one"], strict=True):
        assert len({each["state"] for each in part}) == 1, "two processes did not come to the bits of one"
    seconds = {name: statistics.median(s for each in parts for s in each["seconds"]) for name, parts in found.items()}
    ours, *peers = seconds
    made = [
        row(f"training step: {work.name}; {ours}, {peer}", seconds[ours], seconds[peer], parts=PARTS) for peer in peers
    ]
    made[0]["bar"] = BAR
    return made


def _launched(size: int, threads: int, steps: int, quick: bool, parts: int = PARTS) -> dict[str, Any]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)) if size > 1 else ()
    command = [sys.executable, *launcher, "-m", "experiments.benchmarks.processes"]
    command += [str(steps), str(int(quick)), str(parts)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if _SAID not in done.stdout:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    said: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout.split(_SAID)[1])[0]
    return said


def _steps(work: Work, shared: dict[str, Any], steps: int, parts: int) -> dict[str, Any]:
    """Train on some of the parts, two untimed steps first. Returns the steps' seconds, and the hash of the weights."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = TrainingConfig(**{**shared, "tasks": shared["tasks"] * parts // PARTS, "parts": parts})
    trainer = MetaTrainer(work.build(), work.task(), None, config)
    seconds = []
    for number in range(steps + 2):
        began = time.perf_counter()
        trainer.update()
        if number >= 2:
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "state": content_hash(trainer.state()[0])}


if __name__ == "__main__":
    asked, tiny, sliced = (int(word) for word in sys.argv[1:])
    with joined() as processes:
        own = _steps(*((QUICK[0], {**SHARED, "tasks": 2}) if tiny else (FULL[0], SHARED)), asked, sliced)
    if processes.rank == 0:
        print(_SAID + json.dumps(own), flush=True)
    os._exit(0)  # gloo aborts some processes at their end

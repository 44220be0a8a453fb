"""What test_processes.py runs as one, two and four processes: trainings and scores, whose hashes it prints."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from metadensity import FewShotModel, evaluate
from metadensity.adaptation.fine_tuning import FineTuned, FineTuning
from metadensity.evaluation.classification import class_log_probs
from metadensity.evaluation.nway import NWayEpisodes
from metadensity.files import content_hash
from metadensity.models import MODELS
from metadensity.processes import joined
from metadensity.training import MetaTrainer, TrainingConfig
from metadensity.training.gradients import GradientRows
from tests.metadensity.toys import Patterns, Recorder

SMALL = {"layers": 2, "planes": 6, "penultimate": 8}
# model, its options, settings of training
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "conditional": ("conditional", SMALL, {}),
    "unconditional, zero shots": ("unconditional", SMALL, {"shots": (0, 2)}),
    "attention, muon": ("attention", SMALL, {"optimizer": "muon", "withheld": 0.5}),
    "aligned, rmsprop": ("aligned", SMALL, {"optimizer": "rmsprop"}),
    "conditional, bfloat16": ("conditional", SMALL, {"precision": "bfloat16"}),
    "maml": ("maml", SMALL, {}),
    "meta": ("meta", SMALL, {}),
    "attention_meta": ("attention_meta", SMALL, {"shots": (1, 2)}),
    "independent": ("independent", {}, {"average": 0.0}),
    "bytenet, dropout": ("bytenet", {**SMALL, "encoder_layers": 1, "dropout": 0.2}, {}),
}
STEPS, STOP = 4, 2


def build(name: str, options: dict[str, Any], source: Any) -> FewShotModel:
    torch.manual_seed(0)
    return MODELS[name](source.event_shape, source.levels, **options)


def trainer(name: str, options: dict[str, Any], settings: dict[str, Any], parts: int = 4) -> MetaTrainer:
    shape = (1, 8) if name == "bytenet" else (1, 4, 4)
    train, validation = Patterns(shape), Patterns(shape, seed=1)
    config = TrainingConfig(
        **{"steps": STEPS, "tasks": 6, "queries": 2, "shots": (0, 1, 2), "warmup": 1, "average": 0.9, "parts": parts}
        | {"validate_every": STOP, "validation_tasks": 24, "log_every": STEPS}
        | settings
    )
    return MetaTrainer(build(name, options, train), train, validation, config)


def whole(run: MetaTrainer) -> str:
    tensors, header = run.state()
    return hashlib.sha256(f"{content_hash(tensors)} {header}".encode()).hexdigest()[:12]


def three_ways() -> NWayEpisodes:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randint(2, (7, n, 1, 4, 4), generator=generator, dtype=torch.uint8) for n in (3, 2))
    return NWayEpisodes(support.unsqueeze(2), query, torch.zeros(7, 2, dtype=torch.int64))


def in_order_of_arrival(self: GradientRows, rows: torch.Tensor) -> list[float]:
    return PLAIN(self, rows.flip(0) if torch.distributed.is_initialized() else rows)


PLAIN = GradientRows.set_sum


def main(scratch: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with joined() as processes:
        for case, (name, options, settings) in list(CASES.items())[: None if processes.size < 4 else 3]:
            recorder, run = Recorder(), trainer(name, options, settings)
            run.run(recorder if processes.rank == 0 else None)
            found[case] = (
                [whole(run), recorder.series("validation/cautious")] if processes.rank == 0 else [whole(run), None]
            )
        first = next(iter(CASES.values()))
        # a signal to the last process alone ends all of them after the same step; a file goes on anywhere
        run = trainer(*first)
        update = run.update

        def signalled(observer: Any = None) -> tuple[float, float]:
            done = update(observer)
            if run.step == STOP - 1 and processes.rank == processes.size - 1:
                run.stopping = True
            return done

        run.update = signalled  # type: ignore[method-assign]
        run.run()
        found["stopped at"] = run.step
        if processes.rank == 0:
            run.save_state(scratch / f"stopped-{processes.size}.safetensors")
        for size in (1, 2, 4):
            if (kept := scratch / f"stopped-{size}.safetensors").exists() and size != processes.size:
                going_on = trainer(*first)
                going_on.resume(kept)
                going_on.run()
                found[f"gone on from {size}"] = whole(going_on)
        GradientRows.set_sum = in_order_of_arrival  # type: ignore[method-assign]
        control = trainer(*first)
        control.run()
        found["control"] = whole(control)
        GradientRows.set_sum = PLAIN  # type: ignore[method-assign]
        source = Patterns(seed=2)
        model = build("conditional", SMALL, source)
        sizes = (3, 1, 4, 2, 2)
        batches = [source.episode(i, tasks, 2, 2).with_shots(s) for i, tasks in enumerate(sizes) for s in (0, 2)]
        scores = evaluate(model, batches)
        found["scores"] = {str(s): [part.nats.tolist(), part.class_ids.tolist()] for s, part in scores.scores.items()}
        found["rows"] = repr(scores.rows)
        tuned = evaluate(FineTuned(model, FineTuning(steps=2)), [each for each in batches if each.shots])
        found["fine-tuned"] = tuned.scores[2].nats.tolist()
        found["classes"] = class_log_probs(model, three_ways(), images_per_batch=6).tolist()
    return {"rank": processes.rank, "found": found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = main(Path(sys.argv[1]))
    print("RESULT " + json.dumps(result), flush=True)
    os._exit(0)  # gloo aborts some processes at their end

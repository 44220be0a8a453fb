"""The main job on the embedded task, end to end: ``make demo``.

Meta-trains an unconditional PixelCNN on drawings of Hershey glyphs, and from its weights on an AttentionPixelCNN;
scores both, and the simple baselines, on glyphs of held-out fonts; draws samples. The unconditional one sees 25,600
images, all without a support; the other one, after these, 45,000 without and 35,000 with.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sacred import Experiment

from experiments import evaluate, sample, train
from experiments.recording.command_line import exit_statuses, recorded_in
from experiments.recording.launched import launched
from experiments.recording.root import runs_root


def run(experiment: Experiment, named_configs: tuple[str, ...] = (), **config: Any) -> dict[str, Any]:
    """One recorded run of an experiment; returns its result."""
    with nullcontext() if experiment.observers else recorded_in(experiment, runs_root()):
        result: dict[str, Any] = experiment.run(named_configs=named_configs, config_updates=config).result
    return result


def demo(named_configs: tuple[str, ...] = (), **evaluation: Any) -> dict[str, dict[str, Any]]:
    """Train, evaluate, sample, with further named configurations if given. Returns the results of the four runs."""
    results: dict[str, dict[str, Any]] = {}
    initial = None
    for model, budgets in (("unconditional", ("demo", "demo_baseline")), ("attention", ("demo",))):
        print(f"\n== Meta-training: {model} ==", flush=True)
        results[model] = run(train.experiment, ("hershey", model, *budgets, *named_configs), initial=initial)
        initial = results[model]["folder"]  # what characters look like at all is learned once
    print("\n== Evaluation on fonts that training never saw ==", flush=True)
    folder, other = results["attention"]["folder"], results["unconditional"]["folder"]
    settings = {"limit": 413, **evaluation}  # one episode of four queries for each of the 413 glyphs
    results["evaluate"] = run(evaluate.experiment, run=folder, against=[other], **settings)
    print("\n== Samples ==", flush=True)
    results["sample"] = run(sample.experiment, run=folder)
    return results


def main() -> None:
    """Run the demo and say where everything is."""
    began = time.perf_counter()
    with exit_statuses(), launched(False, "demo"):
        results = demo()
    print(f"\nDone in {time.perf_counter() - began:.0f} s.")
    print(f"  table    {Path(results['evaluate']['folder']) / 'evaluation.md'}")
    print(f"  picture  {results['sample']['picture']}  (support left of the line, samples right of it)")
    print(f"  curves   .venv/bin/tensorboard --logdir {runs_root()}")


if __name__ == "__main__":
    main()

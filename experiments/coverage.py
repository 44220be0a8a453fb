"""How often 95 % intervals hold the truth: ``python -m experiments.coverage``, a simulation over few and many clusters.

Beside our interval (``metadensity.evaluation.intervals``) stand two bootstraps over clusters: scipy's percentile, BCa.
The run folder gets coverage.json and coverage.md; ``keep=FOLDER`` copies the JSON, and ``coverage readme`` writes the
table of the repository's record into metadensity/evaluation/README.md.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from sacred.run import Run
from scipy.stats import bootstrap

from experiments.benchmarks.timing import machine
from experiments.recording.command_line import main, make_experiment
from experiments.recording.run_folder import folder_of
from experiments.reporting.document_blocks import replace_block
from experiments.reporting.tables import markdown, plain
from experiments.results import RECORDS
from metadensity.evaluation.intervals import clustered_mean
from metadensity.files import write_atomically
from metadensity.progress import with_progress

RECORD = RECORDS / "coverage" / "coverage.json"
DOCUMENT = Path(__file__).parents[1] / "metadensity" / "evaluation" / "README.md"
BOOTSTRAPS = ("percentile", "BCa")
DISTRIBUTIONS = {"normal": 0.0, "skewed": math.exp(0.5)}  # of what clusters share: normal, lognormal; their means

experiment = make_experiment("coverage", named_configs={"fast": {"repeats": 40, "resamples": 99, "clusters": [2, 5]}})


@experiment.config
def _defaults() -> None:
    clusters = [2, 3, 5, 10, 20, 50]
    size = 20  # values of a cluster
    repeats = 4000  # simulated experiments for each row
    resamples = 999  # of the bootstraps
    seed = 0
    keep = None  # a folder to copy the JSON to
    progress = True


@experiment.main
def coverage(
    clusters: list[int], size: int, repeats: int, resamples: int, seed: int, keep: str | None, progress: bool, _run: Run
) -> dict[str, Any]:
    """Simulate; print the table, write JSON and Markdown. Returns the JSON."""
    if min(clusters) < 2:
        raise ValueError(f"clusters={clusters}; give 2 or more of them in each, as one has no interval.")
    folder, began, rows = folder_of(_run), time.perf_counter(), []
    for distribution in DISTRIBUTIONS:
        for count in with_progress(clusters, f"{distribution} clusters", "rows", progress):
            generator = np.random.default_rng([seed, count])
            rows.append(row(distribution, count, size, repeats, resamples, generator))
    result = {
        "machine": machine(),
        "scipy": scipy.__version__,
        "size": size,
        "repeats": repeats,
        "resamples": resamples,
        "seed": seed,
        "seconds": time.perf_counter() - began,
        "rows": rows,
    }
    print("\n" + plain(*table(result)) + "\n\n" + note(result))
    text = json.dumps(result, indent=1, allow_nan=False).encode() + b"\n"
    write_atomically(folder / "coverage.json", text)
    write_atomically(folder / "coverage.md", document(result).encode())
    if keep is not None:
        Path(keep).mkdir(parents=True, exist_ok=True)
        write_atomically(Path(keep) / RECORD.name, text)
    return {**result, "folder": str(folder)}


@experiment.command
def readme() -> None:
    """Write the table of the repository's record into metadensity/evaluation/README.md."""
    replace_block(DOCUMENT, "coverage", document(json.loads(RECORD.read_text())))


def row(
    distribution: str, count: int, size: int, repeats: int, resamples: int, generator: np.random.Generator
) -> dict[str, Any]:
    """How often each interval holds the mean, and how wide it is in the median; an undefined interval holds nothing."""
    truth, values = DISTRIBUTIONS[distribution], simulate(distribution, (repeats, count, size), generator)
    of_cluster = np.arange(count).repeat(size)
    intervals = {"ours": np.array([clustered_mean(each.ravel(), of_cluster)[1] for each in values])}
    undefined = {}
    for method in BOOTSTRAPS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of intervals that are undefined, which are counted below
            found = bootstrap(
                (values.mean(2),), np.mean, axis=1, n_resamples=resamples, method=method, batch=50, rng=generator
            ).confidence_interval
        intervals[method] = np.stack([found.low, found.high], axis=1)
        undefined[method] = int(np.isnan(intervals[method]).any(1).sum())
    held, width = {}, {}
    for name, (low, high) in ((name, found.T) for name, found in intervals.items()):
        held[name] = float(((low <= truth) & (truth <= high)).mean())
        width[name] = float(np.nanmedian(high - low))
    return {"distribution": distribution, "clusters": count, "held": held, "width": width, "undefined": undefined}


def simulate(distribution: str, shape: tuple[int, int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    """``(repeats, clusters, size)``: what a cluster shares, and as much again that it does not."""
    shared = generator.standard_normal((*shape[:2], 1))
    return (np.exp(shared) if distribution == "skewed" else shared) + generator.standard_normal(shape)


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table."""
    headings = ["clusters", "what they share", "ours", *(f"{name} bootstrap" for name in BOOTSTRAPS)]
    return headings, [
        [
            str(found["clusters"]),
            found["distribution"],
            *(f"{100 * found['held'][name]:.1f} %" for name in ("ours", *BOOTSTRAPS)),
        ]
        for found in result["rows"]
    ]


def note(result: dict[str, Any]) -> str:
    """What the table was made with."""
    error = 100 * 1.96 * math.sqrt(0.95 * 0.05 / result["repeats"])
    return (
        f"How often a 95 % interval holds the mean of new clusters: {result['repeats']} simulated experiments a row "
        f"(so within {error:.1f} points), clusters of {result['size']} values, {result['resamples']} resamples of "
        f"clusters; scipy {result['scipy']}. `python -m experiments.coverage`, {result['seconds']:.0f} s, "
        f"{result['machine']['processor']}."
    )


def document(result: dict[str, Any]) -> str:
    """The table and the note as Markdown."""
    return f"{markdown(*table(result))}\n{note(result)}\n"


if __name__ == "__main__":
    main(experiment)

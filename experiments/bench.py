"""Speed, as ratios within one run: ``python -m experiments.bench``, or part of it: ``... bench sampling``.

Each part times ours and its peer in turn, asserts that both compute the same, and reports medians. The run folder gets
benchmark.json, benchmark.md (with the hardware) and, with sampling, a picture of time against pixels. The README of
benchmarks/ shows those in BENCH_RECORDS, which ``bench readme`` writes into it.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sacred.run import Run

from experiments.benchmarks.timing import machine
from experiments.figures.legends import legend_beside
from experiments.figures.shot_curves import save_figure
from experiments.recording.command_line import main, make_experiment
from experiments.recording.run_folder import folder_of
from experiments.reporting.document_blocks import replace_block
from experiments.reporting.tables import markdown, plain
from experiments.results import RECORDS
from metadensity.files import write_atomically
from metadensity.progress import with_progress

PARTS = ("sampling", "training", "recurrent", "processes", "adaptation", "likelihood", "attention", "episodes")
BENCH_RECORDS = RECORDS / "bench"
DOCUMENT = Path(__file__).parent / "benchmarks" / "README.md"
RECORD, PICTURE = "benchmark.json", "sampling.png"
HEADINGS = ("benchmark", "ours", "peer", "ratio", "bar")
_QUICK = {"quick": True}
experiment = make_experiment("bench", named_configs={"quick": _QUICK, "fast": _QUICK})


@experiment.config
def _defaults() -> None:
    only = None  # one part, or several, of those there are; None: all
    quick = False  # tiny sizes, which show that both sides agree and say nothing about speed
    keep = None  # a folder to copy the JSON and the picture to
    document = None  # of the command readme; None: benchmarks/README.md


@experiment.main
def bench(only: str | Sequence[str] | None, quick: bool, keep: str | None, _run: Run) -> dict[str, Any]:
    """Run the parts named by ``only``; print a table, write JSON, Markdown and a picture. Returns the JSON."""
    parts = PARTS if only is None else (only,) if isinstance(only, str) else tuple(only)
    folder = folder_of(_run)
    result = run_parts(parts, quick, folder)
    if keep is not None:
        kept = {key: value for key, value in result.items() if key != "folder"}
        write_atomically(Path(keep) / RECORD, json.dumps(kept, indent=1, allow_nan=False).encode() + b"\n")
        if (folder / PICTURE).exists():
            write_atomically(Path(keep) / PICTURE, (folder / PICTURE).read_bytes())
    return result


@experiment.command
def readme(document: str | None) -> None:
    """Write the table of the repository's record into benchmarks/README.md, or another document with its marks."""
    replace_block(Path(document or DOCUMENT), "bench", table(json.loads((BENCH_RECORDS / RECORD).read_text())))


@experiment.command
def sampling(quick: bool, _run: Run) -> dict[str, Any]:
    """Cached sampling against the naive loop."""
    return run_parts(("sampling",), quick, folder_of(_run))


@experiment.command
def training(quick: bool, _run: Run) -> dict[str, Any]:
    """The training step against the plain one."""
    return run_parts(("training",), quick, folder_of(_run))


@experiment.command
def recurrent(quick: bool, _run: Run) -> dict[str, Any]:
    """PixelRNN's training step and sampler."""
    return run_parts(("recurrent",), quick, folder_of(_run))


@experiment.command
def processes(quick: bool, _run: Run) -> dict[str, Any]:
    """The training step by two processes against two threads."""
    return run_parts(("processes",), quick, folder_of(_run))


@experiment.command
def adaptation(quick: bool, _run: Run) -> dict[str, Any]:
    """Adapting tasks against learn2learn."""
    return run_parts(("adaptation",), quick, folder_of(_run))


@experiment.command
def likelihood(quick: bool, _run: Run) -> dict[str, Any]:
    """Many images against one support."""
    return run_parts(("likelihood",), quick, folder_of(_run))


@experiment.command
def attention(quick: bool, _run: Run) -> dict[str, Any]:
    """Attention over the support against its plain form."""
    return run_parts(("attention",), quick, folder_of(_run))


@experiment.command
def episodes(quick: bool, _run: Run) -> dict[str, Any]:
    """Episodes a second against learn2learn and torchmeta."""
    return run_parts(("episodes",), quick, folder_of(_run))


def run_parts(parts: Sequence[str], quick: bool, folder: Path) -> dict[str, Any]:
    """Run these parts and write what they gave to ``folder``.

    Raises ValueError for a part there is none of, AssertionError where two sides do not compute the same.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"There is no benchmark {', '.join(map(repr, unknown))}; choose from {', '.join(PARTS)}.")
    result: dict[str, Any] = {"machine": machine(), "quick": quick, "seconds": {}, "rows": []}
    for part in with_progress(parts, "benchmarks", "parts", not quick):
        began = time.perf_counter()
        found = importlib.import_module(f"experiments.benchmarks.{part}").rows(quick)
        result["rows"] += [{"part": part, **row} for row in found]
        result["seconds"][part] = time.perf_counter() - began
        print("\n" + plain(HEADINGS, [_cells(row) for row in found]))
    if "sampling" in parts:
        from experiments.benchmarks.sampling import curve

        result["curve"] = curve(quick)
        save_figure(time_against_pixels(result["curve"], result["machine"]), folder / PICTURE)
    result["folder"] = str(folder)
    write_atomically(folder / RECORD, json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(folder / "benchmark.md", document(result).encode())
    print(f"\n{_hardware(result['machine'])}\n{folder / 'benchmark.md'}")
    return result


def table(result: Mapping[str, Any]) -> str:
    """Hardware and the table in Markdown."""
    return f"{_hardware(result['machine'])}\n\n{markdown(HEADINGS, [_cells(row) for row in result['rows']])}"


def document(result: Mapping[str, Any]) -> str:
    """The report in Markdown: hardware, table, and what else each row says."""
    rows = result["rows"]
    lines = [table(result)]
    if result["quick"]:
        lines.insert(0, "Quick mode: sizes so small that the times say nothing about speed.\n")
    shown = {"part", "name", "ours_s", "peer_s", "ratio", "bar", "share"}
    for row in rows:
        more = [f"{key} {value:.4g}" for key, value in row.items() if key not in shown and isinstance(value, float)]
        if more:
            lines.append(f"- {row['name']}: {', '.join(more)}")
    return "\n".join(lines) + "\n"


def time_against_pixels(points: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> Figure:
    """Seconds an image against its pixels, a line a sampler, both axes logarithmic."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in dict.fromkeys(point["sampler"] for point in points):
        own = [point for point in points if point["sampler"] == name]
        axes.plot(
            [point["pixels"] for point in own], [point["seconds"] for point in own], "o-", markersize=4, label=name
        )
    axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel="seconds an image, batch 1")
    axes.set_title(f"{machine['processor']}, {machine['threads']} threads", fontsize=9, wrap=True)
    axes.grid(alpha=0.3, which="both")
    legend_beside(axes)
    return figure


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "ratio" not in row:
        return [str(row["name"]), "", "", f"{row['share']:.2%} of the time", ""]
    bar = row.get("bar")
    times = [_duration(row["ours_s"]), _duration(row["peer_s"])]
    return [str(row["name"]), *times, f"{row['ratio']:.2f}x", "" if bar is None else f"{bar:.3g}x"]


def _duration(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _hardware(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['capability']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"Python {machine['python']}; a ratio is the peer's time over ours"
    )


if __name__ == "__main__":
    main(experiment)

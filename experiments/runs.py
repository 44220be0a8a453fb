"""Find runs again: ``python -m experiments.runs list model.name=attention status=COMPLETED --sort cautious``.

list    runs that match all filters (NAME=VALUE, also != < <= > >=), as a table or JSON
show    one run: status, where it came from, settings, results, files, and where its curves are not its record
diff    the settings in which two runs differ
prune   remove the runs that match, after a question; runs that others came from, and running ones, stay
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments.recording.flat_configs import differences
from experiments.recording.root import runs_root
from experiments.recording.run_filters import FilterError, parse_filter
from experiments.recording.run_table import RunRecord, read_run, read_runs, select, sort_runs

COLUMNS = ["run", "status", "experiment", "name", "started", "seconds", "task.name", "model.name", "parents"]
COLUMNS += ["score", "command", "comment"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 1 where something asked for is not there."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not {"list", "show", "diff", "prune", "-h", "--help"} & set(given):
        given.insert(0, "list")
    parser = argparse.ArgumentParser(
        "python -m experiments.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=None, help="folder of the runs; METADENSITY_RUNS, or runs/")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="a table of runs")
    listing.add_argument("filters", nargs="*", metavar="NAME=VALUE")
    listing.add_argument("--sort", metavar="NAME", help="a setting or a metric; the smallest first")
    listing.add_argument("--descending", action="store_true")
    listing.add_argument("--columns", metavar="A,B", help="further columns: settings or metrics")
    listing.add_argument("--limit", type=int, default=None, help="at most so many")
    listing.add_argument("--json", action="store_true", help="everything known of each, as JSON lines")
    show = commands.add_parser("show", help="one run")
    show.add_argument("run")
    diff = commands.add_parser("diff", help="settings that differ between two runs")
    diff.add_argument("one")
    diff.add_argument("other")
    prune = commands.add_parser("prune", help="remove runs")
    prune.add_argument("filters", nargs="+", metavar="RUN or NAME=VALUE")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    for command in (listing, show, diff, prune):  # also after the command
        command.add_argument("--root", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    try:
        return int({"list": _list, "show": _show, "diff": _diff, "prune": _prune}[options.command](options))
    except (FilterError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # list | head
        sys.stderr.close()
        return 0


def _list(options: argparse.Namespace) -> int:
    records = select(read_runs(options.root), options.filters)
    if options.sort:
        records = sort_runs(records, options.sort, options.descending)
    elif options.descending:
        records = records[::-1]
    records = records[: options.limit]
    if options.json:
        for record in records:
            print(json.dumps({**record.values(), "folder": str(record.folder)}))
        return 0
    extra = [name for name in (options.columns or "").split(",") if name]
    used = [parse_filter(text)[0] for text in options.filters] + ([options.sort] if options.sort else [])
    print(table(records, [*COLUMNS, *(name for name in [*extra, *used] if name not in COLUMNS)]))
    return 0


def table(records: Sequence[RunRecord], columns: Iterable[str]) -> str:
    """Runs in columns; a column that no run has is left out."""
    values = [record.values() for record in records]
    names = [name for name in dict.fromkeys(columns) if any(found.get(name) not in (None, "", []) for found in values)]
    rows = [[_cell(found.get(name)) for name in names] for found in values]
    text = tabulate(rows, names, "simple", disable_numparse=True)
    return f"{text}\n{len(records)} {'run' if len(records) == 1 else 'runs'}" if records else "No run matches."


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _find(name: str, root: Path | None) -> RunRecord:
    folder = Path(name) if Path(name).is_dir() else (root or runs_root()) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run {name}: neither {name} nor {folder} is a folder.")
    return read_run(folder)


def _show(options: argparse.Namespace) -> int:
    record = _find(options.run, options.root)
    print(f"{record.folder}: {record.experiment or 'unknown experiment'}, {record.status}")
    if record.problem:
        print(f"  the record is damaged: {record.problem}")
    if record.started:
        print(f"  started {record.started} UTC" + (f", {record.seconds:.0f} s" if record.seconds is not None else ""))
    for what in ("score", "command", "comment"):
        if said := getattr(record, what):
            print(f"  {what}: {said}")
    for parent in record.lineage.get("parents", []):
        step = f" at step {parent['step']}" if parent.get("step") is not None else ""
        print(f"  {record.lineage['kind']} from {parent['run']}{step}: {parent['file']} {parent['sha256'][:16]}")
    if record.lineage.get("episodes_sha256"):
        print(f"  episodes {record.lineage['episodes_sha256'][:16]}")
    for title, found in (("settings", record.config), ("results", record.metrics)):
        print(f"{title}:")
        for key in sorted(found):
            print(f"  {key}: {found[key]!r}" if title == "settings" else f"  {key}: {_cell(found[key])}")
    for line in _curves(record):
        print(line)
    print("files:")
    for path in sorted(path for path in record.folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        print(f"  {path.relative_to(record.folder)}  {path.stat().st_size:,} bytes")
    return 0


def _curves(record: RunRecord) -> Iterator[str]:
    """What is to be known of a run's curves in TensorBoard: whether they are those of its record."""
    if record.status == "RUNNING" or not (record.folder / "tensorboard").is_dir():
        return  # TensorBoard writes in its own time
    from experiments.recording.event_files import differences as event_differences
    from metadensity.files import DamagedFileError

    try:
        found = event_differences(record.folder)
    except (DamagedFileError, RuntimeError) as error:
        found = [str(error)]
    if not found:
        yield "curves: the event files in tensorboard/ have every number of metrics.jsonl"
        return
    yield "curves: the event files in tensorboard/ differ from metrics.jsonl, which is the record:"
    yield from (f"  {line}" for line in found)


def _diff(options: argparse.Namespace) -> int:
    one, other = (_find(name, options.root) for name in (options.one, options.other))
    for record in (one, other):
        if not record.config:
            raise FileNotFoundError(f"The settings of {record.folder} cannot be read: {record.problem}.")
    changed = differences(one.config, other.config)
    if not changed:
        print(f"{one.run} and {other.run} have the same settings.")
        return 0
    width = max(map(len, changed))
    print(f"{'':{width}}  {one.run} -> {other.run}")
    for key, (before, after) in changed.items():
        print(f"{key:{width}}  {before!r} -> {after!r}")
    return 0


def prunable(records: Sequence[RunRecord], chosen: Sequence[RunRecord]) -> tuple[list[RunRecord], dict[str, str]]:
    """Of the chosen runs those that may be removed, and of the others the reason, by run.

    A run stays that is running, or that a run which stays came from: removing it would leave that one a mystery.
    """
    remove = {record.run for record in chosen}
    kept = {record.run: "it is running" for record in chosen if record.status == "RUNNING"}
    remove -= kept.keys()
    while True:
        needed = {
            parent: f"run {record.run} came from it"
            for record in records
            if record.run not in remove
            for parent in record.parents
            if parent in remove
        }
        if not needed:
            return [record for record in chosen if record.run in remove], kept
        kept |= needed
        remove -= needed.keys()


def _prune(options: argparse.Namespace) -> int:
    root = options.root or runs_root()
    records = read_runs(root)
    named = [text for text in options.filters if (root / text).is_dir()]
    chosen = [record for record in records if record.run in named]
    filters = [text for text in options.filters if text not in named]
    if filters:
        chosen += [record for record in select(records, filters) if record.run not in named]
    remove, kept = prunable(records, chosen)
    for run, reason in kept.items():
        print(f"Run {run} stays: {reason}.")
    if not remove:
        print("Nothing to remove.")
        return 0
    print(table(remove, COLUMNS))
    if not options.yes:
        try:
            answer = input(f"Remove {len(remove)} runs with all their files from {root}? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 1
    for record in remove:
        shutil.rmtree(record.folder)
    print(f"Removed {len(remove)} runs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

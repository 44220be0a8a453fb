"""Many trainings, by any number of workers: ``python -m experiments.sweep plan sweep.yaml --to sweep.jsonl``.

plan     write the units of a sweep, a training each: from a file, from the command line, or those of a study
work     do units: begin, go on with what was begun, or say that nothing is left; safe to start any number of times
submit   send those that are left to Slurm as an array
search   units that Optuna proposes, by any number of workers
table    units with their states, runs and best validation

Exit statuses of work: 0, all units asked for are finished; 75, some are stopped or held by other workers: call again;
1, some failed; 2, nothing could be done; 130, Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tabulate import tabulate

from experiments.studies.slurm_script import batch_script, send
from experiments.studies.units import HeldError, Lease, State, Unit, chosen, leased, read_units, state_of

FAILED, MISTAKE, LATER, INTERRUPTED = 1, 2, 75, 130  # 75: EX_TEMPFAIL
COLUMNS = ("unit", "name", "state", "runs", "best", "holder")
SOURCES = ("train", "shots_grid", "split_sensitivity", "reproduce")


class Stopped(KeyboardInterrupt):
    """A signal asked the worker to end, outside of training."""


class Observer:
    """Sacred's observer by which a run is named to its unit, and the unit's lease renewed with the run's heartbeat."""

    priority = 0  # after the files, whose number the run has

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    def started_event(self, _id: Any, **_: Any) -> Any:
        """Name the run."""
        self.lease.note_run(str(_id))
        return _id

    def heartbeat_event(self, **_: Any) -> None:
        """Renew the lease. Where another worker has it by now, end as if this one were asked to."""
        try:
            self.lease.renew()
        except HeldError as error:
            print(error, file=sys.stderr)
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name: str) -> Any:
        """The other events, which say nothing here."""
        if name.endswith("_event") or name in ("log_metrics", "join"):
            return lambda *_, **__: None
        raise AttributeError(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words: list[str] = []
    if "with" in given:
        given, words = given[: given.index("with")], given[given.index("with") + 1 :]
    options = _parser().parse_args(given)
    options.words = words
    try:
        with _stopping():
            done = {"plan": _plan, "work": _work, "search": _search, "submit": _submit, "table": _table}[
                options.command
            ](options)
            return int(done)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return LATER
    except KeyboardInterrupt as interrupted:
        print(str(interrupted) or "Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        from experiments.recording.mistakes import is_mistake, sentence

        if not is_mistake(error):
            raise
        print(sentence(error), file=sys.stderr)
        return MISTAKE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m experiments.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser(
        "plan", help="write the units of a sweep", epilog="Settings and named configurations come after all, by: with"
    )
    plan.add_argument("source", help=f"a JSON or YAML file of named, updates, grid, seeds; or {', '.join(SOURCES)}")
    plan.add_argument("table", nargs="?", help="of reproduce: which table")
    plan.add_argument("--to", type=Path, required=True, metavar="FILE", help="the sweep, a line a unit")
    plan.add_argument(
        "--grid", action="append", default=[], metavar="NAME=[A,B]", help="values of a setting; repeat it"
    )
    plan.add_argument("--seeds", metavar="0-4", help="seeds of each: places, as 0-4 or 0,1,5")
    work = commands.add_parser("work", help="do units of a sweep")
    work.add_argument(
        "--units", metavar="3", help="by place, 3, 0-4 or 0,2,5-7, or by hash; without it all that are left"
    )
    search = commands.add_parser(
        "search", help="do units that Optuna proposes", epilog="Settings and named configurations come last, by: with"
    )
    search.add_argument(
        "--vary", action="append", required=True, metavar="NAME=LOW..HIGH", help="or NAME=[A,B]; repeat it"
    )
    search.add_argument("--trials", type=int, required=True, metavar="N", help="how many units, of all workers")
    search.add_argument("--sampler-seed", type=int, default=0, metavar="N", help="of what Optuna draws")
    submit = commands.add_parser("submit", help="send what is left to Slurm")
    submit.add_argument("--dry", action="store_true", help="print the script only")
    submit.add_argument("--at-once", type=int, metavar="N", help="at most so many at a time")
    submit.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="as --sbatch=--mem=4G; repeat it"
    )
    table = commands.add_parser("table", help="states of the units")
    table.add_argument("--json", action="store_true", help="as JSON lines")
    table.add_argument("--left", action="store_true", help="only the places of the units that are not finished")
    table.add_argument("--runs", action="store_true", help="only the finished runs, as a list for runs=")
    for command in (work, search, submit, table):
        command.add_argument("file", type=Path, help="the sweep, that plan wrote or search adds to")
    return parser


def _plan(options: argparse.Namespace) -> int:
    from experiments.studies.planning import find_made
    from metadensity.files import write_atomically

    units = {unit.id: unit for unit in _planned(options)}
    if options.to.exists() and (before := read_units(options.to)) != list(units.values())[: len(before)]:
        raise ValueError(
            f"{options.to} holds other units, which workers may have been sent to by their places. Name another file; "
            "what was trained is found from there as well."
        )
    find_made(units.values())
    write_atomically(options.to, "".join(unit.line() + "\n" for unit in units.values()).encode())
    finished = sum(state_of(unit).finished is not None for unit in units.values())
    print(f"{options.to}: {len(units)} units, of which {finished} are finished.")
    print(f"python -m experiments.sweep work {options.to}")
    return 0


def _planned(options: argparse.Namespace) -> Iterator[Unit]:
    """The units asked for, those that others begin with before them."""
    from sacred.arg_parser import get_config_updates

    from experiments.studies.planning import Plan, read_plan, unit_of

    source, grid = options.source, dict(map(_axis, options.grid))
    seeds = [] if options.seeds is None else _numbers(options.seeds)
    updates, named = get_config_updates(options.words)
    if source not in SOURCES:
        if grid or seeds or options.words:
            raise ValueError(f"{source} says all of its sweep; give no grid, seeds or settings beside a file.")
        for plan in read_plan(Path(source)):
            yield from plan.units()
    elif source == "train":
        yield from Plan(named, updates, grid, seeds).units()
    elif grid or seeds:
        raise ValueError(f"{source} says itself which trainings it asks for; leave out --grid and --seeds.")
    elif source == "shots_grid":
        from experiments import shots_grid

        config = shots_grid.experiment.configuration(named, updates)
        for each in shots_grid.trainings(config["training"], config["train_shots"]):
            yield unit_of({**_kept(config), "training": each}, f"training.shots={each['shots']}")
    elif source == "split_sensitivity":
        from experiments import split_sensitivity

        config = split_sensitivity.experiment.configuration(named, updates)
        for task in split_sensitivity.plan(config["task"], config["kinds"], config["split_seeds"]):
            name = f"{task.get('split_by') or 'committed'} {task.get('split_seed', 0)}"
            yield unit_of({**_kept(config), "task": task}, name)
    else:
        yield from _of_a_table(options.table, named, updates)


def _of_a_table(table: str | None, named: Sequence[str], updates: Mapping[str, Any]) -> Iterator[Unit]:
    """The trainings of a table of ``reproduce``."""
    from experiments import reproduce
    from experiments.reproductions import PLANS
    from experiments.reproductions.trained import trainings
    from experiments.studies.planning import unit_of

    if table not in PLANS:
        raise ValueError(f"There is no table {table!r}; give one of {', '.join(PLANS)}, as in: plan reproduce omniglot")
    config = reproduce.experiment.configuration(named, updates)
    plan, weights = PLANS[table], config["weights"]
    if config["folder"] is not None:
        plan, weights = plan.on(str(Path(config["folder"]).resolve())), None
    made: dict[str, Unit] = {}
    for each in trainings(plan, config["only"] or plan.rows, weights, config["fast"], config["device"]):
        first = None if each.begins_with is None else made[each.begins_with]
        made[each.entry] = unit_of(each.config, f"{table} {each.entry}", first)
    yield from made.values()


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("task", "model", "training", "seed")}


def _axis(text: str) -> tuple[str, Any]:
    from sacred.arg_parser import get_config_updates

    from experiments.recording.flat_configs import flatten

    if "=" not in text:
        raise ValueError(
            f"--grid {text}: give a setting and its values, such as training.learning_rate=[0.001,0.0003]."
        )
    ((name, values),) = flatten(get_config_updates([text])[0]).items()
    return name, values


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise ValueError(f"--seeds {text}: give whole numbers, such as 0-4 or 0,1,5.")
        found += range(int(first), int(last or first) + 1)
    return found


def _work(options: argparse.Namespace) -> int:
    units = read_units(options.file)
    known = {unit.id: unit for unit in units}
    settings = _settings_elsewhere(options.words)
    statuses = set()
    for unit in units if options.units is None else chosen(units, options.units):
        try:
            work(unit, known, settings)
        except HeldError as error:
            print(error)
            statuses.add(LATER)
        except Exception as error:  # one unit that fails is no reason to leave the others
            _said(unit, error)
            statuses.add(FAILED)
    return next((status for status in (FAILED, LATER) if status in statuses), 0)


def _said(unit: Unit, error: Exception) -> None:
    """Print why a unit failed. Raises Stopped or KeyboardInterrupt where it was asked to end, as the worker then is."""
    from sacred.utils import SacredInterrupt

    from experiments.recording.mistakes import is_mistake, sentence

    if isinstance(error, SacredInterrupt):
        interrupted = getattr(error, "exit_status", LATER) == INTERRUPTED
        raise (KeyboardInterrupt if interrupted else Stopped)(str(error)) from None
    if is_mistake(error):
        print(f"{unit.name}: {sentence(error)}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def work(unit: Unit, known: Mapping[str, Unit], settings: Mapping[str, Any] | None = None) -> State:
    """Do a unit: nothing where it is finished, what is left where it was begun. Returns its state then.

    known: units by their ids, as another may come first. settings: of where and how to train, which change no weights.

    Raises HeldError where another worker is at it, and as the training does.
    """
    state = state_of(unit)
    if state.finished is None and unit.begins_with is not None:
        work(known[unit.begins_with], known, settings)
    if state.finished is None:
        from experiments import train  # noqa: F401  may take minutes on a network disk, during which no lease is renewed

        with leased(unit) as lease:
            state = state_of(unit)  # another worker may have finished it meanwhile
            if state.finished is None:
                _train(unit, known, state.to_resume, lease, settings or {})
                return state_of(unit)
    assert state.finished is not None
    print(f"{unit.name}: nothing to do, {state.finished.folder} has done it.")
    return state


def _train(
    unit: Unit, known: Mapping[str, Unit], resume: Path | None, lease: Lease, settings: Mapping[str, Any]
) -> None:
    from experiments import train
    from experiments.recording.command_line import recorded_in
    from experiments.recording.headlines import last_line
    from experiments.recording.root import runs_root
    from experiments.studies.planning import begun_with
    from experiments.studies.same_training import ELSEWHERE

    config = begun_with(unit, known)
    assert config is not None, "the unit that it begins with is finished"
    print(f"{unit.name}: " + (f"going on with {resume}" if resume else "beginning"))
    beside = {"resume": None if resume is None else str(resume), "allow": sorted(ELSEWHERE)}
    updates = {**config, **beside, "progress": sys.stderr.isatty()}
    for name, value in settings.items():
        group, _, option = name.rpartition(".")
        if group:
            updates[group] = {**updates[group], option: value}
        else:
            updates[name] = value
    with recorded_in(train.experiment, runs_root()):
        train.experiment.observers.append(Observer(lease))
        print(last_line("train", train.experiment.run(config_updates=updates).result))


def _settings_elsewhere(words: Sequence[str]) -> dict[str, Any]:
    """Settings of a worker. Raises ValueError for those that would make it another unit."""
    if not words:
        return {}
    from sacred.arg_parser import get_config_updates

    from experiments.recording.flat_configs import flatten
    from experiments.studies.same_training import ELSEWHERE

    updates, named = get_config_updates(list(words))
    given, may = flatten(updates), sorted({*ELSEWHERE, "keep", "progress", "require_same_bits"})
    if wrong := [*named, *(given.keys() - set(may))]:
        raise ValueError(f"work takes no {wrong[0]}, as the unit would be another one; it takes {', '.join(may)}.")
    return given


def _search(options: argparse.Namespace) -> int:
    from sacred.arg_parser import get_config_updates
    from sacred.utils import SacredInterrupt

    from experiments.studies.searching import read_range, search

    pairs = [text.partition("=") for text in options.vary]
    ranges = {name: read_range(name, text) for name, _, text in pairs}
    updates, named = get_config_updates(options.words)

    def do(unit: Unit) -> State:
        return work(unit, {unit.id: unit})

    status = 0
    try:
        for number, unit, found in search(
            options.file, ranges, named, updates, options.trials, options.sampler_seed, do
        ):
            if isinstance(found, Exception):
                _said(unit, found)
                status = FAILED
            else:
                print(f"trial {number}, {unit.name}: {_cell(found) or 'no validation'}")
    except SacredInterrupt as stopped:
        interrupted = getattr(stopped, "exit_status", LATER) == INTERRUPTED
        raise (KeyboardInterrupt if interrupted else Stopped)(str(stopped)) from None
    return status


def _submit(options: argparse.Namespace) -> int:
    units = read_units(options.file)
    left = [place for place, unit in enumerate(units) if state_of(unit).finished is None]
    if not left:
        print(f"Nothing to do: all {len(units)} units of {options.file} are finished.")
        return 0
    script = batch_script(options.file.resolve(), left, options.at_once, options.sbatch)
    print(script if options.dry else send(script), end="" if options.dry else "\n")
    return 0


def _table(options: argparse.Namespace) -> int:
    units = read_units(options.file)
    states = [state_of(unit) for unit in units]
    if options.left:
        print("\n".join(str(place) for place, state in enumerate(states) if state.finished is None))
    elif options.runs:
        print(json.dumps([str(state.finished.folder) for state in states if state.finished is not None]))
    elif options.json:
        for place, (unit, state) in enumerate(zip(units, states, strict=True)):
            print(json.dumps({"place": place, **_row(unit, state), "config": unit.config}))
    else:
        pairs = enumerate(zip(units, states, strict=True))
        rows = [[str(place), *map(_cell, _row(*each).values())] for place, each in pairs]
        print(tabulate(rows, ["", *COLUMNS], "simple", disable_numparse=True))
        counts = Counter(state.status for state in states)
        print(", ".join(f"{counts[status]} {status}" for status in sorted(counts)) or "no units")
    return 0


def _row(unit: Unit, state: State) -> dict[str, Any]:
    values = (unit.id, unit.name, state.status, [run.run for run in state.runs], state.best, state.holder)
    return dict(zip(COLUMNS, values, strict=True))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


@contextmanager
def _stopping() -> Iterator[None]:
    """Within this, signals that batch systems send end the worker, and what it has begun can be gone on with."""

    def stop(number: int, _: Any) -> NoReturn:
        raise Stopped(f"Stopped by {signal.Signals(number).name}; the same command goes on.")

    heard = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    try:
        before = {number: signal.signal(number, stop) for number in heard}
    except ValueError:  # not the main thread, which alone may handle signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())

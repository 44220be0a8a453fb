"""Units of a sweep, from named configurations, a grid and seeds, and the runs there are of them already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sacred.config import load_config_file

from experiments import train
from experiments.ingredients import training_config
from experiments.recording.flat_configs import flatten
from experiments.recording.root import runs_root
from experiments.recording.run_table import read_runs
from experiments.studies.same_training import KEPT, config_hash
from experiments.studies.units import Unit, note_runs, state_of

PARTS = ("named", "updates", "grid", "seeds")


@dataclass(frozen=True)
class Plan:
    """Trainings: every choice of the grid, with every seed.

    named: named configurations of experiments.train. updates: settings beside them, nested or dotted. grid: the values
    of each setting; of ``named`` further named configurations, several in one text or list. seeds: of ``seed``.
    """

    named: Sequence[str] = ()
    updates: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] = ()

    def units(self) -> Iterator[Unit]:
        """Each training. Raises SettingError or ValueError for what no training can begin with."""
        axes = {**self.grid, **({"seed": self.seeds} if self.seeds else {})}
        for name, values in axes.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"The values of {name} are {values!r}; give a list of them, such as [0, 1, 2].")
        if "resume" in {**flatten(self.updates), **axes}:
            raise ValueError("resume is given, but a unit resumes what is begun of it by itself. Leave it out.")
        for choice in itertools.product(*axes.values()):
            given = dict(zip(axes, choice, strict=True))
            more = given.pop("named", ())
            words = more.split() if isinstance(more, str) else list(more)
            config = train.experiment.configuration((*self.named, *words), {**flatten(self.updates), **given})
            said = [*words, *(f"{name}={value}" for name, value in given.items())]
            yield unit_of(config, " ".join(said or self.named or ["train"]))


def read_plan(path: Path) -> list[Plan]:
    """The plans of a file, JSON or YAML: one with named, updates, grid and seeds, or a list of such.

    Raises ValueError where it holds anything else.
    """
    try:
        found = load_config_file(str(path))
    except Exception as error:  # of whichever parser the suffix asks for
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    plans = []
    for each in found if isinstance(found, list) else [found]:
        if not isinstance(each, Mapping) or (unknown := each.keys() - set(PARTS)):
            what = f"has {', '.join(sorted(unknown))}" if isinstance(each, Mapping) else f"holds {each!r}"
            raise ValueError(f"{path} {what}; a plan has {', '.join(PARTS)}, or is a list of such.")
        known = {name: value for name, value in each.items() if value is not None}
        named = known.get("named", ())
        plans.append(Plan(**{**known, "named": named.split() if isinstance(named, str) else list(named)}))
    return plans


def unit_of(config: Mapping[str, Any], name: str, begins_with: Unit | None = None) -> Unit:
    """A training as a unit. begins_with: the unit whose weights it begins with.

    Raises ValueError for settings that no training can begin with.
    """
    training_config(config["training"], config["seed"])  # found out before hours of training, not after
    kept = {key: config.get(key) for key in KEPT} | ({} if config.get("validate", True) else {"validate": False})
    if begins_with is None:
        return Unit(config_hash(kept), name, kept)
    return Unit(config_hash(kept, begins_with=begins_with.id), name, kept, begins_with.id)


def find_made(units: Iterable[Unit]) -> None:
    """Name to each unit the runs of experiments.train that are its own by their configuration, but running ones.

    All runs are read once, here, and not again by workers.
    """
    if not runs_root().is_dir():
        return
    made: dict[str, list[str]] = {}
    for record in read_runs():
        if record.experiment == "train" and record.status not in ("RUNNING", "UNKNOWN"):
            made.setdefault(config_hash(record.config), []).append(record.run)
    known = {unit.id: unit for unit in units}
    for unit in known.values():
        config = begun_with(unit, known)
        if config is not None:
            note_runs(unit, made.get(config_hash(config), ()))


def begun_with(unit: Unit, units: Mapping[str, Unit]) -> dict[str, Any] | None:
    """A unit's configuration with the weights that it begins with; None where these are not there yet."""
    if unit.begins_with is None:
        return dict(unit.config)
    first = state_of(units[unit.begins_with]).finished
    return None if first is None else {**unit.config, "initial": str(first.folder / "checkpoints" / "best.safetensors")}

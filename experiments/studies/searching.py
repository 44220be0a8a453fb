"""Units that Optuna proposes: a search over settings, whose state is a journal beside the sweep.

Any number of workers search at once. Each takes up first what a worker left that died, then asks for what is new until
there are as many units as wanted. A trial is a unit, and its value the unit's best validation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sacred.utils import SacredInterrupt

from experiments.studies.planning import Plan
from experiments.studies.units import RUNNING, HeldError, State, Unit, read_units, state_of
from metadensity.files import write_atomically

if TYPE_CHECKING:
    import optuna

WIDE = 10  # ranges whose ends differ by as much are searched by their logarithm
_UNIT = "unit"  # of a trial, the hash of its unit


@dataclass(frozen=True)
class Range:
    """What a setting may be: from low to high, whole numbers where both are; or one of some values."""

    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()

    def suggested(self, trial: optuna.Trial, name: str) -> Any:
        """What Optuna proposes."""
        if self.values:  # it takes no lists
            return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in self.values]))
        wide = self.low > 0 and self.high / self.low >= WIDE
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=wide)
        return trial.suggest_float(name, self.low, self.high, log=wide)


def read_range(name: str, text: str) -> Range:
    """``1e-4..1e-2``, ``2..8`` or a JSON list. Raises ValueError for anything else."""
    try:
        if text.lstrip().startswith("["):
            values = json.loads(text)
            if len(values) > 1:
                return Range(values=tuple(values))
        low, high = (json.loads(part) for part in text.split(".."))
        if low < high:
            return Range(low, high)
    except (ValueError, TypeError):
        pass
    raise ValueError(
        f"--vary {name}={text}: give a range from the lower to the higher number, such as 1e-4..1e-2 or 2..8, or a "
        'list of at least two values, such as ["dot","additive"].'
    )


def search(
    file: Path,
    ranges: Mapping[str, Range],
    named: Sequence[str],
    updates: Mapping[str, Any],
    trials: int,
    seed: int,
    work: Callable[[Unit], State],
) -> Iterator[tuple[int, Unit, float | Exception | None]]:
    """Do units of the search until there are ``trials``; gives the number, unit and value of each, or why it failed.

    file: the sweep that units are added to, ``FILE.journal`` beside it is Optuna's. work: does a unit.
    seed: of what Optuna draws; with several workers the order in which they ask counts as well.

    Raises ImportError where Optuna is not installed, ValueError where the journal is of another search, SacredInterrupt
    where ``work`` was interrupted: that trial is taken up again.
    """
    study = _study(file, ranges, named, updates, seed)
    while True:
        trial = _left(study, file, work) or _asked(study, file, ranges, named, updates, trials)
        if trial is None:
            return
        number, unit = trial
        found: float | Exception | None
        try:
            found = work(unit).best
        except (HeldError, SacredInterrupt) as error:  # what was interrupted is taken up again
            if isinstance(error, HeldError):
                continue
            raise
        except Exception as error:
            found = error
        value = found if isinstance(found, float) else None
        study.tell(number, value, None if value is not None else _states().FAIL, skip_if_finished=True)
        yield number, unit, found


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _study(
    file: Path, ranges: Mapping[str, Range], named: Sequence[str], updates: Mapping[str, Any], seed: int
) -> optuna.Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ImportError(f"A search needs Optuna: pip install 'metadensity[search]' ({error}).") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = {name: vars(each) for name, each in ranges.items()}
    asked = json.dumps([searched, list(named), dict(updates)], sort_keys=True)
    storage = JournalStorage(JournalFileBackend(f"{file}.journal"))
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(storage=storage, sampler=sampler, study_name="sweep", load_if_exists=True)
    with FileLock(f"{file}.lock"):
        before = study.user_attrs.get("asked")
        if before is None:
            study.set_user_attr("asked", asked)
        elif before != asked:
            raise ValueError(f"{file}.journal is of another search, {before}. Name another file.")
    return study


def _left(study: optuna.Study, file: Path, work: Callable[[Unit], State]) -> tuple[int, Unit] | None:
    """A trial that was begun and that no worker holds; None where there is none."""
    units = {unit.id: unit for unit in read_units(file)} if file.exists() else {}
    for trial in study.get_trials(deepcopy=False, states=[_states().RUNNING]):
        unit = units.get(trial.user_attrs.get(_UNIT, ""))
        if unit is not None and state_of(unit).status != RUNNING:
            return trial.number, unit
    return None


def _asked(
    study: optuna.Study,
    file: Path,
    ranges: Mapping[str, Range],
    named: Sequence[str],
    updates: Mapping[str, Any],
    trials: int,
) -> tuple[int, Unit] | None:
    """A new trial, whose unit is added to the file; None where there are enough."""
    with FileLock(f"{file}.lock"):
        there = study.get_trials(deepcopy=False)
        for dead in (each for each in there if each.state == _states().RUNNING and _UNIT not in each.user_attrs):
            study.tell(dead.number, state=_states().FAIL)  # its worker died within this lock
        if sum(_UNIT in each.user_attrs for each in there) >= trials:
            return None
        trial = study.ask()
        given = {name: each.suggested(trial, name) for name, each in ranges.items()}
        (unit,) = Plan(named, updates, {name: [value] for name, value in given.items()}).units()
        known = read_units(file) if file.exists() else []
        if unit.id not in {each.id for each in known}:
            write_atomically(file, "".join(each.line() + "\n" for each in (*known, unit)).encode())
        trial.set_user_attr(_UNIT, unit.id)
        return trial.number, unit

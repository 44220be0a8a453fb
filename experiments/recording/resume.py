"""Resuming a run from its newest checkpoint, only where the configuration is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.recording.flat_configs import differences
from experiments.recording.run_folder import RunFolder, step_of
from experiments.recording.run_table import read_run
from metadensity.files import DamagedFileError, read_header, read_tensors, write_atomically


class ChangedConfigError(ValueError):
    """A resumed run would not be the run it goes on from."""


class NothingToDoError(ValueError):
    """A run to resume is finished. To a shell this is a success, so that a job may resume until it is done."""

    exit_status = 0


def require_steps_left(run: RunFolder, steps: int) -> None:
    """Raise NothingToDoError where ``run`` is completed at the last step, ValueError where it is past that.

    One that was killed after its last step has its record and its samples to finish.
    """
    newest = next((path for path in reversed(run.states()) if _is_whole(path)), None)
    step = 0 if newest is None else step_of(newest)
    more = f"To train on, give more: resume={run.path} training.steps={2 * step} allow=training.steps"
    if step == steps and read_run(run.path).status == "COMPLETED":
        raise NothingToDoError(f"{run.path} has done all of its {steps} steps, so there is nothing to do. {more}")
    if step > steps:
        raise ValueError(f"training.steps={steps}, but {run.path} has done {step} steps already. {more}")


def require_same_config(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    allow: Iterable[str] = (),
) -> None:
    """Raise ChangedConfigError, showing every difference, unless the differing settings are all in ``allow``."""
    allowed = set(allow)
    old = {key: old.get(key) for key in new}
    changed = {key: values for key, values in differences(old, new).items() if key not in allowed}
    if changed:
        lines = "\n".join(f"    {key}: {before!r} -> {after!r}" for key, (before, after) in changed.items())
        raise ChangedConfigError(
            f"The configuration differs from the run to resume:\n{lines}\n"
            "Leave out what is not to change, as the run's own settings are taken then; or name what may: "
            f'allow="{sorted(changed)}".'
        )


def find_resumable(run: str | int) -> RunFolder:
    """A run with states of training, as ``RunFolder.find`` finds it, or that of the state whose file is given.

    Raises FileNotFoundError where there is no such run, or it has no state; ValueError for a file of another kind.
    """
    path = Path(str(run))
    found = (
        RunFolder(path.absolute().parent.parent)
        if path.is_file()
        else RunFolder.find(run, holding="state-*.safetensors")
    )
    states = [state.absolute() for state in found.states()]
    if path.is_file() and path.absolute() not in states:
        raise ValueError(
            f"resume={str(run)!r} is no state of training. Give a run, or one of its checkpoints/state-*.safetensors; "
            f"to begin anew with the weights of a file, give initial={str(run)!r}."
        )
    if not states:
        raise FileNotFoundError(f"{found.path} has no state to resume from: it ended before its first checkpoint.")
    return found


def state_to_resume(run: str | int) -> tuple[RunFolder, Path]:
    """A run to go on from and the state to do it from: its newest, or the one whose file is given.

    Raises as ``find_resumable`` and ``newest_state`` do.
    """
    found, path = find_resumable(run), Path(str(run))
    return found, path if path.is_file() else newest_state(found)


def newest_state(run: RunFolder) -> Path:
    """The newest state of training in a run that can be read; damaged ones are named and passed over.

    Raises FileNotFoundError where the run has no state at all, DamagedFileError where none can be read.
    """
    problems = []
    for path in reversed(find_resumable(str(run.path)).states()):
        try:
            read_tensors(path)
        except DamagedFileError as error:
            problems.append(str(error))
            print(f"{error} Trying the one before it.")
        else:
            return path
    raise DamagedFileError(f"No state of {run.path} can be read:\n" + "\n".join(problems))


def _is_whole(state: Path) -> bool:
    try:
        read_tensors(state)
    except DamagedFileError:
        return False
    return True


def inherit_best(parent: RunFolder, child: RunFolder, step: int) -> Path | None:
    """Copy the best model that ``parent`` had at ``step`` to ``child``, so that a run is whole by itself.

    A parent that was killed may hold a better model of a step after the state to go on from: it is no part of the
    resumed run, which will come by it again. Returns the copy; None where there is none, as nothing had been validated
    by then, or it is damaged, which is said.
    """
    candidates = {step_of(path): path for path in parent.bests()}
    if not candidates and parent.best.is_file():  # runs of earlier versions keep it under this name alone
        candidates = {int(read_header(parent.best)["provenance"]["step"]): parent.best}
    made = max((number for number in candidates if number <= step), default=None)
    if made is None:
        return None
    try:
        read_tensors(candidates[made])
    except DamagedFileError as error:
        print(f"{error} The best model is chosen anew from here on.")
        return None
    data = candidates[made].read_bytes()
    copy = child.checkpoints / f"best-{made:08d}.safetensors"
    write_atomically(copy, data)
    write_atomically(child.best, data)
    return copy

"""Going on from an earlier run, only where its configuration is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.run_folder import RunFolder
from metadensity.files import DamagedFileError, read_tensors


class ChangedConfigError(ValueError):
    """A resumed run would not be the run it goes on from."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"task": {"size": 20}}`` as ``{"task.size": 20}``, tuples as lists."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, with both values; a setting absent on one side is None there."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def require_same_config(old: Mapping[str, Any], new: Mapping[str, Any], allow: Iterable[str] = ()) -> None:
    """Raise ChangedConfigError, showing every difference, unless the differing settings are all in ``allow``."""
    allowed = set(allow)
    old = {key: old.get(key) for key in new}
    changed = {key: values for key, values in differences(old, new).items() if key not in allowed}
    if changed:
        lines = "\n".join(f"    {key}: {before!r} -> {after!r}" for key, (before, after) in changed.items())
        raise ChangedConfigError(
            f"The configuration differs from the run to resume:\n{lines}\n"
            f"Give the old values, or name what may change, for example allow=\"['{next(iter(changed))}']\"."
        )


def newest_state(run: RunFolder) -> Path:
    """The newest state of training in a run that can be read; damaged ones are named and passed over.

    Raises FileNotFoundError where the run has no state at all, DamagedFileError where none can be read.
    """
    states = run.states()
    if not states:
        raise FileNotFoundError(f"{run.path} has no state to resume from: it ended before its first checkpoint.")
    problems = []
    for path in reversed(states):
        try:
            read_tensors(path)
        except DamagedFileError as error:
            problems.append(str(error))
            print(f"{error} Trying the one before it.")
        else:
            return path
    raise DamagedFileError(f"No state of {run.path} can be read:\n" + "\n".join(problems))

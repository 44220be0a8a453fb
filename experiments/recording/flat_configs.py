"""Configurations by flat and current names, and where two of them differ. Imports nothing heavy: listing is quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"task.least": "task.min_images", "drawn": "generated_episodes"}
"""Settings by the names that earlier versions recorded, and what they are called now."""


def current_names(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration, nested or flat, with its settings under their current names."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = RENAMED.get(f"{prefix}{key}", f"{prefix}{key}").removeprefix(prefix)
        value = current_names(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        if name == key:
            found[key] = value
        else:
            found.setdefault(name, value)  # where both names are given, the current one counts
    return found


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"task": {"size": 20}}`` as ``{"task.size": 20}``, by current names, tuples as lists."""
    return _flat(current_names(config), "")


def _flat(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"task.size": 20}`` as ``{"task": {"size": 20}}``."""
    config: dict[str, Any] = {}
    for name, value in flat.items():
        *parts, last = name.split(".")
        place = config
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, with both values; a setting absent on one side is None there."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }

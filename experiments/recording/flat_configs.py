"""Configurations as flat names, and where two of them differ. Imports nothing heavy: listing runs is to be quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"task": {"size": 20}}`` as ``{"task.size": 20}``, tuples as lists."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
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

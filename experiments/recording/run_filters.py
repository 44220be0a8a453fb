"""Filters of runs by setting or metric: ``model.name=attention``, ``training.steps>=1000``."""

from __future__ import annotations

import contextlib
import difflib
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    **{"<": operator.lt, "<=": operator.le},
    **{">": operator.gt, ">=": operator.ge},
}


class FilterError(ValueError):
    """A filter that cannot be read, or names something that no run has."""


def parse_filter(text: str) -> tuple[str, str, Any]:
    """``model.planes>=24`` as ("model.planes", ">=", 24); the value is JSON where it can be, else text."""
    match = re.fullmatch(r"\s*([\w./ -]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
    if match is None:
        raise FilterError(f"{text!r} is no filter. Write NAME=VALUE, for example model.name=attention or steps>=1000.")
    name, compare, value = match.groups()
    try:
        return name, compare, json.loads(value)
    except ValueError:
        return name, compare, {"None": None, "True": True, "False": False}.get(value, value)


def names_for(name: str, known: Iterable[str]) -> list[str]:
    """The names that ``name`` stands for: itself where any run has it, else those with the same last part."""
    known = set(known)
    if name in known:
        return [name]
    last = name.rpartition(".")[2]
    found = sorted(other for other in known if re.split(r"[./]", other)[-1] == last)
    if not found:
        near = difflib.get_close_matches(name, known, 4, 0.5) or sorted(known)[:8]
        raise FilterError(f"No run has {name!r}. There are, for example: {', '.join(near)}.")
    return found


def holds(values: Mapping[str, Any], names: Iterable[str], compare: str, wanted: Any) -> bool:
    """Whether any of the values under ``names`` compares so with what is wanted."""
    found = [values[name] for name in names if name in values and (values[name] is not None or wanted is None)]
    return any(_compared(value, compare, wanted) for value in found)


def _compared(value: Any, compare: str, wanted: Any) -> bool:
    inside = isinstance(value, list) and not isinstance(wanted, list)
    candidates = value if inside else [value]
    if compare in ("=", "!="):
        # Text equals what it looks like: run=3, though names of folders are text.
        equal = any(item == (str(wanted) if isinstance(item, str) else wanted) for item in candidates)
        return equal == (compare == "=")
    for item in candidates:
        with contextlib.suppress(TypeError):  # text against a number
            if _COMPARE[compare](item, wanted):
                return True
    return False

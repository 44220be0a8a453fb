"""Parameters of notebooks are checked: papermill hands some over as text, and takes names that a notebook has not."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from experiments.recording.settings import SettingError, alike, fitted

OF_IPYTHON = {"In", "Out", "exit", "quit"}
PLAIN = (str, bool, int, float, list, dict, type(None))  # what a parameter can be


def check_parameters(names: Mapping[str, Any], **kinds: Any) -> None:
    """Raise SettingError for a parameter of another kind, for text that was a tuple, and for a name there is not.

    names: all that is defined, ``globals()`` right after the cell of parameters. kinds: by name, those there are.
    """
    given = {
        name
        for name, value in names.items()
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in OF_IPYTHON
    }
    if unknown := sorted(given - kinds.keys()):
        near = alike(unknown[0], kinds)
        meant = f" Did you mean {' or '.join(near)}?" if near else f" There are {', '.join(kinds)}."
        raise SettingError(f"There is no parameter {unknown[0]}.{meant}")
    for name, kind in kinds.items():
        value = names[name]
        if isinstance(value, str) and _was_a_collection(value):
            raise SettingError(
                f"{name}={value!r} is text that was something else: papermill hands a tuple over as text, and so does "
                "-r. Give a list or a mapping, as with -y."
            )
        fitted(name, value, kind)


def _was_a_collection(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text.strip()), tuple | list | dict | set)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False

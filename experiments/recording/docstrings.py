"""What docstrings say of each argument, in the form they have here: ``name: text``, or ``one, other: text``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Set
from typing import Any


def explanations(documented: Any, names: Set[str]) -> dict[str, str]:
    """What the docstrings of a class or function say of its arguments ``names``, by name; some may have nothing.

    The docstring itself counts first, then those of the classes it is made of, then those of classes it refers to in
    backticks. An argument that is only mentioned in what is said of another refers to that.
    """
    found: dict[str, str] = {}
    for text in _docstrings(documented, set()):
        for name, said in _said(text, names).items():
            found.setdefault(name, said)
    for name in names - found.keys():
        if other := next((each for each, said in found.items() if f"``{name}``" in said), None):
            found[name] = f"see {other}"
    return found


def _docstrings(documented: Any, seen: set[int]) -> Iterator[str]:
    if id(documented) in seen:
        return
    seen.add(id(documented))
    kinds = documented.__mro__ if isinstance(documented, type) else (documented,)
    own = [(kind, inspect.cleandoc(kind.__doc__)) for kind in kinds if kind is not object and kind.__doc__]
    for _, text in own:
        yield text
    for kind, text in own:
        for reference in re.findall(r"``([A-Za-z_][\w.]*)``", text):
            other = resolved(reference, sys.modules.get(getattr(kind, "__module__", "")))
            if isinstance(other, type):
                yield from _docstrings(other, seen)


def resolved(name: str, module: Any) -> Any:
    """What a dotted name means in a module, or by itself; None where it means nothing."""
    first, *rest = name.split(".")
    found = getattr(module, first, None)
    if found is None and rest:
        try:
            found, rest = importlib.import_module(".".join([first, *rest[:-1]])), rest[-1:]
        except ImportError:
            return None
    for part in rest:
        found = getattr(found, part, None)
    return found


def _said(text: str, names: Collection[str]) -> dict[str, str]:
    """``name: text`` of one docstring: at the beginning of a line, or further on in what began so."""
    if not names:
        return {}
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    begin = re.compile(rf"(?:^|(?<=[.;)] ))((?:{one})(?:, (?:{one}))*): ")
    found: dict[str, str] = {}
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines():  # a deeper line goes on with the one above it
        places = list(begin.finditer(line))
        if not places or places[0].start() > 0:
            continue
        ends = [place.start() for place in places[1:]] + [len(line)]
        for place, end in zip(places, ends, strict=True):
            said = line[place.end() : end].strip().rstrip(".")
            for name in place[1].split(", "):
                found.setdefault(name, said)
    return found

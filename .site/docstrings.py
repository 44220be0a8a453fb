"""Docstrings in the form they have here, as reStructuredText.

Sentences; what is said of an argument or a field begins with its name, ``one, other: text``, at the beginning of a line
or after a sentence; deeper lines go on with the one above them; a paragraph that stands deeper is a formula.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from experiments.recording.docstrings import resolved

FLOORS = ("metadensity", "tasks", "experiments")
LITERAL = re.compile(r"``(.+?)``")
ERROR = re.compile(r"\b[A-Z]\w+(?:Error|Warning)\b")


def rest(text: str, documented: Any, target: Callable[[Any], str | None]) -> list[str]:
    """Lines of reStructuredText. target: under what name an object has its entry, None where it has none."""
    names = _argument_names(documented)

    def inline(said: str) -> str:
        return _inline(said, sys.modules.get(getattr(documented, "__module__", "") or ""), target)

    found: list[str] = []
    for paragraph in filter(None, re.split(r"\n\s*\n", inspect.cleandoc(text))):
        lines = paragraph.splitlines()
        if all(line.startswith(" ") for line in lines):
            found += ["::", "", *(f"   {line}" for line in lines), ""]
            continue
        for of, said in _items(lines, names):
            if of == ["-"]:
                found += [f"- {inline(said)}", ""]
            elif of:
                found += [", ".join(f"``{name}``" for name in of), f"   {inline(said)}", ""]
            else:
                found += [inline(said), ""]
    return found


def summary(text: str | None) -> str:
    """The first sentence of a docstring."""
    first = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))[0]
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join(first.split()))[0]


def _items(lines: list[str], names: set[str]) -> Iterator[tuple[list[str], str]]:
    """The parts of a paragraph: what each is about (nothing: of no argument; "-": of a list), and its text."""
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)"
    begin = re.compile(rf"(?:^|(?<=[.;)] ))((?:{one})(?:, (?:{one}))*): ")
    parts: list[str] = []
    for line in lines:
        goes_on = parts and (line.startswith(" ") or not (line.startswith("- ") or begin.match(line)))
        of_an_argument = bool(parts) and (parts[-1].startswith("- ") or begin.match(parts[-1]))
        if goes_on and not (of_an_argument and not line.startswith(" ") and parts[-1].endswith(".")):
            parts[-1] += f" {line.strip()}"
        else:
            parts.append(line.strip())
    for part in parts:
        if part.startswith("- "):
            yield ["-"], part[2:]
            continue
        places = list(begin.finditer(part))
        ends = [place.start() for place in places] + [len(part)]
        if before := part[: ends[0]].strip():
            yield [], before
        for place, end in zip(places, ends[1:], strict=True):
            yield place[1].split(", "), part[place.end() : end].strip()


def _argument_names(documented: Any) -> set[str]:
    """What a docstring may speak of by name: arguments, fields and attributes."""
    found: set[str] = set()
    with contextlib.suppress(TypeError, ValueError):
        found |= inspect.signature(documented).parameters.keys()
    for kind in documented.__mro__ if isinstance(documented, type) else ():
        found |= {*vars(kind).get("__annotations__", {})} | {
            name for name, value in vars(kind).items() if not callable(value)
        }
        if dataclasses.is_dataclass(kind):
            found |= {field.name for field in dataclasses.fields(kind)}
    if isinstance(documented, type):
        found |= set(re.findall(r"\bself\.(\w+)", _source(documented)))
    return {name for name in found if not name.startswith("_")}


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _inline(text: str, module: Any, target: Callable[[Any], str | None]) -> str:
    """Text with its literals, as links where they are names of what has an entry; all else stands for itself."""
    parts = LITERAL.split(text)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = _linked(part, module, target) or f"``{part}``"
        else:
            escaped = re.sub(r"([\\*_|`])", r"\\\1", part)
            parts[number] = ERROR.sub(lambda found: _linked(found[0], module, target) or found[0], escaped)
    return "".join(parts)


def _linked(name: str, module: Any, target: Callable[[Any], str | None]) -> str | None:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name):
        return None
    first = name.partition(".")[0]
    if not hasattr(module, first) and first not in FLOORS:  # nothing foreign is imported for a link
        return None
    entry = target(resolved(name, module))
    return f":py:obj:`{name} <{entry}>`" if entry else None

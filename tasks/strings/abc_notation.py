"""Tunes in ABC notation as bars of text. Version 1 of this reading; recipes name it.

A bar is what stands between two bar lines, as it is written: notes, lengths, accidentals, slurs, graces and ornaments,
and the spaces that group notes, one for each run of them. Left out are what is no music or no part of a bar: fields,
comments, text in quotes (chords, fingerings, words), marks such as ``!D.C.!`` and the line breaks ``!`` of old, the
backquotes that stand for nothing, the ``=20`` that mail made of a space, bar lines, repeats and the numbers of endings.
Nothing is made of an accidental: it is a character, and whether it holds to the end of the bar is not asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PARSER = "tasks.strings.abc_notation"
PARSER_VERSION = 1  # raised when the same text begins to give other bars

_FIELD = re.compile(r"[A-Za-z]:(?![|:])")  # "A:|" is a note before a repeat
_INLINE_FIELD = re.compile(r"\[[A-Za-z]:[^\]\n]*\]")
_QUOTED = re.compile(r'"[^"\n]*"')
_MARK = re.compile(r"![^!\s|]+!|[!`]|=20")
_BAR_LINE = re.compile(r"\[\||\|\]|[|:]+(?:\s*\[?\d[\d,.-]*(?![/\d]))?|\[\d[\d,.-]*")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Tune:
    """number: of its field X, as text. titles: of its fields T. bars: in order, none of them empty."""

    number: str
    titles: tuple[str, ...]
    bars: tuple[str, ...]


def read_tunes(text: str) -> list[Tune]:
    """The tunes of an ABC file: each begins with a line ``X:``, its music after the line ``K:`` of its head."""
    tunes: list[Tune] = []
    for part in re.split(r"^(?=X:)", text, flags=re.MULTILINE)[1:]:
        fields: dict[str, list[str]] = {}
        music: list[str] = []
        for line in part.splitlines():
            if line.startswith("%"):
                continue
            if _FIELD.match(line):
                fields.setdefault(line[0], []).append(line[2:].partition("%")[0].strip())
            elif "K" in fields:
                music.append(line)
        titles = tuple(fields.get("T", ()))
        tunes.append(Tune(fields["X"][0], titles, tuple(bars_of("\n".join(music)))))
    return tunes


def bars_of(music: str) -> list[str]:
    """The bars of lines of music, those without a character left out."""
    plain = _QUOTED.sub("", music)
    plain = re.sub(r"\\?[ \t]*(%.*)?$", "", plain, flags=re.MULTILINE)
    plain = _MARK.sub("", _INLINE_FIELD.sub("", plain))
    bars = (_SPACES.sub(" ", bar).strip() for bar in _BAR_LINE.split(plain))
    return [bar for bar in bars if bar]

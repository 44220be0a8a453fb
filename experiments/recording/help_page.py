"""What ``--help`` prints: what an experiment is for, its settings, its named configurations, commands and flags."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sacred.arg_parser import _format_options_usage

from experiments.recording.settings import Setting, in_short

WIDTH = 100


def help_page(
    program: str,
    doc: str,
    settings: Mapping[str, Setting],
    configs: Mapping[str, Mapping[str, Any]],
    commands: Mapping[str, Any],
    options: Sequence[Any],
) -> str:
    """The page. configs: settings of each named configuration, by their whole names."""
    parts = [
        inspect.cleandoc(doc),
        f"Usage:\n  {program} [with NAME SETTING=VALUE ...] [options]\n"
        f"  {program} COMMAND [with NAME SETTING=VALUE ...] [options]\n  {program} help COMMAND",
        "Settings, with their kinds and defaults (print_config shows those of a run):",
        *(f"  {_heading(name, setting)}{_text(setting.text)}" for name, setting in _in_order(settings)),
    ]
    if any(name.endswith(".name") for name in settings):
        parts.append(f"Options belong to the name chosen: {program} with NAME ... --help shows those of another one.")
    if configs:
        parts.append(
            "Named configurations, to be combined. Where two set the same, the later one counts, and what is typed "
            "counts above all:"
        )
        parts += _table({name: _assignments(config) for name, config in configs.items()})
    parts += ["Commands:", *_table({name: _first_line(each) for name, each in commands.items()})]
    parts.append(f"Options:\n{_format_options_usage(options).rstrip()}")
    return "\n".join(_spaced(parts))


def _spaced(parts: Sequence[str]) -> list[str]:
    """Parts with an empty line before each that is no entry of a list."""
    return [part if part.startswith("  ") or number == 0 else f"\n{part}" for number, part in enumerate(parts)]


def _in_order(settings: Mapping[str, Setting]) -> list[tuple[str, Setting]]:
    """The experiment's own first, then those of each ingredient, the name that decides the others before them."""
    return sorted(
        settings.items(), key=lambda item: ("." in item[0], item[0].partition(".")[0] if "." in item[0] else "")
    )


def _heading(name: str, setting: Setting) -> str:
    kind = in_short(setting.kind)
    given = "" if setting.default is inspect.Parameter.empty else f" = {setting.default!r}"
    return f"{name}{f': {kind}' if kind else ''}{given}"


def _text(text: str) -> str:
    """A text under what it explains; nothing for no text."""
    if not text:
        return ""
    return "\n" + textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _table(texts: Mapping[str, str]) -> list[str]:
    """Names with a text beside each."""
    indent = 4 + max(map(len, texts), default=0)
    return [
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for name, text in texts.items()
    ]


def _assignments(config: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={str(value).replace(' ', '')}" for name, value in config.items()) or "nothing of its own"


def _first_line(command: Any) -> str:
    return (inspect.getdoc(command) or "").partition("\n")[0]

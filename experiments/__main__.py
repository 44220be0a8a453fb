"""``metadensity COMMAND ...`` is ``python -m experiments.COMMAND ...``; alone, it lists the commands.

Nothing but the command itself is imported: the list takes 0.03 s more than Python itself.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

MISTAKE = 2  # exit status, as of every command for what cannot be


def commands() -> dict[str, str]:
    """What each command does, by its name: the files of this folder, and how their docstrings begin."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {path.stem.replace("_", "-"): _first_words(path) for path in files}


def _first_words(path: Path) -> str:
    """The first line of a module's docstring, up to how it is called."""
    with path.open(encoding="utf-8") as file:
        return re.split(r"(?<=\?) ``|: |[.:]?$", file.readline().strip().strip('"'), maxsplit=1)[0]


def listing() -> str:
    """What ``metadensity`` alone prints."""
    found = commands()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {text}" for name, text in found.items()]
    return "\n".join(
        [
            "usage: metadensity COMMAND ...",
            "",
            *lines,
            "",
            "metadensity COMMAND --help lists the settings of one; it is the same as python -m experiments.COMMAND.",
        ]
    )


def main() -> None:
    """Run the command that is named first, as ``python -m`` would, with what follows it."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(listing())
        return
    if name in ("-V", "--version"):
        from importlib.metadata import version

        print(f"metadensity {version('metadensity')}")
        return
    found = commands()
    command = name.replace("_", "-")
    if command not in found:
        import difflib

        near = difflib.get_close_matches(command, found)
        meant = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(found)}."
        print(f"There is no command {name!r}. {meant}", file=sys.stderr)
        sys.exit(MISTAKE)
    # As under `python -m`, modules of the current folder are found; here after all others, so that they hide none.
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    sys.argv[1:] = rest
    runpy.run_module(f"experiments.{command.replace('-', '_')}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

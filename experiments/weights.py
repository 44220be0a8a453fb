"""Shipped models by name: ``python -m experiments.weights list``, or ``card NAME`` for what one is and is not for.

list    every name, with what its card begins with
card    data, licence, training, numbers, what it is not for
write   write the cards anew from records and headers of files, in a clone
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence

from experiments.results import CARDS


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m experiments.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every name, in a line")
    commands.add_parser("card", help="the card of one").add_argument("name", help="of a shipped model")
    commands.add_parser("write", help="write the cards anew")
    options = parser.parse_args(arguments)
    cards = {path.stem: path for path in sorted(CARDS.glob("*.md"))}
    if options.command == "list":
        width = max(map(len, cards))
        for name, path in cards.items():
            print(f"{name:<{width}}  {path.read_text().splitlines()[2].partition('. ')[0]}")
        return 0
    if options.command == "write":
        from experiments.reproductions.cards import write_cards

        try:
            print("\n".join(str(path) for path in write_cards()))
        except (OSError, LookupError) as error:
            print(error.args[0] if error.args else error, file=sys.stderr)
            return 2
        return 0
    if options.name not in cards:
        near = difflib.get_close_matches(options.name, cards)
        meant = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(cards)}."
        print(f"No model called {options.name!r} is shipped. {meant}", file=sys.stderr)
        return 2
    print(cards[options.name].read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

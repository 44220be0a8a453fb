"""What a data set says of itself while it is read: one line each, once in a process."""

from __future__ import annotations

import logging
from collections.abc import Sequence

SHOWN = 20  # names in a message; more are counted
SAID: set[str] = set()
"""What was said in this process."""
_log = logging.getLogger(__name__)


def say_once(text: str) -> None:
    """Log a warning, unless it was said before: the splits of a task are read one after the other."""
    if text not in SAID:
        SAID.add(text)
        _log.warning("%s", text)


def in_short(names: Sequence[str], shown: int = SHOWN) -> str:
    """The names, separated by commas; of many the first ones and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

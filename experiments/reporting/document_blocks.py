"""Places in a document, such as a README, that are written from records: between a mark and its end."""

from __future__ import annotations

import re
from pathlib import Path


def between(text: str, name: str) -> str:
    """What a document has between the marks of ``name``. Raises ValueError where it has no such marks."""
    found = re.search(_marks(name), text, re.DOTALL)
    if found is None:
        raise ValueError(f"The document has no <!-- records: {name} --> ... <!-- end of {name} -->.")
    return found.group(1).strip()


def put_between(path: Path, name: str, table: str) -> None:
    """Replace what a document has between the marks of ``name``."""
    text = path.read_text()
    between(text, name)
    path.write_text(
        re.sub(
            _marks(name),
            lambda _: f"<!-- records: {name} -->\n\n{table.strip()}\n\n<!-- end of {name} -->",
            text,
            flags=re.DOTALL,
        )
    )


def _marks(name: str) -> str:
    return rf"<!-- records: {name} -->\n(.*?)<!-- end of {name} -->"

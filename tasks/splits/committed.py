"""Split files, committed with their checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError

SPLITS_FOLDER = Path(__file__).parent


def load_split(name: str, folder: Path = SPLITS_FOLDER) -> dict[str, Any]:
    """The content of ``splits/<name>.json``, once its checksum is verified; DataError otherwise."""
    path = folder / f"{name}.json"
    remedy = "Restore it, for example with 'git checkout', or install the package again."
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content, stated = document["content"], document["sha256"]
    except FileNotFoundError:
        raise DataError(f"the split file {path} is missing. {remedy}") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise DataError(f"the split file {path} cannot be read ({problem!r}). {remedy}") from problem
    actual = sha256_of_json(content)
    if actual != stated:
        raise DataError(f"the split file {path} is damaged: its checksum is {actual}, not {stated}. {remedy}")
    return dict(content)


def save_split(name: str, content: dict[str, Any], folder: Path = SPLITS_FOLDER) -> None:
    """Write ``content`` with its checksum, for maintainers who change a split."""
    text = json.dumps({"sha256": sha256_of_json(content), "content": content}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(_short_lists(text) + "\n", encoding="utf-8")


def _short_lists(text: str) -> str:
    """Put lists of numbers or names, which json.dumps spreads over lines, on one line each."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if inside:
            lines[-1] += line.strip() if lines[-1].endswith("[") or line.strip().startswith("]") else " " + line.strip()
        else:
            lines.append(line)
        inside = line.endswith("[") or (inside and not line.strip().startswith("]"))
    return "\n".join(lines)

"""Splits of a user's own classes: by a rule that looks at their names alone, and by files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metadensity.files import write_atomically
from tasks.checks import SPLITS
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError
from tasks.splits.random_splits import Split


def by_rule(names: Iterable[str], where: str, splits: tuple[str, ...] = SPLITS, remedy: str = "") -> Split:
    """A tenth of the names, at least one, to each split but the first.

    The last split gets those whose SHA-256 is smallest, the one before it the next ones. The same names give the
    same split everywhere. Raises DataError where a split would be empty, with the ``remedy`` at its end.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(order) < len(splits):
        raise DataError(
            f"{where} holds {len(order)} classes; {' and '.join(splits)} need one each, {len(splits)} together.{remedy}"
        )
    share = max(1, round(len(order) / 10))
    share = min(share, (len(order) - 1) // (len(splits) - 1))
    found: Split = {}
    for split in reversed(splits[1:]):
        found[split], order = sorted(order[:share]), order[share:]
    return {splits[0]: sorted(order), **found}


def read_split(path: str | os.PathLike[str], names: Iterable[str], where: str) -> Split:
    """A split from a JSON file ``{"train": [class, ...], "validation": [...], "test": [...]}``.

    A file that ``write_split`` wrote, with a checksum, is read as well. Classes that the file
    does not name are left out. Raises DataError where the file is missing or damaged, names a class that is not
    there, or one class twice.
    """
    try:
        document: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        content = document.get("content", document)
        if "sha256" in document and sha256_of_json(content) != document["sha256"]:
            raise ValueError("its checksum does not match")
        split = {part: [str(name) for name in content[part]] for part in SPLITS}
    except FileNotFoundError:
        raise DataError(f"there is no split file {path}. Write one, or leave it out for a split by rule.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DataError(
            f"the split file {path} cannot be read ({problem!r}); it has to be JSON, "
            '{"train": [class, ...], "validation": [...], "test": [...]}.'
        ) from problem
    chosen = [name for part in SPLITS for name in split[part]]
    twice = sorted({name for name in chosen if chosen.count(name) > 1}) if len(set(chosen)) < len(chosen) else []
    if twice:
        raise DataError(f"the split file {path} names {twice[0]!r} twice; a class is in one split only.")
    absent = sorted(set(chosen) - set(names))
    if absent:
        raise DataError(f"the split file {path} names {absent[0]!r}, but {where} has no such class.")
    return split


def write_split(path: str | os.PathLike[str], split: Mapping[str, Sequence[str]]) -> Path:
    """Write the classes of each split with their checksum, to be given again as ``splits=``."""
    content = {part: list(split[part]) for part in SPLITS}
    document = {"sha256": sha256_of_json(content), "content": content}
    write_atomically(Path(path), json.dumps(document, indent=1, ensure_ascii=False).encode())
    return Path(path)

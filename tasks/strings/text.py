"""A file of characters as tasks: a class is a passage, its images the windows that it is cut into."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from metadensity.checks import require_count
from tasks.checks import split_parts
from tasks.data.roots import DataError, find_data_root
from tasks.images import ImageTasks
from tasks.media import Strings
from tasks.styles import require_styles

FILE = "text/tiny_shakespeare.txt"
ENDS = {"train": (0, 85), "validation": (85, 90), "test": (90, 100)}  # per cent of the characters
MOST = 256  # distinct characters


def text(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    file: str | os.PathLike[str] = FILE,
    length: int = 128,
    passage: int = 16,
    styles: int = 0,
) -> ImageTasks:
    """Windows ``(1, length)`` of a text, a level for each character in it; a class is a passage of ``passage`` windows.

    So the supports of a window come from near it: the same scene, the same speakers. Windows follow one another without
    overlap; what is left over at the end of a split, less than a passage, is left out.

    split: "train", the first 85 % of the characters, "validation", the next 5, "test", the last 10, or several joined
        by "+": "train+validation" is the 90 % that nanoGPT trains on.
    data_root: the folder that ``file`` is relative to, where it is not absolute.
    seed: fixes the episodes.
    file: a text in UTF-8 of at most 256 distinct characters.
    length: characters of a window. passage: windows of a class, from 2.
    styles: how often more the training part is cut into windows, each time from another character on: further classes,
        of the same text, so that a window has its characters at other places. The other splits stay as they are.

    Raises ValueError for options out of range, DataError for a file that is missing, no text, or too short.
    """
    parts = split_parts("text", split)
    length, passage = require_count("length", length, 1), require_count("passage", passage, 2)
    styles = require_styles(styles)
    path = Path(file).expanduser()
    path = path if path.is_absolute() or path.is_file() else find_data_root(data_root).path / path
    content = _read(path)
    alphabet = sorted(set(content))
    if not 2 <= len(alphabet) <= MOST:
        rare = "".join(character for character, _ in Counter(content).most_common()[: MOST - 1 : -1][:20])
        raise DataError(
            f"{path} has {len(alphabet)} distinct characters; give a text of 2 to {MOST}"
            + (f". The rarest are {rare!r}: replace such as these." if rare else ".")
        )
    number = {character: place for place, character in enumerate(alphabet)}
    codes = np.fromiter((number[character] for character in content), dtype=np.uint8, count=len(content))
    windows, names = [], []
    for part in parts:
        first, end = (len(codes) * share // 100 for share in ENDS[part])
        cuts = styles + 1 if part == "train" else 1
        for offset in range(cuts):
            shift = offset * length // cuts
            whole = range(first + shift, end - length * passage + 1, length * passage)
            windows += [codes[start : start + length * passage].reshape(passage, 1, length) for start in whole]
            names += [f"characters {start:,} to {start + length * passage - 1:,}" for start in whole]
    if not names:
        raise DataError(
            f"{path}, {split}: {len(codes):,} characters hold no passage of {passage} windows of {length} there. Give "
            "a longer text, or a smaller length or passage."
        )
    return ImageTasks(
        "text",
        "+".join(parts),
        seed,
        images=np.concatenate(windows),
        labels=np.repeat(np.arange(len(names)), passage),
        class_names=names,
        group_names=names,
        class_group=range(len(names)),
        group_noun="passage",
        event_shape=(1, length),
        levels=len(alphabet),
        medium=Strings("".join(alphabet)),
        recipe={
            "task": "text",
            "version": 1,
            "images_sha256": hashlib.sha256(content.encode()).hexdigest(),
            "length": length,
            "passage": passage,
            "alphabet": "".join(alphabet),
            **({"styles": styles} if styles and "train" in parts else {}),
        },
    )


def _read(path: Path) -> str:
    try:
        content = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Put the text there, or give file=, a path or one relative to METADENSITY_DATA."
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} is no text in UTF-8 ({problem}). Convert it.") from problem
    if not content:
        raise DataError(f"{path} is empty. Give a text.")
    return content

"""The classes of a folder of images, and their split into training, validation and test."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.checks import SPLITS
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError
from tasks.folders.image_files import ImageFiles

Split = dict[str, list[str]]
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
PRODUCT_LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
"""The lists of Stanford Online Products (Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature
Embedding"): after a line of headings, lines ``image_id class_id super_class_id path``."""


def listed(files: ImageFiles) -> dict[str, dict[str, list[str]]] | None:
    """By part, "train" and "test", the images of each class, "super class/class id"; None where there are no lists.

    Raises DataError for a list that is damaged or names an image that is not there.
    """
    there = [name for name in PRODUCT_LISTS.values() if name in files]
    if not there:
        return None
    if len(there) == 1:
        (absent,) = set(PRODUCT_LISTS.values()) - set(there)
        raise DataError(f"{files.path} holds {there[0]} but not {absent}. Put both of the data set's lists there.")
    images, parts = set(files.images), {}
    for part, name in PRODUCT_LISTS.items():
        classes: dict[str, list[str]] = {}
        for number, line in enumerate(files.read(name).decode().splitlines()[1:], start=2):
            fields = line.split(maxsplit=3)
            if not fields:
                continue
            if len(fields) != 4 or not fields[1].isdecimal():
                raise DataError(
                    f"{files.path}, {name}, line {number}: {line!r} is not 'image_id class_id super_class_id path'."
                )
            if fields[3] not in images:
                raise DataError(f"{files.path}, {name}, line {number}: there is no {fields[3]}. Unpack all images.")
            classes.setdefault(f"{PurePosixPath(fields[3]).parent.name}/{fields[1]}", []).append(fields[3])
        parts[part] = classes
    return parts


def by_folder(files: ImageFiles) -> dict[str, dict[str, list[str]]]:
    """By part, the images of each class, which is the folder they lie in.

    Parts are the top folders named train, val, valid, validation and test, where there is a train; what lies outside
    of them is then left out. Otherwise all is of the one part "".
    """
    tops = {name.split("/")[0] for name in files.images if "/" in name}
    parted = "train" in tops
    parts: dict[str, dict[str, list[str]]] = {}
    for name in files.images:
        top, _, rest = name.partition("/")
        if parted and (top not in PARTS or not rest):
            continue
        part, inside = (PARTS[top], rest) if parted else ("", name)
        folder = PurePosixPath(inside).parent.as_posix()
        parts.setdefault(part, {}).setdefault("" if folder == "." else folder, []).append(name)
    return parts


def merged_classes(parts: Mapping[str, Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """The images of each class of all parts together, by class."""
    found: dict[str, list[str]] = {}
    for classes in parts.values():
        for name, images in classes.items():
            found.setdefault(name, []).extend(images)
    return {name: found[name] for name in sorted(found)}


def split_of(parts: Mapping[str, Iterable[str]], where: str) -> Split:
    """The classes of each split: the parts themselves where they share no class, else by ``by_rule``.

    A part "validation" that is missing is taken out of "train", by the same rule. Raises DataError where there are too
    few classes.
    """
    classes = {part: sorted(names) for part, names in parts.items()}
    whole = [name for names in classes.values() for name in names]
    if not {"train", "test"} <= set(classes) or len(set(whole)) != len(whole):
        return by_rule(whole, where)
    if "validation" not in classes:
        rest = by_rule(classes["train"], where, SPLITS[:2])
        return {**rest, "test": classes["test"]}
    return {split: classes[split] for split in SPLITS}


def by_rule(names: Iterable[str], where: str, splits: tuple[str, ...] = SPLITS) -> Split:
    """A tenth of the names, at least one, to each split but the first.

    The last split gets those whose SHA-256 is smallest, the one before it the next ones. The same names give the
    same split everywhere. Raises DataError where a split would be empty.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(order) < len(splits):
        raise DataError(
            f"{where} holds {len(order)} classes; {' and '.join(splits)} need one each, {len(splits)} together."
        )
    share = max(1, round(len(order) / 10))
    share = min(share, (len(order) - 1) // (len(splits) - 1))
    found: Split = {}
    for split in reversed(splits[1:]):
        found[split], order = sorted(order[:share]), order[share:]
    return {splits[0]: sorted(order), **found}


def read_split(path: str | os.PathLike[str], names: Iterable[str], where: str) -> Split:
    """A split from a JSON file ``{"train": [class, ...], "validation": [...], "test": [...]}``.

    A file that ``save_split`` of ``tasks.data.cache`` wrote, with a checksum, is read as well. Classes that the file
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

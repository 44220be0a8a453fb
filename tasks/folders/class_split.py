"""The classes of a folder of images, and their split into training, validation and test."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from tasks.checks import SPLITS
from tasks.data.notices import in_short, say_once
from tasks.data.roots import DataError
from tasks.folders.image_files import ImageFiles
from tasks.splits.by_name import by_rule, read_split
from tasks.splits.random_splits import Split

Parts = dict[str, dict[str, list[str]]]
SPELLINGS = {
    "train": ("train", "training", "trn", "trainset"),
    "validation": ("val", "valid", "validation", "dev", "valset"),
    "test": ("test", "testing", "tst", "testset"),
}
"""What published parts are called, in any case, with numbers or words such as "set" or "images" beside it."""
_PART = {spelling: part for part, spellings in SPELLINGS.items() for spelling in spellings}
_BESIDE = {"set", "data", "dataset", "images", "imgs", "image", "img", "split", "part", "classes"}
UNFILTERED = "unfiltered"  # a value of ``splits``
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


class Files(Protocol):
    """Files of examples below a folder."""

    @property
    def path(self) -> Path:
        """The folder."""

    @property
    def images(self) -> Sequence[str]:
        """Their names below it, with slashes."""


def by_folder(files: Files, flat: bool = False, refuse: bool = True) -> Parts:
    """By part, the images of each class, which is the folder they lie in.

    Parts are the top folders named train, val and test or alike (``SPELLINGS``), under any folders that all images
    share, where one is called train and holds folders, or there is another part beside it; what lies outside of them is
    then left out, which is said. Otherwise all is of the one part "". flat: parts may hold images without folders.
    refuse: raise DataError where folders look like parts and it is not clear which is to be trained on.
    """
    names = [name for name in files.images if "/" in name]
    shared = os.path.commonpath([PurePosixPath(name).parent for name in names]) if names else ""
    part_of: dict[str, str] = {}
    for depth in range(len(PurePosixPath(shared).parts) + 1):
        tops = {name: name.split("/")[depth] for name in names if name.count("/") > depth}
        known = {top: part for top in set(tops.values()) if (part := part_called(top))}
        holding = {top for name, top in tops.items() if flat or name.count("/") > depth + 1}
        if "train" in known.values() and (len(set(known.values())) > 1 or any(top in holding for top in known)):
            part_of = known
            break
        if refuse:
            _require_clear(files.path, holding, known.keys() & holding, flat)
    if refuse and not part_of:
        _require_whole_classes(files.path, names)
    parts: Parts = {}
    left_out: list[str] = []
    for name in files.images:
        *folders, _ = name.split("/")
        if part_of and (len(folders) <= depth or folders[depth] not in part_of):
            left_out.append(name)
            continue
        part, inside = (part_of[folders[depth]], folders[depth + 1 :]) if part_of else ("", folders)
        parts.setdefault(part, {}).setdefault("/".join(inside), []).append(name)
    if left_out:
        outside = sorted({"/".join(name.split("/")[: depth + 1]) for name in left_out})
        say_once(
            f"{files.path}: {len(left_out):,} images lie outside of its parts {', '.join(sorted(part_of))} and are "
            f"left out: {in_short(outside)}."
        )
    return parts


def part_called(folder: str) -> str | None:
    """The part that a folder's name stands for, such as "train" for "Training_set" and "train2017"; None for none."""
    words = [word for word in re.split("[^a-z]+", folder.lower()) if word and word not in _BESIDE]
    return _PART.get(words[0]) if len(words) == 1 else None


def _require_clear(path: Path, holding: set[str], known: set[str], flat: bool) -> None:
    """Raise DataError where folders look like parts and none of them is the one to train on.

    Read as classes, what was published to be tested on would be trained on. holding: the folders. known: those that
    are called as parts are. flat: they need not hold folders, so they may be classes as well.
    """
    near = known | {folder for folder in holding if _nearly_a_part(folder)}
    all_but_one = len(holding - near) <= (1 if known else 0)
    if near and len(holding) > 1 and (all_but_one or (known and not flat)):
        otherwise = "call them otherwise" if flat else "name the classes of each split in a file, with splits="
        raise DataError(
            f"{path} holds the folders {in_short(sorted(holding))}: {', '.join(sorted(near))} look like published "
            "parts, but none is called train. Call the one to train on train (and the others val and test), or, where "
            f"they are no parts, {otherwise}."
        )


def _require_whole_classes(path: Path, names: Iterable[str]) -> None:
    """Raise DataError where each class has its own parts: images of one would be in several splits."""
    leaves = {PurePosixPath(name).parent.name for name in names}
    parts = {part_called(leaf) for leaf in leaves}
    if None not in parts and {"train", "test"} <= parts:
        raise DataError(
            f"{path} holds parts within its classes ({', '.join(sorted(leaves))}), so one class would be in several "
            "splits. A few-shot split is by class: put the images of each class into one folder."
        )


def _nearly_a_part(folder: str) -> bool:
    """Whether some word of a folder's name begins as a part's name does, or is one misspelt."""
    return any(
        word.startswith(("train", "test")) or difflib.get_close_matches(word, _PART, 1, 0.8)
        for word in re.split("[^a-z]+", folder.lower())
        if word
    )


def merged_classes(parts: Mapping[str, Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """The images of each class of all parts together, by class."""
    found: dict[str, list[str]] = {}
    for classes in parts.values():
        for name, images in classes.items():
            found.setdefault(name, []).extend(images)
    return {name: found[name] for name in sorted(found)}


def chosen_split(
    parts: Parts, classes: Mapping[str, list[str]], splits: str | os.PathLike[str] | None, least: int, where: str
) -> tuple[Split, Split]:
    """The classes of each split, and those of them that have ``least`` images.

    Small classes are left out before classes are drawn, so that no split is emptied by it; what is left out is said.
    splits: None, "unfiltered" to draw from all classes, however small, as earlier versions did, or a file to read.

    Raises DataError as ``read_split`` does, and where a split would have no class.
    """
    small = {name: len(images) for name, images in classes.items() if len(images) < least}
    if splits is not None and splits != UNFILTERED:
        split = read_split(splits, classes, where)
    elif small and len(small) == len(classes):
        most = max(small.values())
        raise DataError(
            f"{where}: no class has {least} images (min_images={least}); the largest of {len(small)} has {most}. Give "
            f"min_images={most} and episodes of at most {most} images, shots and queries together."
        )
    else:
        out = small if splits is None else {}
        kept = {
            part: [name for name in inside if name in classes and name not in out] for part, inside in parts.items()
        }
        split = split_of(kept, where, _too_few(classes, least) if out else "")
    named = [name for part in SPLITS for name in split[part]] if splits is not None else list(classes)
    if left_out := sorted(small.keys() & set(named)):
        say_once(
            f"{where}: {len(left_out)} of {len(named)} classes have fewer than {least} images (min_images={least}) and "
            f"are left out: {in_short([f'{name} ({small[name]})' for name in left_out])}."
        )
    return split, {part: [name for name in split[part] if name not in small] for part in SPLITS}


def _too_few(classes: Mapping[str, list[str]], least: int) -> str:
    """What can be done where too few classes have ``least`` images."""
    sizes = sorted((len(images) for images in classes.values()), reverse=True)
    smaller = sum(size < least for size in sizes)
    found = f" Of {len(sizes)} classes {smaller} have fewer than {least} images (min_images={least}). Add images"
    if len(sizes) < len(SPLITS):
        return f"{found} and classes."
    most = sizes[len(SPLITS) - 1]
    return f"{found}, or give min_images={most} and episodes of at most {most} images, shots and queries together."


def split_of(parts: Mapping[str, Iterable[str]], where: str, remedy: str = "") -> Split:
    """The classes of each split: the parts themselves where they share no class, else by ``by_rule``.

    A part "validation" that is missing is taken out of "train", by the same rule. Raises DataError where there are too
    few classes, with the ``remedy`` at its end.
    """
    classes = {part: sorted(names) for part, names in parts.items()}
    whole = [name for names in classes.values() for name in names]
    if not {"train", "test"} <= set(classes) or len(set(whole)) != len(whole):
        if len(classes) > 1:
            shared = len(whole) - len(set(whole))
            why = f"share {shared} classes" if shared else "are no train and test"
            say_once(
                f"{where}: its parts {', '.join(sorted(classes))} {why}, so they are no split by class: all classes "
                "together are split by their names."
            )
        return by_rule(whole, where, remedy=remedy)
    if "validation" not in classes:
        rest = by_rule(classes["train"], where, SPLITS[:2], remedy)
        return {**rest, "test": classes["test"]}
    return {split: classes[split] for split in SPLITS}

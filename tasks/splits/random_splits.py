"""Splits drawn anew from a seed, to see how much of a number is the split it was measured on.

Two kinds: by group (whole alphabets are held out) and by class (characters are held out of alphabets that training
knows). The draw is by SHA-256 of the seed and a name, so it depends on no random generator and no order of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from metadensity.checks import require_uint64
from tasks.checks import SPLITS

SPLIT_BY = ("group", "class")
Split = dict[str, list[str]]


def require_split_by(split_by: str | None, split_seed: int) -> int:
    """The seed, once both are found to be in range. Raises ValueError where they are not or do not go together."""
    if split_by is not None and split_by not in SPLIT_BY:
        raise ValueError(
            f"split_by={split_by!r}; give 'group' (whole groups are held out), 'class' (classes of every group are "
            "held out), or None for the committed split."
        )
    seed = require_uint64("split_seed", split_seed)
    if split_by is None and seed:
        raise ValueError(f"split_seed={seed} without split_by: the committed split has no seed. Give split_by as well.")
    return seed


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in the order of SHA-256 of "seed name"."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def drawn_groups(groups: Iterable[str], sizes: Mapping[str, int], seed: int) -> Split:
    """Whole groups to each split, sorted: ``sizes["test"]`` to test, ``sizes["validation"]`` to validation."""
    order = shuffled(groups, seed)
    test, validation = sizes["test"], sizes["validation"]
    parts = {"test": order[:test], "validation": order[test : test + validation], "train": order[test + validation :]}
    return {part: sorted(parts[part]) for part in SPLITS}


def drawn_classes(groups: Mapping[str, Sequence[str]], sizes: Mapping[str, int], seed: int) -> Split:
    """Of every group some classes to each split, in about the shares of ``sizes`` (classes by split) and at least one.

    So validation and test hold classes that training does not, of groups that it knows. Within a split, classes are by
    group and then in the group's own order. Raises ValueError for a group of fewer than three classes.
    """
    whole = sum(sizes.values())
    found: Split = {part: [] for part in SPLITS}
    for group, members in groups.items():
        if len(members) < len(SPLITS):
            raise ValueError(f"group {group!r} has {len(members)} classes; a split by class needs at least 3 in each.")
        order = shuffled(members, seed)
        test = max(1, round(len(order) * sizes["test"] / whole))
        validation = max(1, round(len(order) * sizes["validation"] / whole))
        place = {name: "test" for name in order[:test]}
        place |= {name: "validation" for name in order[test : test + validation]}
        for name in members:
            found[place.get(name, "train")].append(name)
    return found


def drawn_shapes(classes: Mapping[str, tuple[str, str]], sizes: Mapping[str, int], seed: int) -> Split:
    """As ``drawn_classes``, where classes that are alike have to stay together: whole shapes are drawn.

    classes: (group, shape) of each class. Shapes go to test until it holds ``sizes["test"]`` classes, then to
    validation, then to training, so a split may be larger than asked for by a part of one shape. A class held out whose
    group has none in training is left out.
    """
    shapes: dict[str, list[str]] = {}
    for name, (_, shape) in classes.items():
        shapes.setdefault(shape, []).append(name)
    kept: Split = {part: [] for part in SPLITS}
    for shape in shuffled(shapes, seed):
        part = next((part for part in ("test", "validation") if len(kept[part]) < sizes[part]), "train")
        kept[part] += shapes[shape]
    known = {classes[name][0] for name in kept["train"]}
    place = {name: part for part, names in kept.items() for name in names}
    return {part: [n for n in classes if place[n] == part and classes[n][0] in known] for part in SPLITS}


def without_shared_shapes(
    split: Mapping[str, Sequence[str]], classes: Mapping[str, tuple[str, str]], least: int
) -> Split:
    """The classes of whole groups by split, without those alike to a class of another split.

    Test keeps all, validation what test does not hold, training the rest, so that what is tested is whole groups. A
    group left with fewer than ``least`` classes is left out. classes: (group, shape) of each class.
    """
    found: Split = {}
    taken: set[str] = set()
    for part in reversed(SPLITS):
        groups = set(split[part])
        names = [name for name, (group, shape) in classes.items() if group in groups and shape not in taken]
        counts: dict[str, int] = {}
        for name in names:
            counts[classes[name][0]] = counts.get(classes[name][0], 0) + 1
        found[part] = [name for name in names if counts[classes[name][0]] >= least]
        taken |= {classes[name][1] for name in found[part]}
    return {part: found[part] for part in SPLITS}

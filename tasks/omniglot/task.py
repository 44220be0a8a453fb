"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov, Tenenbaum (2015), Human-level concept learning through probabilistic program induction,
Science 350(6266). The splits, by alphabet, are in ``splits/omniglot.json``; ``split_by`` draws others.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metadensity.checks import require_count
from metadensity.files import Arrays
from metadensity.progress import with_progress
from tasks.checks import SPLITS, split_parts
from tasks.data.cache import cached, sha256_of_json
from tasks.data.download import fetch, md5_of
from tasks.data.roots import DataError, find_data_root
from tasks.images import ImageTasks
from tasks.omniglot.archives import BACKGROUND, EVALUATION, SIDE, Characters, read_archive
from tasks.omniglot.shrink import require_recipe, shrunk
from tasks.splits.committed import load_split
from tasks.splits.random_splits import Split, drawn_classes, drawn_groups, require_split_by
from tasks.styles import STYLES_VERSION, require_styles, restyled, style

ARCHIVES = (BACKGROUND, EVALUATION)
PROTOCOLS = ("paper", "background", "small1", "small2", "vinyals")
REDRAWN = PROTOCOLS[:2]  # those whose parts hold every alphabet once, so that others can be drawn
FOLDERS = ("omniglot", "omniglot-py")  # of ours, and of torchvision
_CHUNK = 1000


def omniglot(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    size: int = 26,
    shrink: str = "maxpool",
    threshold: float = 0.5,
    protocol: str = "paper",
    split_by: str | None = None,
    split_seed: int = 0,
    styles: int = 0,
    download: bool | None = None,
) -> ImageTasks:
    """Omniglot, binary, ``(1, size, size)``, ink = 1.

    split: "train", "validation", "test", or several joined by "+": "train+validation" is all that a
        protocol lets one train on.
    data_root: the folder that holds ``omniglot/images_background.zip`` and ``images_evaluation.zip``, or
        ``omniglot-py/`` with the two, as torchvision puts them.
    seed: fixes the episodes.
    size, shrink, threshold: how 105 x 105 is shrunk, see ``tasks.omniglot.shrink``. The default, 4 x 4 max-pooling
        to 26 x 26, is the paper's. ``threshold`` concerns "area" and "bilinear" alone.
    protocol: "paper", with Tengwar, Sylheti, Tibetan, Syriac (Serto) and ULOG to test on (144 characters)
        and 45 alphabets to train on (1,479 characters), three of them for validation; "background",
        with the 20 evaluation alphabets to test on and the 30 background ones to train on, five of them
        for validation; "small1" and "small2", with the same 20 to test on, the five alphabets of
        images_background_small1.zip or -2.zip to train on and three others for validation; or "vinyals", the
        1,028, 172 and 423 characters of Vinyals et al. 2016, without their rotations: Gurmukhi is trained and
        tested on, with 41 and 4 characters.
    split_by, split_seed: None for the protocol's own alphabets. "group": as many alphabets for each split, drawn
        from all 50 by ``split_seed``. "class": of every alphabet some characters for each split, in the
        protocol's shares, so that the characters tested are new but their alphabets are not.
    styles: further classes for each one of a split that holds "train": the character again, so many times, each in a
        style of its own, see ``tasks.styles``. The other splits stay as they are.
    download: whether to fetch a missing archive; None: only into the user's own cache folder, never into
        one that was named.

    Raises ValueError for options out of range, DataError where the data are missing or damaged.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}; give one of {', '.join(PROTOCOLS)}.")
    if split_by is not None and protocol not in REDRAWN:
        raise ValueError(f"split_by={split_by!r} with protocol={protocol!r}; it redraws {' or '.join(REDRAWN)} alone.")
    require_recipe(shrink, threshold)
    size = require_count("size", size, 1)
    if size > SIDE:
        raise ValueError(f"size={size}; give 1 to {SIDE}, the size of the originals.")
    split_seed = require_split_by(split_by, split_seed)
    styles = require_styles(styles)
    parts = split_parts("omniglot", split)
    root = find_data_root(data_root)
    paths = [_place(root.path, archive.file) for archive in ARCHIVES]
    for path, archive in zip(paths, ARCHIVES, strict=True):
        fetch(path, archive.url, archive.md5, allowed=not root.named if download is None else download)
    recipe = {
        "task": "omniglot",
        "version": 1,
        "archives_md5": {path.name: md5_of(path) for path in paths},
        "size": size,
        "shrink": shrink,
        "threshold": threshold if shrink in ("area", "bilinear") else None,
    }

    def read() -> list[Characters]:
        return [read_archive(*pair) for pair in zip(paths, ARCHIVES, strict=True)]

    held = cached("omniglot", recipe, lambda: _both(read(), size, shrink, threshold))
    names = held["names"].tobytes().decode().split("\n")
    characters = _split(names, protocol, split_by, split_seed)
    place = {name: number for number, name in enumerate(names)}
    chosen = [place[name] for part in parts for name in characters[part]]
    alphabets = list(dict.fromkeys(names[number].split("/")[0] for number in chosen))
    drawn = {} if split_by is None else {"split_by": split_by, "split_seed": split_seed}
    drawn |= {} if split_by is None else {"split_sha256": sha256_of_json(characters)}
    drawings = BACKGROUND.drawings
    rows = (np.asarray(chosen)[:, None] * drawings + np.arange(drawings)).ravel()
    images, classes = held["images"][rows], [names[number] for number in chosen]
    if styles and "train" in parts:
        drawn |= {"styles": styles, "styles_version": STYLES_VERSION}
        characters_sha256 = sha256_of_json(classes)
        further = cached(
            "omniglot_styles",
            {**recipe, **drawn, "characters_sha256": characters_sha256},
            lambda: {"images": _in_styles(read(), classes, styles, size, shrink, threshold)},
        )
        images = np.concatenate([images, further["images"]])
        classes += [f"{name} style {number}" for number in range(1, styles + 1) for name in classes]
    return ImageTasks(
        "omniglot",
        "+".join(parts),
        seed,
        images=images,
        labels=np.repeat(np.arange(len(classes)), drawings),
        class_names=classes,
        group_names=alphabets,
        class_group=[alphabets.index(name.split("/")[0]) for name in classes],
        event_shape=(1, size, size),
        group_noun="alphabet",
        levels=2,
        recipe={**recipe, "protocol": protocol, **drawn},
        packed=True,
        ink=True,
    )


def _place(root: Path, file: str) -> Path:
    """Where an archive is, or is to be put where it is in neither folder."""
    places = [root / folder / file for folder in FOLDERS]
    return next((path for path in places if path.is_file()), places[0])


def _split(names: list[str], protocol: str, split_by: str | None, split_seed: int) -> Split:
    """The characters of each split, alphabet by alphabet."""
    committed = load_split("omniglot")[protocol]
    by_alphabet: dict[str, list[str]] = {}
    for name in names:
        by_alphabet.setdefault(name.split("/")[0], []).append(name)
    entries = {**by_alphabet, **{name: [name] for name in names}}
    absent = [entry for part in SPLITS for entry in committed[part] if entry not in entries]
    if absent:
        raise DataError(
            f"the archives hold no alphabet or character named {', '.join(absent)}; they hold "
            f"{', '.join(sorted(by_alphabet))}. Get the published ones, from {ARCHIVES[0].url.rsplit('/', 1)[0]}."
        )
    if split_by == "class":
        sizes = {part: sum(len(by_alphabet[name]) for name in committed[part]) for part in SPLITS}
        return drawn_classes({name: by_alphabet[name] for name in sorted(by_alphabet)}, sizes, split_seed)
    alphabets = committed
    if split_by == "group":
        alphabets = drawn_groups(by_alphabet, {part: len(committed[part]) for part in SPLITS}, split_seed)
    return {part: [name for entry in alphabets[part] for name in entries[entry]] for part in SPLITS}


def _in_styles(
    parts: list[Characters], names: list[str], styles: int, size: int, shrink: str, threshold: float
) -> NDArray[np.uint8]:
    """The characters named, style by style, shrunk and packed."""
    drawings, place = BACKGROUND.drawings, {}
    for part in parts:
        for number, name in enumerate(part.names):
            place[name] = part.packed[number * drawings : (number + 1) * drawings]
    whole = {name: np.unpackbits(place[name], axis=2, count=SIDE).view(bool) for name in names}
    images = []
    for number in with_progress(range(1, styles + 1), "drawing styles, this once", "styles"):
        for name in names:
            small = shrunk(restyled(whole[name], style(name, number)), size, shrink, threshold)
            images.append(np.packbits(small.reshape(drawings, -1), axis=1))
    return np.concatenate(images)


def _both(parts: list[Characters], size: int, shrink: str, threshold: float) -> Arrays:
    """All characters of all archives, shrunk and packed; the names as lines of text."""
    packed: NDArray[np.uint8] = np.concatenate([part.packed for part in parts])
    images = []
    for start in range(0, len(packed), _CHUNK):  # a chunk at a time: unpacked, the whole set takes 360 MB
        bits = np.unpackbits(packed[start : start + _CHUNK], axis=2, count=SIDE).view(bool)
        small = shrunk(bits, size, shrink, threshold)
        images.append(np.packbits(small.reshape(len(small), -1), axis=1))
    names = "\n".join(name for part in parts for name in part.names)
    return {"images": np.concatenate(images), "names": np.frombuffer(names.encode(), dtype=np.uint8)}

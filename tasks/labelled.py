"""Any labelled set of images: arrays, torchvision's data sets, data sets of Hugging Face saved to a folder."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metadensity.files import ARCHIVE_ERRORS
from metadensity.progress import with_progress
from tasks.checks import split_parts
from tasks.data.notices import in_short
from tasks.data.roots import DataError, find_data_root
from tasks.folders.image_files import Preparation
from tasks.images import ImageTasks
from tasks.interop.imports import import_torchvision
from tasks.own.given import channels_last, eight_bits, image_of, image_of_array

TORCHVISION = "torchvision:"
EXAMPLE = "source='torchvision:KMNIST', a folder of datasets.Dataset.save_to_disk, or an .npz of images and labels"


def labelled(
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    source: Any = None,
    size: int | None = None,
    grey: bool | None = None,
    levels: int = 256,
    fit: str = "crop",
    ink: bool = False,
    invert: bool = False,
    min_images: int = 2,
    splits: str | os.PathLike[str] | None = None,
    image: str = "image",
    label: str = "label",
    download: bool = False,
) -> ImageTasks:
    """Images with a label each, whatever package has them; a class is a label: ``(1 or 3, size, size)``.

    source: "torchvision:KMNIST", of "torchvision:EMNIST/letters" the split letters, all parts together; a folder of
        Hugging Face's ``save_to_disk``; an ``.npz`` of arrays; or, in a program, a data set of (image, label).
        Paths are relative to the data root where there is nothing at them.
    data_root: also where torchvision finds its files.
    size, grey, levels, fit: how an image is prepared, see ``tasks.folders.image_files.Preparation``. None: as the first
        image is.
    ink: whether the last level is ink, as of white strokes on black. invert: dark and light are exchanged first.
    min_images, splits: see ``ImageTasks.from_labelled``, which says how classes are split; the recipe has the split.
    image, label: names of the two columns, or arrays.
    download: whether torchvision may fetch what is missing.

    All images are held in memory. Raises ValueError for options out of range, DataError where the data are missing or
    damaged, ImportError where the package that reads them is not installed.
    """
    split_parts("labelled", split)
    if source is None:
        raise DataError(f"the task labelled needs a data set: give {EXAMPLE}.")
    pairs, names, count = _pairs(source, data_root, image, label, download)
    how, pixels, labels = None, [], list[Any]()
    for number, (picture, of_class) in enumerate(with_progress(pairs, "reading images", "images", total=count)):
        shown = _shown(picture, f"image {number}")
        if how is None:
            colours = getattr(picture, "mode", None) not in ("1", "L") and np.asarray(picture).ndim == 3
            plain = not colours if grey is None else grey
            how = Preparation(min(shown.size) if size is None else size, plain, levels, fit)
        held = how.of_image(shown)[0]
        pixels.append(levels - 1 - held if invert else held)
        labels.append(of_class.item() if hasattr(of_class, "item") else of_class)
    if how is None:
        raise DataError(f"{source} holds no images.")
    if names is not None:
        labels = [names[number] for number in labels]
    return ImageTasks.from_labelled(
        np.stack(pixels),
        labels,
        split,
        seed,
        splits=splits,
        levels=levels,
        ink=ink,
        min_images=min_images,
        how=how.recipe(),
        invert=bool(invert),
    )


def _shown(picture: Any, name: str) -> Any:
    """The image; 8-bit pixels are taken as they are, as 1 is no white among 255."""
    if getattr(picture, "mode", None) in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    array = np.asarray(picture.detach().cpu()) if hasattr(picture, "detach") else picture
    if isinstance(array, np.ndarray) and array.dtype == np.uint8:
        return image_of_array(channels_last(array, name))
    return image_of(array, name)


Pairs = tuple[Iterator[tuple[Any, Any]], Sequence[str] | None, int]
"""Images with their labels, the names of labels that are numbers, and how many there are."""


def _pairs(source: Any, data_root: Any, image: str, label: str, download: bool) -> Pairs:
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
            raise TypeError(f"source is {type(source).__name__}; give {EXAMPLE}, or a data set of (image, label).")
        return _of_dataset([source])
    if str(source).startswith(TORCHVISION):
        return _torchvision(str(source).removeprefix(TORCHVISION), data_root, download)
    path = Path(source).expanduser()
    path = path if path.is_absolute() or path.exists() else find_data_root(data_root).path / path
    if path.is_dir():
        return _hugging_face(path, image, label)
    if not path.is_file() or path.suffix != ".npz":
        raise DataError(f"source={str(source)!r} is no folder and no .npz at {path}; give {EXAMPLE}.")
    return _arrays(path, image, label)


def _arrays(path: Path, image: str, label: str) -> Pairs:
    try:
        with np.load(path, allow_pickle=False) as held:
            keys = [next((key for key in (name, f"{name}s") if key in held.files), "") for name in (image, label)]
            if "" in keys:
                raise DataError(
                    f"{path} holds the arrays {in_short(held.files)}; it needs {image} and {label}, or their plurals. "
                    "Other names are given as image= and label=."
                )
            images, labels = held[keys[0]], held[keys[1]]
    except ARCHIVE_ERRORS as problem:
        raise DataError(f"{path} is damaged ({problem}). Write it with numpy.savez.") from problem
    if labels.shape != (len(images),):
        raise DataError(f"{path} holds images {images.shape} and labels {labels.shape}; give a label for each image.")
    return zip(eight_bits(images, str(path)), labels.tolist(), strict=True), None, len(images)


def _torchvision(name: str, data_root: Any, download: bool) -> Pairs:
    sets = import_torchvision().datasets
    kind, _, part = name.partition("/")
    made: Any = getattr(sets, kind, None)
    if not isinstance(made, type):
        near = difflib.get_close_matches(kind, sets.__all__, 1)
        raise DataError(f"torchvision has no data set {kind!r}.{f' Did you mean {near[0]}?' if near else ''}")
    root, takes = find_data_root(data_root).path, _options(made)
    options: dict[str, Any] = {"download": download} if "download" in takes else {}
    if part and "split" not in takes:
        raise DataError(f"torchvision's {kind} has no split {part!r}; give torchvision:{kind}.")
    options |= {"split": part} if part else {}
    halves = next((which for which in ("train", "background") if which in takes), None)
    try:
        each = [{halves: True}, {halves: False}] if halves else [{}]
        found = [made(str(root), **options, **half) for half in each]
    except TypeError as problem:
        raise DataError(f"{kind} takes more than a folder ({problem}). Give it in a program.") from problem
    except (RuntimeError, OSError, ValueError) as problem:
        raise DataError(
            f"torchvision's {kind} cannot be read from {root} ({problem}). Name the folder it is in "
            "with data_root=, or allow the download with download=True."
        ) from problem
    pairs, names, count = _of_dataset(found)
    if kind == "EMNIST":  # published with rows for columns, and left so by torchvision (its issue 8783)
        pairs = ((image.transpose(Image.Transpose.TRANSPOSE), label) for image, label in pairs)
    return pairs, names, count


def _options(made: type) -> set[str]:
    """What may be given to a class: of EMNIST, also what it hands on to MNIST."""
    names: set[str] = set()
    for each in made.__mro__:
        parameters = inspect.signature(each.__init__).parameters.values()  # type: ignore[misc]
        names |= {parameter.name for parameter in parameters}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _of_dataset(parts: Sequence[Any]) -> Pairs:
    """Data sets of (image, label) one after the other; names where all of them say the same ``classes``."""
    names = [getattr(part, "classes", None) for part in parts]
    known = names[0] if isinstance(names[0], list | tuple) and all(each == names[0] for each in names) else None
    pairs = (tuple(part[number][:2]) for part in parts for number in range(len(part)))
    return ((image, label) for image, label in pairs), known, sum(map(len, parts))


def _hugging_face(path: Path, image: str, label: str) -> Pairs:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{path} is read by the package datasets, which is not installed: pip install 'metadensity[huggingface]'"
        ) from None
    try:
        held = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} is no folder of Dataset.save_to_disk ({problem}).") from problem
    parts = list(held.values()) if isinstance(held, dict) else [held]
    columns = parts[0].column_names
    if image not in columns or label not in columns:
        raise DataError(f"{path} has the columns {in_short(columns)}; say which are meant with image= and label=.")
    names = getattr(parts[0].features[label], "names", None)
    pairs = ((row[image], row[label]) for part in parts for row in part)
    return pairs, names, sum(map(len, parts))

"""Labelled data sets as tasks: arrays, torchvision's, Hugging Face's, and files of their splits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tasks import SPLITS, TASKS, ImageTasks
from tasks.data.cache import sha256_of_json
from tasks.data.roots import DataError
from tasks.interop.imports import import_torchvision
from tasks.splits.by_name import write_split
from tasks.testing import counts_are_refused

IMAGES = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
LABELS = np.random.default_rng(1).permutation(np.repeat([f"class {number}" for number in range(12)], 10))


def test_arrays_are_a_task_in_one_line() -> None:
    parts = {split: ImageTasks.from_labelled(IMAGES, LABELS, split) for split in SPLITS}
    assert [part.classes for part in parts.values()] == [10, 1, 1]
    for part in parts.values():
        for number, name in enumerate(part.class_names):
            held = part.pixels(np.flatnonzero(part.labels == number))[:, 0].numpy()
            assert np.array_equal(held, IMAGES[name == LABELS])
    train = parts["train"]
    assert train.recipe["splits"] == {split: part.class_names for split, part in parts.items()}
    assert train.recipe["split_sha256"] == sha256_of_json(train.recipe["splits"])
    assert train.recipe == parts["test"].recipe == json.loads(json.dumps(train.recipe))
    counts_are_refused(lambda split: train)


def test_the_split_follows_from_the_names_and_from_a_file(tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(len(LABELS))
    one, other = ImageTasks.from_labelled(IMAGES, LABELS), ImageTasks.from_labelled(IMAGES[order], LABELS[order])
    assert one.class_names == other.class_names
    assert one.recipe["images_sha256"] != other.recipe["images_sha256"]
    chosen = {"train": ["class 0", "class 1"], "validation": ["class 2"], "test": ["class 3"]}
    path = write_split(tmp_path / "split.json", chosen)
    again = ImageTasks.from_labelled(IMAGES, LABELS, splits=path)
    assert again.recipe["splits"] == chosen
    assert again.recipe["split_sha256"] != one.recipe["split_sha256"]
    path.write_text(path.read_text().replace("class 3", "class 4"))
    with pytest.raises(DataError, match="its checksum does not match"):
        ImageTasks.from_labelled(IMAGES, LABELS, splits=path)


def test_small_classes_are_left_out_before_the_split(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.r_[LABELS, ["alone"]]
    task = ImageTasks.from_labelled(np.concatenate([IMAGES, IMAGES[:1]]), labels, "train+validation+test", min_images=3)
    assert "alone" not in task.class_names
    assert "1 of 13 classes have fewer than 3 and are left out: alone" in caplog.text


class Pairs:
    """A data set of (image, label), as torchvision's are."""

    classes = [f"class {number}" for number in range(12)]  # noqa: RUF012

    def __init__(self, mode: str = "L") -> None:
        self.mode = mode

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return Image.fromarray(IMAGES[number]).convert(self.mode), self.classes.index(str(LABELS[number]))


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", images=IMAGES, label=LABELS)
    tasks = [TASKS["labelled"](source=source) for source in (Pairs(), tmp_path / "arrays.npz")]
    expected = ImageTasks.from_labelled(IMAGES, LABELS)
    assert len({task.fingerprint for task in (*tasks, expected)}) == 1
    dark = np.r_[IMAGES[:-1], IMAGES[-1:] % 2]  # 0 and 1 of 255: nearly black, whatever an image alone would be
    np.savez(tmp_path / "dark.npz", images=dark, labels=LABELS)
    same = [
        TASKS["labelled"](source=source) for source in (tmp_path / "dark.npz", list(zip(dark, LABELS, strict=True)))
    ]
    assert {task.fingerprint for task in same} == {ImageTasks.from_labelled(dark, LABELS).fingerprint}
    np.savez(tmp_path / "bits.npz", images=IMAGES % 2, labels=LABELS)
    bits = TASKS["labelled"](source=tmp_path / "bits.npz", levels=2)
    assert bits.fingerprint == ImageTasks.from_labelled(IMAGES % 2, LABELS, levels=2).fingerprint
    assert TASKS["labelled"](source=Pairs("RGB")).event_shape == (3, 8, 8)
    assert TASKS["labelled"](source=Pairs("RGB"), grey=True, size=4).event_shape == (1, 4, 4)
    ink = TASKS["labelled"](source=Pairs(), levels=2, ink=True, invert=True)
    assert torch.equal(ink.pixels(range(9)), (tasks[0].pixels(range(9)) < 128).to(torch.uint8))
    assert ink.recipe["ink"] is True


def test_torchvisions_data_sets_are_read_where_they_lie_and_never_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = import_torchvision().datasets
    asked: list[dict[str, Any]] = []

    class KMNIST(Pairs):
        def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
            super().__init__()
            asked.append({"root": root, "train": train, "download": download})

    monkeypatch.setattr(sets, "KMNIST", KMNIST)
    both = TASKS["labelled"]("train", tmp_path, source="torchvision:KMNIST")
    assert both.images == 2 * ImageTasks.from_labelled(IMAGES, LABELS).images
    assert asked == [{"root": str(tmp_path), "train": train, "download": False} for train in (True, False)]
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"KMNIST cannot be read from .*download=True"):
        TASKS["labelled"]("train", tmp_path, source="torchvision:KMNIST")
    with pytest.raises(DataError, match=r"torchvision has no data set 'KMNISST'. Did you mean KMNIST\?"):
        TASKS["labelled"]("train", tmp_path, source="torchvision:KMNISST")
    with pytest.raises(DataError, match="torchvision's KMNIST has no split 'letters'"):
        TASKS["labelled"]("train", tmp_path, source="torchvision:KMNIST/letters")
    fetched = []
    monkeypatch.setattr(sets.EMNIST, "download", lambda dataset: fetched.append(dataset.train))
    with pytest.raises(DataError, match="EMNIST cannot be read"):
        TASKS["labelled"]("train", tmp_path, source="torchvision:EMNIST/letters", download=True)
    assert fetched == [True]  # though it is MNIST's constructor that takes the option


def test_what_hugging_face_saved_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the package itself, of one set and of several parts."""
    columns = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=Pairs.classes)})
    rows = [{"picture": image, "label": label} for image, label in (Pairs()[number] for number in range(120))]
    whole = datasets.Dataset.from_list(rows, features=columns)
    whole.save_to_disk(tmp_path / "whole")
    parts = {"train": whole.select(range(70)), "test": whole.select(range(70, 120))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "parts")
    expected = ImageTasks.from_labelled(IMAGES, LABELS).fingerprint
    for name in ("whole", "parts"):
        assert TASKS["labelled"](source=tmp_path / name, image="picture").fingerprint == expected
    with pytest.raises(DataError, match="has the columns picture, label; say which are meant"):
        TASKS["labelled"](source=tmp_path / "whole")
    with pytest.raises(DataError, match=r"is no folder of Dataset.save_to_disk"):
        TASKS["labelled"](source=tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'metadensity\[huggingface\]'"):
        TASKS["labelled"](source=tmp_path / "whole")


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """A file of the kind that MNIST is published in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("source", "prefix"), [("KMNIST", ""), ("EMNIST/letters", "emnist-letters-")])
def test_torchvision_reads_published_files_of_scans(source: str, prefix: str, tmp_path: Path) -> None:
    """scikit-learn's handwritten digits, in the files of KMNIST and EMNIST, by torchvision's own classes."""
    scans = load_digits()
    images = np.kron(scans.images * 15, np.ones((3, 3))).astype(np.uint8)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    kinds = scans.target + (1 if prefix else 0)  # letters are numbered from 1
    published = images.swapaxes(1, 2) if prefix else images  # EMNIST's files have rows for columns
    for name, rows in (("train", slice(0, 1000)), ("t10k" if not prefix else "test", slice(1000, None))):
        folder = tmp_path / source.partition("/")[0] / "raw"
        write_idx(folder / f"{prefix}{name}-images-idx3-ubyte", published[rows])
        write_idx(folder / f"{prefix}{name}-labels-idx1-ubyte", kinds[rows])
    task = TASKS["labelled"]("train", tmp_path, source=f"torchvision:{source}")
    named = import_torchvision().datasets.KMNIST.classes if not prefix else ["N/A", *"abcdefghijklmnopqrstuvwxyz"]
    expected = ImageTasks.from_labelled(images, [named[kind] for kind in kinds], "train")
    assert task.fingerprint == expected.fingerprint
    assert task.event_shape == (1, 28, 28)


def test_what_is_no_data_set_is_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=IMAGES)
    np.savez(tmp_path / "short.npz", images=IMAGES, labels=LABELS[:3])
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    for source, error, says in (
        (None, DataError, "the task labelled needs a data set: give source='torchvision:KMNIST'"),
        (7, TypeError, "source is int; give"),
        ("nowhere", DataError, "source='nowhere' is no folder and no .npz"),
        (tmp_path / "other.npz", DataError, "holds the arrays x; it needs image and label"),
        (tmp_path / "short.npz", DataError, r"holds images \(120, 8, 8\) and labels \(3,\); give a label for each"),
        (tmp_path / "broken.npz", DataError, "is damaged"),
    ):
        with pytest.raises(error, match=says):
            TASKS["labelled"]("train", tmp_path, source=source)
    with pytest.raises(ValueError, match=r"images have shape \(120, 8, 8\) and labels \(3,\); give"):
        ImageTasks.from_labelled(IMAGES, LABELS[:3])
    with pytest.raises(TypeError, match="images are float64; give uint8"):
        ImageTasks.from_labelled(IMAGES / 255, LABELS)
    with pytest.raises(DataError, match="holds 2 classes; train and validation and test need one each"):
        ImageTasks.from_labelled(IMAGES, np.arange(120) % 2)

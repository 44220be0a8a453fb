"""Folders of volumes: NIfTI and NumPy, levels that are exact after a slope, and what is said of other files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks import SPLITS, TASKS, ImageTasks
from tasks.data.roots import DataError
from tasks.folders.volumes import read_volume

CLASSES, EACH = 6, 3


def save_nifti(path: Path, values: NDArray[Any], dtype: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.eye(4), dtype=dtype)
    nibabel.save(image, path)
    return path


def save_numpy(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def noise(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape or (4, 5, 6))


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Volumes of 0 and 1, as nibabel writes floats into bytes: with a slope."""
    for number in range(CLASSES * EACH):
        values = (noise(number) > 0).astype(np.float32)
        save_nifti(tmp_path / f"class {number // EACH}" / f"{number}.nii.gz", values, np.uint8)
    return tmp_path


def build(folder: Path, split: str = "train", **options: Any) -> ImageTasks:
    return TASKS["volumes"](split=split, folder=folder, **options)


def test_a_binary_volume_that_nibabel_wrote_has_no_voxel_of_1_and_is_read_exactly(binary: Path) -> None:
    path = binary / "class 0" / "0.nii.gz"
    as_nibabel_reads = nibabel.load(path).get_fdata()
    assert not (as_nibabel_reads == 1).any(), "then this test tests nothing"
    assert np.array_equal(read_volume(path).levels(2), noise(0) > 0)
    task = build(binary, "train+validation+test", levels=2, exact=True)
    assert (task.images, task.event_shape, task.levels) == (CLASSES * EACH, (1, 4, 5, 6), 2)
    first = task.class_names.index("class 0")
    assert np.array_equal(task.pixels(task.class_start[first])[0].numpy(), noise(0) > 0)


@pytest.mark.parametrize("count", [2, 3, 5, 17, 200, 256])
def test_exact_levels_of_any_slope_and_intercept(tmp_path: Path, count: int) -> None:
    levels = np.random.default_rng(0).integers(0, count, (6, 7, 8))
    levels[0, 0, :2] = 0, count - 1
    path = save_nifti(tmp_path / "volume.nii", levels.astype(np.float64), np.uint8)
    assert np.array_equal(read_volume(path).levels(count), levels)


def test_soft_masks_that_are_stored_with_a_slope_are_refused(tmp_path: Path) -> None:
    """The stored number that is nearest to 1 stands for it; the next one does not."""
    soft = np.linspace(0, 1, 256).reshape(4, 8, 8)
    path = save_nifti(tmp_path / "soft.nii", soft, np.uint8)
    with pytest.raises(DataError, match=r"254 of 256 voxels are no level from 0 to 1, the first of them 0.00392157"):
        read_volume(path).levels(2)


def test_what_is_no_level_is_refused_however_near(tmp_path: Path) -> None:
    """The negative control: rounding that forgives the slope must not forgive a value."""
    values = np.zeros((2, 3, 4))
    values[1, 2, 3], values[0, 0, 1] = 1, 1.0001
    path = save_numpy(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=r"a.npy: 1 of 24 voxels are no level from 0 to 1, the first of them 1.0001 at"):
        read_volume(path).levels(2)
    nifti = save_nifti(tmp_path / "a.nii", values.astype(np.float32))  # stored as floats: there is no slope
    with pytest.raises(DataError, match=r"1 of 24 voxels are no level"):
        read_volume(nifti).levels(2)
    with pytest.raises(DataError, match=r"voxels are no level from 0 to 1"):
        read_volume(save_numpy(tmp_path / "b.npy", np.full((2, 2, 2), 2))).levels(2)


def test_values_become_levels_between_the_least_and_the_greatest_of_all(tmp_path: Path) -> None:
    for number in range(6):
        save_numpy(tmp_path / f"c{number // 2}" / f"{number}.npy", np.linspace(-1, number, 8).reshape(2, 2, 2))
    task = build(tmp_path, "train+validation+test", levels=7)
    assert task.recipe["range"] == [-1, 5]
    last = task.pixels(range(6)).flatten(1)
    assert int(last.max()) == 6
    assert last[[row for row in range(6) if last[row, -1] == 6]].tolist() == [[0, 1, 2, 3, 3, 4, 5, 6]]
    narrow = build(tmp_path, "train+validation+test", levels=3, low=0.0, high=1.0).pixels(range(6))
    assert set(narrow.unique().tolist()) == {0, 1, 2}


def test_a_size_averages(tmp_path: Path) -> None:
    for number in range(6):
        save_numpy(tmp_path / f"c{number // 2}" / f"{number}.npy", noise(number, 4, 4 + number, 6))
    with pytest.raises(DataError, match=r"volumes of 6 shapes: \(4, 4, 6\) \(1, c0/0.npy among them\).*Give size="):
        build(tmp_path)
    task = build(tmp_path, "train+validation+test", size=(2, 2, 3), levels=256, low=-3.0, high=3.0)
    assert task.event_shape == (1, 2, 2, 3)
    first = task.pixels(task.class_start[task.class_names.index("c0")])[0]
    expected = noise(0, 4, 4, 6).reshape(2, 2, 2, 2, 3, 2).mean((1, 3, 5))
    assert np.abs(first.numpy() / 255 * 6 - 3 - expected).max() < 6 / 255


def test_splits_are_by_class_and_parts_are_taken(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [set(build(binary, split, levels=2, exact=True).class_names) for split in SPLITS]
    assert set.union(*names) == {f"class {number}" for number in range(CLASSES)}
    assert sum(map(len, names)) == CLASSES
    root = tmp_path_factory.mktemp("parts")
    for number, part in enumerate(["train/a", "train/b", "val/c", "test/d"]):
        for each in range(2):
            save_numpy(root / part / f"{each}.npy", noise(2 * number + each))
    assert [build(root, split).class_names for split in SPLITS] == [["a", "b"], ["c"], ["d"]]


def test_a_volume_keeps_the_axes_of_its_file(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(read_volume(save_nifti(tmp_path / "a.nii", values.astype(np.int16))).values, values)
    assert np.array_equal(
        read_volume(save_nifti(tmp_path / "b.nii", values[..., None].astype(np.int16))).values, values
    )
    assert np.array_equal(read_volume(save_numpy(tmp_path / "c.npy", values > 5)).values, values > 5)


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-50])
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "four axes": (lambda at: save_nifti(at / "a.nii", np.zeros((2, 3, 4, 5), np.uint8)), r"4 axes, \(2, 3, 4, 5\)"),
    "two axes": (lambda at: save_numpy(at / "a.npy", np.zeros((2, 3))), r"2 axes, \(2, 3\).*task folder"),
    "not a number": (lambda at: save_numpy(at / "a.npy", np.full((1, 2, 3), np.nan)), "6 of 6 voxels are no finite"),
    "infinite": (lambda at: save_nifti(at / "a.nii", np.full((1, 2, 3), np.inf, np.float32)), "voxels are no finite"),
    "complex": (lambda at: save_numpy(at / "a.npy", np.zeros((1, 2, 3), complex)), "complex128; a voxel is one real"),
    "cut off": (lambda at: truncated(save_nifti(at / "a.nii", noise(0).astype(np.float32))), "damaged"),
    "cut off, packed": (lambda at: truncated(save_nifti(at / "a.nii.gz", noise(0).astype(np.float32))), "damaged"),
    "cut off, NumPy": (lambda at: truncated(save_numpy(at / "a.npy", noise(0))), "damaged"),
    "no voxels": (lambda at: save_numpy(at / "a.npy", np.zeros((2, 0, 3))), "has no voxels"),
    "objects": (lambda at: save_numpy(at / "a.npy", np.array([[["a"]]], dtype=object)), "no array, or damaged"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_file_that_is_no_volume_is_named(tmp_path: Path, bad: str) -> None:
    make, said = BAD[bad]
    with pytest.raises(DataError, match=said) as caught:
        read_volume(make(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_text_that_is_called_nifti_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("no volume")
    with pytest.raises(DataError, match=r"a.nii is no NIfTI file, or damaged"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"levels": 257}, ValueError, "levels=257; voxels are held as 8-bit integers"),
        ({"levels": 1}, ValueError, "levels=1; give at least 2"),
        ({"size": (2, 2)}, ValueError, r"size=\(2, 2\); give the places along each of three axes"),
        ({"size": "222"}, ValueError, "size='222'"),
        ({"low": 1.0, "high": 1.0}, ValueError, "low=1.0 and high=1.0; low must be less"),
        ({"low": float("nan")}, ValueError, "low=nan; give a number"),
        ({"exact": True, "low": 0.0}, ValueError, "exact=True with size, low or high"),
        ({"exact": True, "levels": 2, "min_volumes": 9}, DataError, "no class has 9"),
        ({"low": 5.0}, DataError, "no value is above 5.0"),
        ({"split": "dev"}, ValueError, "split='dev' is not a split of volumes"),
    ],
    ids=str,
)
def test_bad_options_are_named(binary: Path, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        build(binary, **options)


def test_folders_without_volumes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the task volumes needs a folder of volumes: give folder="):
        TASKS["volumes"]()
    with pytest.raises(DataError, match="there is no folder"):
        build(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no volumes: no file ends in .nii, .nii.gz, .npy"):
        build(tmp_path)
    save_numpy(tmp_path / "a.npy", noise(0))
    with pytest.raises(DataError, match="holds its volumes in no folders"):
        build(tmp_path)


def test_without_nibabel_arrays_are_read_and_nifti_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_nifti(tmp_path / "a.nii", noise(0).astype(np.float32))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'metadensity\[volumes\]'"):
        read_volume(path)
    assert read_volume(save_numpy(tmp_path / "a.npy", noise(0))).values.shape == (4, 5, 6)


def test_real_scans(tmp_path: Path) -> None:
    """nibabel's own examples: a head, and 20 moments of a brain at work; a class is a slab of one of them."""
    from nibabel.testing import data_path

    head = np.asarray(nibabel.load(Path(data_path) / "anatomical.nii").dataobj, dtype=np.float32)
    brain = nibabel.load(Path(data_path) / "functional.nii").get_fdata(dtype=np.float32)
    assert head.shape == (33, 41, 25)
    assert brain.shape == (17, 21, 3, 20)
    for moment in range(4):
        for part in range(2):
            save_nifti(tmp_path / f"brain {part}" / f"{moment}.nii.gz", brain[8 * part : 8 * part + 8, :, :, moment])
    for slab in range(4):
        for part in range(2):
            save_nifti(tmp_path / f"head {part}" / f"{slab}.nii.gz", head[8 * slab : 8 * slab + 8, :, part::2])
    with pytest.raises(DataError, match=r"4 axes, \(17, 21, 3, 20\)"):
        read_volume(Path(data_path) / "functional.nii")
    task = build(tmp_path, "train", size=(4, 5, 3), levels=8)
    assert task.classes == 2
    episode = task.episode(0, 2, 2, 1)
    assert episode.query.shape == (1, 2, 1, 4, 5, 3)
    assert len(torch.unique(task.pixels(range(task.images)))) > 3

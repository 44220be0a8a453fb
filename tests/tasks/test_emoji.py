"""Emoji: classes, groups, sizes, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks import SPLITS, DataError
from tasks.emoji import emoji
from tasks.splits.committed import load_split


def test_classes_styles_and_subgroups(data_root: Path) -> None:
    tasks = [emoji(split, data_root) for split in SPLITS]
    assert [task.classes for task in tasks] == [1472, 146, 217]
    assert sum(task.images for task in tasks) == 11426
    assert {size for task in tasks for size in task.class_size.tolist()} == {5, 6, 7}
    assert [len(task.group_names) for task in tasks] == [78, 10, 10]
    episode = tasks[2].episode(0, 8, 3, 1)
    assert episode.query.shape == (1, 8, 3, 32, 32)
    assert episode.query.float().mean() > 150  # on white


def test_a_class_is_one_emoji(data_root: Path) -> None:
    """Images of a class are nearer to each other than to those of others, on average."""
    task = emoji("test", data_root, size=8)
    episode = task.episode(0, 200, 1, 1)
    query, support = episode.query.float(), episode.support.float()
    own = (query - support).square().mean((0, 2, 3, 4))
    other = (query - support.roll(1, 1)).square().mean((0, 2, 3, 4))
    assert own.mean() < 0.7 * other.mean()


def test_smaller_images_are_means_of_squares(data_root: Path) -> None:
    whole, small = emoji("test", data_root), emoji("test", data_root, size=8)
    expected = whole.pixels(range(50)).float().unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))
    assert (small.pixels(range(50)) - expected).abs().max() <= 0.5


def test_grey_and_levels(data_root: Path) -> None:
    task = emoji("test", data_root, size=16, grey=True, levels=4)
    assert task.event_shape == (1, 16, 16)
    assert set(task.pixels(range(50)).unique().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [0, 5, 64])
def test_a_size_that_does_not_divide(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}; give"):
        emoji("test", size=size)


def test_levels_out_of_range() -> None:
    with pytest.raises(ValueError, match="levels=257; give 2 to 256"):
        emoji("test", levels=257)


def test_archives_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emoji_32.npz is missing. Put the archive there, or name the folder"):
        emoji("test", tmp_path)
    path = tmp_path / "emoji" / "emoji_32.npz"
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"is damaged .*Replace it"):
        emoji("test", tmp_path)
    names = load_split("emoji")["test"]
    np.savez(
        path,
        image=np.zeros((2, 32, 32, 3), np.uint8),
        label=np.arange(2),
        class_name=np.array(["a", "b"]),
        class_codepoints=np.array(["0", "1"]),
        class_subgroup=np.zeros(2, np.uint8),
        subgroup_name=np.array(names[:1]),
    )
    with pytest.raises(DataError, match=r"holds other images \(checksum"):
        emoji("test", tmp_path)

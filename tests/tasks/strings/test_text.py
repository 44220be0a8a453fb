"""Text: windows are the text, splits its parts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import SPLITS, TASKS, DataError, ImageTasks


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    random = np.random.default_rng(0)
    path.write_text("".join(random.choice(list("abcdé\n"), 4000)), encoding="utf-8")
    return path


def make(file: Path, split: str = "train", **options: Any) -> ImageTasks:
    task = TASKS["text"](split=split, file=file, **{"length": 20, "passage": 4, **options})
    assert isinstance(task, ImageTasks)
    return task


def test_windows_are_the_text_in_order(file: Path) -> None:
    whole = file.read_text(encoding="utf-8")
    ends = {"train": (0, 3400), "validation": (3400, 3600), "test": (3600, 4000)}
    for split in SPLITS:
        task = make(file, split)
        alphabet = task.recipe["alphabet"]
        assert (alphabet, task.levels, task.event_shape) == ("\nabcdé", 6, (1, 20))
        found = "".join(alphabet[c] for c in task.pixels(range(task.images)).flatten().tolist())
        first, end = ends[split]
        assert found == whole[first : first + (end - first) // 80 * 80]
        assert (task.class_size == 4).all()
    assert make(file).class_names[1] == "characters 80 to 159"


def test_a_passage_is_a_class(file: Path) -> None:
    episode = make(file).episode(0, tasks=5, shots=2, queries=1)
    ids = np.concatenate([episode.query_ids, episode.support_ids])  # type: ignore[list-item]
    assert (ids // 4 == ids[0] // 4).all()


def test_styles_are_further_cuts_of_the_training_part(file: Path) -> None:
    plain, styled = make(file), make(file, styles=3)
    whole, alphabet = file.read_text(encoding="utf-8"), plain.recipe["alphabet"]
    assert np.array_equal(styled.pixels(range(plain.images)), plain.pixels(range(plain.images)))
    starts = [int(name.split()[1].replace(",", "")) for name in styled.class_names]
    assert [start % 80 for start in starts[:: plain.classes]][:4] == [0, 5, 10, 15]
    for number, start in enumerate(starts):
        window = "".join(alphabet[c] for c in styled.pixels(range(4 * number, 4 * number + 4)).flatten().tolist())
        assert window == whole[start : start + 80]
    assert max(starts) + 80 <= 3400
    assert make(file, "validation", styles=3).fingerprint == make(file, "validation").fingerprint
    assert "styles" not in plain.recipe, "recipes of earlier versions stay equal"


def test_what_is_no_text_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt is missing\. Put the text there, or give file="):
        make(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        make(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is no text in UTF-8"):
        make(tmp_path / "latin.txt")
    (tmp_path / "many.txt").write_text("".join(map(chr, range(32, 332))), encoding="utf-8")
    with pytest.raises(DataError, match=r"has 300 distinct characters; give a text of 2 to 256\. The rarest are"):
        make(tmp_path / "many.txt")
    (tmp_path / "one.txt").write_text("aaaa")
    with pytest.raises(DataError, match=r"has 1 distinct characters; give a text of 2 to 256\.$"):
        make(tmp_path / "one.txt")
    with pytest.raises(DataError, match="4,000 characters hold no passage of 16 windows of 128 there"):
        make(file, "validation", length=128, passage=16)
    for options, message in (
        ({"length": 0}, "length=0; give at least 1"),
        ({"passage": 1}, "passage=1; give at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            make(file, **options)


def test_tiny_shakespeare(data_root: Path) -> None:
    task = TASKS["text"](split="train+validation", data_root=data_root)
    assert isinstance(task, ImageTasks)
    assert (task.levels, task.images) == (65, 7392 + 432)

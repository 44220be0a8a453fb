"""scikit-learn's digits as tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tasks import SPLITS, TASKS, DataError


def test_all_images_are_there_once_with_their_labels() -> None:
    bunch = load_digits()
    expected = {
        digit: sorted(row.tobytes() for row in bunch.images[bunch.target == digit].astype(np.uint8))
        for digit in range(10)
    }
    found = {}
    for split in SPLITS:
        task = TASKS["digits"](split=split)
        pixels = task.pixels(range(task.images)).numpy()
        for number, name in enumerate(task.class_names):
            found[int(name)] = sorted(row.tobytes() for row in pixels[task.labels == number])
    assert found == expected


def test_shape_levels_and_splits() -> None:
    task = TASKS["digits"](split="train")
    assert (task.event_shape, task.levels) == ((1, 8, 8), 17)
    assert [TASKS["digits"](split=split).class_names for split in SPLITS] == [[*"012345"], [*"67"], [*"89"]]
    assert task.class_size.tolist() == [178, 182, 177, 183, 181, 182]
    with pytest.raises(ValueError, match=r"class '2' of digits \(train\) has 177"):
        task.episode(0, 1, 100, 78)
    assert task.episode(0, 1, 100, 77).shots == 100


def test_other_images_than_the_published_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bunch = load_digits()
    bunch.images[5, 3, 3] = 16 - bunch.images[5, 3, 3]

    def changed(**_: Any) -> Any:
        return bunch

    monkeypatch.setattr("sklearn.datasets.load_digits", changed)
    with pytest.raises(DataError, match=r"scikit-learn's digits have checksum .*Install a release"):
        TASKS["digits"](split="train")

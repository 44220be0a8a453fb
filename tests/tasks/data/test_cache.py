"""What is built once is read the next time; a cache that is damaged or of another recipe is built again."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from metadensity.files import Arrays, read_arrays, write_arrays
from tasks.data.cache import cached
from tasks.data.notices import SAID

RECIPE = {"task": "made", "sizes": (1, 2)}


def counted() -> tuple[list[int], partial[Arrays]]:
    """A list that grows with each call, and a function to build with."""
    calls: list[int] = []

    def build(calls: list[int]) -> Arrays:
        calls.append(1)
        return {"numbers": np.arange(6).reshape(2, 3), "none": np.zeros((0, 4), dtype=np.uint8)}

    return calls, partial(build, calls)


def test_what_was_built_once_is_read_the_next_time(own_cache: Path) -> None:
    calls, build = counted()
    first, again = cached("made", RECIPE, build), cached("made", RECIPE, build)
    assert len(calls) == 1
    assert {name: array.tolist() for name, array in again.items()} == {n: a.tolist() for n, a in first.items()}
    assert again["none"].shape == (0, 4)
    cached("made", {**RECIPE, "sizes": (1, 3)}, build)
    assert len(calls) == 2
    assert len(list((own_cache / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_cache_is_built_again_with_a_line(
    own_cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    calls, build = counted()
    cached("made", RECIPE, build)
    (path,) = (own_cache / "cache").iterdir()
    whole = path.read_bytes()
    at = whole.index(np.arange(6).tobytes()) + 8
    changed = {"cut": whole[:-50], "flip": whole[:at] + b"\x07" + whole[at + 1 :], "empty": b"", "text": b"hello"}
    path.write_bytes(changed[damage])
    with caplog.at_level(logging.WARNING):
        assert cached("made", RECIPE, build)["numbers"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(calls) == 2
    assert len(caplog.records) == 1
    assert f"{path} is damaged" in caplog.text
    assert path.read_bytes() == whole


def test_a_cache_of_another_recipe_is_not_taken(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls, build = counted()
    cached("made", RECIPE, build)
    (path,) = (own_cache / "cache").iterdir()
    arrays, _ = read_arrays(path)
    write_arrays(path, arrays, {"task": "other"})
    cached("made", RECIPE, build)
    assert len(calls) == 2
    assert "was made by another recipe: building it again" in caplog.text


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("tasks.data.roots.user_cache", lambda: tmp_path / "file")
    calls, build = counted()
    for _ in range(2):
        assert cached("made", RECIPE, build)["numbers"].sum() == 15
    assert len(calls) == 2


def test_what_was_warned_of_is_said_again(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In every process: a cache that answers in silence would swallow that the data are not the published ones."""
    calls: list[int] = []

    def build() -> Arrays:
        calls.append(1)
        logging.getLogger("tasks.somewhere").warning("%s is not the published file", "x.zip")
        return {"numbers": np.arange(3)}

    for _ in range(3):
        SAID.clear()
        caplog.clear()
        assert cached("made", RECIPE, build).keys() == {"numbers"}
        assert [record.getMessage() for record in caplog.records] == ["x.zip is not the published file"]
    caplog.clear()
    cached("made", RECIPE, build)  # another split, in the same process
    assert not caplog.records
    assert len(calls) == 1
    (path,) = (own_cache / "cache").iterdir()
    write_arrays(path, {"numbers": np.arange(3)}, RECIPE)  # of an earlier version, which kept no warnings
    cached("made", RECIPE, build)
    assert len(calls) == 2


def test_a_warning_is_printed_where_nobody_set_up_logging(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> Arrays:
        logging.getLogger("tasks.somewhere").warning("said")
        return {}

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for _ in range(2):  # built, and out of the cache
        SAID.clear()
        cached("made", RECIPE, build)
        assert capsys.readouterr().err == "said\n"

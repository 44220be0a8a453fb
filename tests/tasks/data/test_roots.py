"""Which folder of data sets is taken, and what is said where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tasks import DataError
from tasks.data.roots import find_data_root


def test_the_data_root_is_the_argument_then_the_environment_then_the_cache(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "environment").mkdir()
    monkeypatch.setenv("METADENSITY_DATA", str(tmp_path / "environment"))
    root = find_data_root(tmp_path / "given")
    assert (root.path, root.named) == (tmp_path / "given", True)
    root = find_data_root()
    assert (root.path, root.named) == (tmp_path / "environment", True)
    for empty in (monkeypatch.delenv, partial(monkeypatch.setenv, value="")):
        empty("METADENSITY_DATA")
        root = find_data_root()
        assert (root.path, root.named) == (own_cache, False)
        monkeypatch.setenv("METADENSITY_DATA", "x")


def test_a_data_root_that_is_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"data_root is .*absent, which is no folder\. Create it, or name"):
        find_data_root(tmp_path / "absent")
    monkeypatch.setenv("METADENSITY_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"METADENSITY_DATA is .*gone, which is no folder"):
        find_data_root()

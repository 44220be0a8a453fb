"""Data roots, split files, caches and downloads: what is checked, and what is said."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tasks import DataError
from tasks.data.cache import Arrays, cached, read_arrays, write_arrays
from tasks.data.download import fetch, md5_of
from tasks.data.roots import find_data_root
from tasks.splits.committed import SPLITS_FOLDER, load_split, save_split

RECIPE = {"task": "made", "sizes": (1, 2)}


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


def test_split_files_come_back_and_every_change_is_noticed(tmp_path: Path) -> None:
    content = {"train": ["Ä", "b"], "numbers": {"x": [1, 2, 3]}, "empty": []}
    save_split("made", content, tmp_path)
    path = tmp_path / "made.json"
    assert load_split("made", tmp_path) == content
    assert '"x": [1, 2, 3]' in path.read_text(encoding="utf-8")
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("[1, 2, 3]", "[1, 2, 4]"), encoding="utf-8")
    with pytest.raises(DataError, match=r"made\.json is damaged: its checksum is .*Restore it, for example with 'git"):
        load_split("made", tmp_path)
    for text in (whole[:-10], "", "[]", '{"content": {}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"made\.json cannot be read .*Restore it"):
            load_split("made", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"the split file .*made\.json is missing\. Restore it"):
        load_split("made", tmp_path)


@pytest.mark.parametrize("path", sorted(SPLITS_FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_split_files_notice_a_lost_entry(path: Path, tmp_path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["content"]["about"]
    (tmp_path / path.name).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        load_split(path.stem, tmp_path)


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


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made.npz"
    write_arrays(path, {"x": np.arange(3)}, {"version": 1})
    whole = path.read_bytes()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_arrays(path, {"x": np.arange(4)}, {"version": 2})
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    np.savez(path, sha256=np.zeros(32, np.uint8), head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="is damaged"):
        read_arrays(path)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not write to the terminal."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a server on this machine serves it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_verified_and_shows_its_progress(
    served: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, address = served
    content = bytes(range(256)) * 40
    (folder / "set.zip").write_bytes(content)
    path = tmp_path / "root" / "made" / "set.zip"
    md5 = hashlib.md5(content).hexdigest()
    fetch(path, f"{address}/set.zip", md5, allowed=True)
    assert path.read_bytes() == content
    assert md5_of(path) == md5
    assert "100%" in capfd.readouterr().err
    # What is there is left alone, whatever its checksum: a copy packed anew is the user's to use.
    path.write_bytes(b"own copy")
    shutil.rmtree(folder)
    fetch(path, f"{address}/set.zip", md5, allowed=True)
    assert path.read_bytes() == b"own copy"


def test_a_download_with_another_checksum_is_refused_and_not_kept(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "set.zip").write_bytes(b"something else")
    path = tmp_path / "made" / "set.zip"
    with pytest.raises(
        DataError, match=r"set\.zip is missing and could not be downloaded \(.*hash.*\)\. Try again, or"
    ):
        fetch(path, f"{address}/set.zip", hashlib.md5(b"the published").hexdigest(), allowed=True)
    assert not path.exists()


def test_a_failed_download_says_what_to_do(served: tuple[Path, str], tmp_path: Path) -> None:
    _, address = served
    path = tmp_path / "made" / "absent.zip"
    with pytest.raises(DataError, match=r"absent\.zip is missing and could not be downloaded .*put the published file"):
        fetch(path, f"{address}/absent.zip", "0" * 32, allowed=True)
    assert not path.exists()


def test_a_download_that_was_not_allowed_says_what_to_do(tmp_path: Path) -> None:
    message = (
        r"made/set\.zip is missing\. Either put the published file there \(from http://host/set\.zip\), or name the "
        r"folder that holds made/set\.zip in METADENSITY_DATA or data_root, or allow the download with download=True\."
    )
    with pytest.raises(DataError, match=message):
        fetch(tmp_path / "made" / "set.zip", "http://host/set.zip", "0" * 32, allowed=False)
    assert not (tmp_path / "made").exists()

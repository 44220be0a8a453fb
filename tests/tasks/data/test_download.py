"""Downloads are verified; one that fails or was not allowed says what to do."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks import DataError
from tasks.data.download import fetch, md5_of


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
    (tmp_path / "any new file").touch()
    assert path.stat().st_mode == (tmp_path / "any new file").stat().st_mode, "others may not read what was fetched"
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

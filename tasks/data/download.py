"""Fetching a published file, with its checksum verified and a progress bar."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pooch

from tasks.data.roots import DataError


def fetch(path: Path, url: str, md5: str, *, allowed: bool) -> None:
    """Put the file at ``path`` unless one is there already.

    Raises DataError, with what to do, where it is missing and a download is not allowed or fails.
    """
    if path.is_file():
        return
    choices = (
        f"put the published file there (from {url}), or name the folder that holds {path.parent.name}/{path.name} "
        "in METADENSITY_DATA or data_root"
    )
    if not allowed:
        raise DataError(f"{path} is missing. Either {choices}, or allow the download with download=True.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent, progressbar=True)
        any_new = path.with_name(f".{path.name}.mode")  # pooch leaves a file that its owner alone can read
        any_new.touch(mode=0o666)
        path.chmod(stat.S_IMODE(any_new.stat().st_mode))
        any_new.unlink()
    except (OSError, ValueError) as problem:
        # What requests raises is an OSError; pooch raises ValueError for a wrong checksum.
        message = f"{path} is missing and could not be downloaded ({problem}). Try again, or {choices}."
        raise DataError(message) from problem


def md5_of(path: Path) -> str:
    """MD5 of a file, in hex: what publishers of older data sets state."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

"""Files of arrays, and what is built once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import roots
from tasks.data.roots import DataError

Arrays = dict[str, NDArray[Any]]
_log = logging.getLogger(__name__)


def sha256_of_json(value: object) -> str:
    """SHA-256, in hex, of ``value`` as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of_arrays(arrays: Arrays) -> str:
    """SHA-256, in hex, over names, types, shapes and contents, by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_arrays(path: Path, arrays: Arrays, head: dict[str, Any], compressed: bool = False) -> None:
    """Write arrays with a JSON head and a checksum over both: to a temporary name, synced, then renamed.

    compressed: smaller, and slower to write and read.
    """
    stored: Arrays = {**arrays, "head": np.frombuffer(json.dumps(head, sort_keys=True).encode(), dtype=np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            checksum = np.frombuffer(bytes.fromhex(sha256_of_arrays(stored)), dtype=np.uint8)
            (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, sha256=checksum, **stored)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """What ``write_arrays`` wrote. FileNotFoundError where there is none, DataError where it is damaged."""
    try:
        # Opened here, as numpy leaves a file that is no archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays: Arrays = {name: stored[name] for name in stored.files}
        stated = arrays.pop("sha256").tobytes().hex()
        if sha256_of_arrays(arrays) != stated:
            raise ValueError("its checksum does not match")
        return arrays, json.loads(arrays.pop("head").tobytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path} is damaged ({problem}).") from problem


def cached(name: str, recipe: dict[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """``build()``, or what an earlier call with an equal recipe built, from the user's cache folder.

    A folder of data that the user named is never written to. A damaged file is built again, with a
    warning; a cache folder that cannot be written only costs time.
    """
    path = roots.user_cache() / "cache" / f"{name}-{sha256_of_json(recipe)[:16]}.npz"
    try:
        arrays, head = read_arrays(path)
        if sha256_of_json(head) == sha256_of_json(recipe):
            return arrays
        _log.warning("the cache %s was made by another recipe: building it again.", path)
    except FileNotFoundError:
        pass
    except DataError as problem:
        _log.warning("%s It is only a cache: building it again.", problem)
    arrays = build()
    try:
        write_arrays(path, arrays, recipe)
    except OSError as problem:
        _log.debug("no cache written to %s: %s", path, problem)
    return arrays

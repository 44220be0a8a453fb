"""Where data sets and their caches live on disk, and what is said when one is missing or damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
SPLITS_FOLDER = Path(__file__).parent / "splits"
_log = logging.getLogger(__name__)


class DataError(RuntimeError):
    """A data set, a split file or an episode set is missing, damaged or not the one expected."""


@dataclass(frozen=True)
class DataRoot:
    """The folder that holds the data sets. ``named``: the user chose it, so nothing is put there unasked."""

    path: Path
    named: bool


def find_data_root(given: str | os.PathLike[str] | None = None) -> DataRoot:
    """``given``, else the environment's METADENSITY_DATA, else a cache folder of the user's.

    Raises DataError where a folder that was named does not exist.
    """
    if given is None and not os.environ.get("METADENSITY_DATA"):
        return DataRoot(user_cache(), named=False)
    source = "METADENSITY_DATA" if given is None else "data_root"
    path = Path(os.environ["METADENSITY_DATA"] if given is None else given).expanduser()
    if not path.is_dir():
        raise DataError(f"{source} is {path}, which is no folder. Create it, or name the folder that holds the data.")
    return DataRoot(path, named=True)


def user_cache() -> Path:
    """The user's own cache folder for this project, by the conventions of the operating system."""
    return Path(pooch.os_cache("metadensity"))


def load_split(name: str, folder: Path = SPLITS_FOLDER) -> dict[str, Any]:
    """The content of ``splits/<name>.json``, once its checksum is verified; DataError otherwise."""
    path = folder / f"{name}.json"
    remedy = "Restore it, for example with 'git checkout', or install the package again."
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content, stated = document["content"], document["sha256"]
    except FileNotFoundError:
        raise DataError(f"the split file {path} is missing. {remedy}") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise DataError(f"the split file {path} cannot be read ({problem!r}). {remedy}") from problem
    actual = sha256_of_json(content)
    if actual != stated:
        raise DataError(f"the split file {path} is damaged: its checksum is {actual}, not {stated}. {remedy}")
    return dict(content)


def save_split(name: str, content: dict[str, Any], folder: Path = SPLITS_FOLDER) -> None:
    """Write ``content`` with its checksum, for maintainers who change a split."""
    text = json.dumps({"sha256": sha256_of_json(content), "content": content}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(_short_lists(text) + "\n", encoding="utf-8")


def _short_lists(text: str) -> str:
    """Put lists of numbers or names, which json.dumps spreads over lines, on one line each."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if inside:
            lines[-1] += line.strip() if lines[-1].endswith("[") or line.strip().startswith("]") else " " + line.strip()
        else:
            lines.append(line)
        inside = line.endswith("[") or (inside and not line.strip().startswith("]"))
    return "\n".join(lines)


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
    path = user_cache() / "cache" / f"{name}-{sha256_of_json(recipe)[:16]}.npz"
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

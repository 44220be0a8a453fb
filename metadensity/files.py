"""Files that survive crashes: atomic writes, tensors and arrays with JSON and a hash, strict JSON lines. No pickle."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import lzma
import math
import os
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

Arrays = dict[str, NDArray[Any]]
ARCHIVE_ERRORS = (
    *(OSError, ValueError, EOFError, RuntimeError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What zipfile raises for an archive that is damaged, encrypted, or packed by a method that Python does not read."""


class DamagedFileError(RuntimeError):
    """A file that exists but cannot be what it should be."""


@contextlib.contextmanager
def atomic_file(path: str | Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A file to write within a ``with``: synced and renamed to ``path`` at its end, removed where it fails.

    After a crash the file is the old one or the new one, never a part. It has the mode of the file before it, or
    that of any new file of this user. size: bytes, to be said where the disk is full.
    Raises OSError where the disk is full or the folder cannot be written; what was there before is left intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Not by tempfile, whose files are their owner's alone: the mode is what any new file gets here, by the umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"The disk is full: {path} was not written{'' if size is None else f' ({size} bytes needed)'} and the "
                "version before it, if any, is intact. Free some space and start again from there.",
            ) from error
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as ``atomic_file`` does. Raises OSError as it does."""
    with atomic_file(path, len(data)) as file:
        file.write(data)


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over names, dtypes, shapes and bytes of tensors, in the order of the names."""
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return _sha256(
        (f"{name} {tensor.dtype} {tuple(tensor.shape)}\n", tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in plain.items()
    )


def sha256_of_arrays(arrays: Arrays) -> str:
    """SHA-256, in hex, over names, dtypes, shapes and bytes of arrays, in the order of the names."""
    plain = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}  # a single number has shape (1,)
    return _sha256((f"{name} {array.dtype.str} {array.shape};", array.tobytes()) for name, array in plain.items())


def _sha256(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for heading, content in parts:
        digest.update(heading.encode())
        digest.update(content)
    return digest.hexdigest()


def write_arrays(path: Path, arrays: Arrays, head: Mapping[str, Any], compressed: bool = False) -> None:
    """Write arrays with a JSON head and a checksum over both to a ``.npz`` file, atomically.

    compressed: smaller, and slower to write and read. Raises OSError as ``atomic_file``.
    """
    stored: Arrays = {**arrays, "head": np.frombuffer(json.dumps(head, sort_keys=True).encode(), dtype=np.uint8)}
    checksum = np.frombuffer(bytes.fromhex(sha256_of_arrays(stored)), dtype=np.uint8)
    with atomic_file(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, sha256=checksum, **stored)


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and head of a file of ``write_arrays``. No pickle is read.

    Raises FileNotFoundError where there is none, DamagedFileError where it is damaged, another file or not to be
    read.
    """
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
    except PermissionError as problem:
        raise DamagedFileError(f"{path} cannot be read by this user ({problem.strerror}).") from problem
    except (*ARCHIVE_ERRORS, KeyError, TypeError, AttributeError) as problem:
        raise DamagedFileError(f"{path} is damaged ({problem}).") from problem


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Write tensors and a JSON header to a safetensors file, atomically. Returns the content hash of the tensors.

    The header is covered by a hash of its own, so that the content hash names the weights alone.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in plain.items():  # tied weights are written once for each of their names
        if tensor.untyped_storage().data_ptr() in seen:
            plain[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    digest = content_hash(plain)
    metadata = {key: json.dumps(value, allow_nan=False) for key, value in {**header, "sha256": digest}.items()}
    metadata["header_sha256"] = _header_hash(metadata)
    write_atomically(path, serialise(plain, metadata))
    return digest


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of a file of ``write_tensors``, without its tensors. Raises as ``read_tensors`` does."""
    with _opened(path) as file:
        return _header(path, file.metadata())


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of ``write_tensors``.

    Raises FileNotFoundError where there is no such file, DamagedFileError where it is truncated, altered, or no
    file of ours.
    """
    with _opened(path) as file:
        header = _header(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if content_hash(tensors) != header["sha256"]:
        raise DamagedFileError(
            f"{path} was altered or damaged: its tensors do not match the hash in its header. Use an earlier "
            "checkpoint or fetch the file again."
        )
    return tensors, header


@contextlib.contextmanager
def _opened(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Check the path; runs keep theirs in <run>/checkpoints, and shipped models are "
            "found by experiments.results.shipped_weights.shipped_file(name)."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise DamagedFileError(
            f"{path} is truncated, damaged, or no safetensors file ({error}). Use an earlier checkpoint or fetch the "
            "file again."
        ) from error


def _header(path: str | Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    entries = dict(metadata or {})
    expected = entries.pop("header_sha256", None)
    if expected is None or "sha256" not in entries:
        raise DamagedFileError(f"{path} was not written by metadensity, or its header is damaged: it lacks its hashes.")
    if _header_hash(entries) != expected:
        raise DamagedFileError(
            f"{path} was altered or damaged: its header does not match the hash in it. Use an earlier checkpoint or "
            "fetch the file again."
        )
    return {key: json.loads(value) for key, value in entries.items()}


def _header_hash(entries: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(entries), sort_keys=True).encode()).hexdigest()


class JsonLines:
    """An append-only file of strict JSON, one object a line; the cost of a line does not grow with the file.

    A line that a crash cut off is left out by ``read``, and removed by the next ``append``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises ValueError for a number that is not finite, which JSON cannot hold, OSError where the disk is full.
        """
        for key, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key}={value} is not finite, which strict JSON ({self.path}) cannot hold. Omit it.")
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        self._mend()
        with self.path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                written = file.write(line)
                if written != len(line):  # a disk that fills up takes a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                with contextlib.suppress(OSError):  # not half a line, where that can be undone
                    file.truncate(before)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(
                        error.errno,
                        f"{os.strerror(error.errno)}: a line of {self.path} was not written; all lines before it are "
                        "intact. Free some space and go on from the last checkpoint.",
                    ) from error
                raise

    def sync(self) -> None:
        """Return when all lines are on the disk: what a checkpoint builds on must not be younger than it."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All records. A last line cut off by a crash is left out; damage elsewhere raises DamagedFileError."""
        *lines, rest = (self.path.read_bytes() if self.path.exists() else b"").split(b"\n")
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(_record(line))
            except ValueError as error:
                raise DamagedFileError(f"{self.path}, line {number}, is no JSON object: {line[:80]!r}.") from error
        with contextlib.suppress(ValueError):  # not finished by a newline
            records.append(_record(rest))
        return records

    def _mend(self) -> None:
        """Remove a last line that was cut off; where its newline alone is missing, add that."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            if not file.seek(0, os.SEEK_END):
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return
            file.seek(0)
            data = file.read()
            start = data.rfind(b"\n") + 1
            try:
                _record(data[start:])
                file.write(b"\n")
            except ValueError:
                file.truncate(start)


def _record(line: bytes) -> dict[str, Any]:
    """The object of one line. Raises ValueError where it is none, or holds a number that is not finite."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not strict JSON")

    record = json.loads(line, parse_constant=refuse)
    if not isinstance(record, dict):
        raise ValueError(f"{record!r} is no object")
    return record

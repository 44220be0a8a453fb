"""Files survive crashes, full disks and damage, and say so where they do not."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metadensity import files
from metadensity.files import (
    DamagedFileError,
    JsonLines,
    content_hash,
    read_arrays,
    read_header,
    read_tensors,
    sha256_of_arrays,
    write_arrays,
    write_atomically,
    write_tensors,
)

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b/c": torch.tensor(7), "half": torch.ones(3, dtype=torch.bfloat16)}
HEADER = {"model": "toy", "config": {"levels": 2, "event_shape": [1, 3, 3]}, "step": 12}


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_and_replacing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for data in (b"old", b"", b"new"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert left_over(path.parent) == ["file"]


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """``os.umask``, as it was again afterwards."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002, 0o022], ids=oct)
def test_a_file_has_the_mode_that_any_new_file_has(mask: int, tmp_path: Path, umask: Callable[[int], int]) -> None:
    """Private under 077, writable by the group under 002; and what its owner has set stays."""
    umask(mask)
    write_atomically(tmp_path / "file", b"new")
    write_arrays(tmp_path / "arrays", {"a": np.zeros(3)}, {})
    write_tensors(tmp_path / "tensors", TENSORS, HEADER)
    (tmp_path / "plain").write_bytes(b"new")
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in left_over(tmp_path)}
    assert modes == dict.fromkeys(("arrays", "file", "plain", "tensors"), 0o666 & ~mask)
    (tmp_path / "file").chmod(0o640)
    write_atomically(tmp_path / "file", b"newer")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_arrays_that_may_not_be_read_are_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arrays(tmp_path / "arrays", {"a": np.zeros(3)}, {})

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(DamagedFileError, match=r"arrays cannot be read by this user \(Permission denied\)"):
        read_arrays(tmp_path / "arrays")


def test_tensors_that_share_memory_are_written_for_each_of_their_names(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    given = {"a": tied, "b": tied, "turned": tied.T, "part": tied[1]}
    digest = write_tensors(tmp_path / "file", given, HEADER)
    found, _ = read_tensors(tmp_path / "file")
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    assert digest == content_hash({name: tensor.clone() for name, tensor in given.items()})


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_an_error_while_writing_leaves_the_old_file(
    call: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert left_over(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk is full: .*file was not written \(3 bytes.*intact.*Free some") as caught:
        write_atomically(path, b"new")
    assert caught.value.errno == number
    assert path.read_bytes() == b"old"
    assert left_over(tmp_path) == ["file"]


def test_a_disk_that_the_kernel_calls_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through a device that has no room, as far as the kernel is concerned."""
    path = tmp_path / "file"
    write_atomically(path, b"old")

    opened = os.open

    def on_full_device(path: Any, flags: int, mode: int = 0o777) -> int:
        return opened("/dev/full", os.O_WRONLY) if flags & os.O_EXCL else opened(path, flags, mode)

    monkeypatch.setattr(os, "open", on_full_device)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)  # not that of the device
    with pytest.raises(OSError, match="The disk is full"):
        write_atomically(path, b"new" * 100_000)
    assert path.read_bytes() == b"old"


# Forked writers are killed at a random moment; what they leave is a whole version. One process, as imports are slow.
KILL = """
import os, random, signal, sys, time
from metadensity.files import write_atomically
path, random_numbers, seen, longest = sys.argv[1], random.Random(0), set(), 0.02
write_atomically(path, b"first" * 10)
for attempt in range(40):
    child = os.fork()
    if child == 0:
        version = 0
        while True:
            version += 1
            write_atomically(path, bytes([attempt, version % 251]) * 200_000)
    time.sleep(random_numbers.uniform(0.0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    data = open(path, "rb").read()
    assert data == b"first" * 10 or (len(data) == 400_000 and data == data[:2] * 200_000), (attempt, len(data))
    longest *= 1.0 if data[0] == attempt else 1.2  # on a slow disk the first write takes longer than this
    seen.add(data[:2])
assert len(seen) > 10, "too few writes came through to test anything"
"""


def test_killed_while_writing(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, "-c", KILL, str(tmp_path / "file")]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_tensors_come_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    digest = files.write_tensors(path, TENSORS, HEADER)
    tensors, header = read_tensors(path)
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert {key: header[key] for key in HEADER} == HEADER
    assert header["sha256"] == digest == content_hash(TENSORS)
    assert read_header(path) == header


def test_layout_in_memory_does_not_matter(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(1, 2, 3, 4)
    views = {"t": whole[0, 0].T, "c": whole.to(memory_format=torch.channels_last), "e": torch.zeros(1).expand(3)}
    files.write_tensors(tmp_path / "file", views, {})
    assert all(torch.equal(tensor, views[name]) for name, tensor in read_tensors(tmp_path / "file")[0].items())


def test_content_hash_sees_everything() -> None:
    reference = content_hash({"a": torch.zeros(2, 3), "b": torch.ones(1)})
    assert reference == content_hash({"b": torch.ones(1), "a": torch.zeros(2, 3)})
    for other in (
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"x": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 1 + 2**-23)},
        {"a": torch.zeros(2, 3)},
    ):
        assert content_hash(other) != reference


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"There is no file {path}. Check the path"):
            read_tensors(path)


def test_every_truncation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_tensors(path, TENSORS, HEADER)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFileError, match=str(path)):
            read_tensors(path)


def test_every_flipped_bit_is_named(tmp_path: Path) -> None:
    """One bit of every byte: it is named, or it was in padding and the content is what it was."""
    path = tmp_path / "file"
    files.write_tensors(path, TENSORS, HEADER)
    data, flips, original, named = path.read_bytes(), random.Random(0), read_tensors(path), 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << flips.randrange(8)
        path.write_bytes(damaged)
        try:
            tensors, header = read_tensors(path)
            assert header == original[1]
            assert content_hash(tensors) == content_hash(original[0])
        except DamagedFileError as error:
            named += str(path) in str(error)
    assert named > 0.95 * len(data)


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for metadata in (None, {"format": "pt"}, {"model": '"toy"'}):
        save_file({"a": torch.zeros(2)}, path, metadata)
        with pytest.raises(DamagedFileError, match="was not written by metadensity"):
            read_tensors(path)
    path.write_bytes(b"PK\x03\x04 a zip, say" * 20)
    with pytest.raises(DamagedFileError, match="truncated, damaged, or no safetensors file"):
        read_tensors(path)


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_tensors(tmp_path / "file", TENSORS, {"loss": math.nan})
    assert left_over(tmp_path) == []


def test_lines_come_back(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "new" / "metrics.jsonl")
    assert lines.read() == []
    records = [{"step": step, "loss": 0.1 * step, "name": "Ä\u2028\n"} for step in range(5)]
    for record in records:
        lines.append(record)
    assert lines.read() == JsonLines(lines.path).read() == records
    assert [json.loads(line) for line in lines.path.read_text().split("\n")[:-1]] == records


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.append({"loss": 1.0})
    with pytest.raises(ValueError, match=f"loss={value} is not finite.*Omit it"):
        lines.append({"step": 1, "loss": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        lines.append({"nested": [value]})
    assert lines.read() == [{"loss": 1.0}]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_left_out_and_written_over(cut: int, tmp_path: Path) -> None:
    """After a crash in the middle of a line the file is read without it, and goes on without damage."""
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.append({"step": 1})
    lines.append({"step": 2})
    lines.path.write_bytes(lines.path.read_bytes()[:-cut])
    kept = [{"step": 1}, {"step": 2}] if cut == 1 else [{"step": 1}]  # the newline alone is missing, nothing is lost
    assert lines.read() == kept
    for step in (3, 4):
        JsonLines(lines.path).append({"step": step})
    assert lines.read() == [*kept, {"step": 3}, {"step": 4}]


@pytest.mark.parametrize("damage", [b"{]", b"\xff\xfe", b"NaN", b"3", b""], ids=repr)
def test_damage_in_the_middle_is_named(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    with pytest.raises(DamagedFileError, match=r"metrics.jsonl, line 2, is no"):
        JsonLines(path).read()


def test_appending_costs_the_same_in_a_long_file(tmp_path: Path) -> None:
    """Bytes read and written for one more line, not seconds, which would depend on the machine."""
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.path.write_bytes(b'{"step": 1, "loss": 0.5}\n' * 200_000)

    def moved() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"]) + int(counts["wchar"])

    before = moved()
    overhead = moved() - before
    before = moved()
    lines.append({"step": 2})
    assert moved() - before - overhead < 20_000


def test_a_full_disk_stops_the_lines(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        JsonLines("/dev/full").append({"step": 1})


def test_an_interrupted_write_of_arrays_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    np.savez(path, sha256=np.zeros(32, np.uint8), head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_arrays(path)


def test_hashes_are_those_of_files_written_before() -> None:
    """Both hashes stand in files: they must never change."""
    assert content_hash({"b": torch.tensor([1, 2]), "a": torch.tensor(0.5)}).startswith("35c9b0ea0aabbc22")
    assert sha256_of_arrays({"b": np.array([1, 2]), "a": np.array(0.5)}).startswith("f098d62fa567b0ff")

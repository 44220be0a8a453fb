"""The memory-mapped store: what is written is read, and memory stays flat however much is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metadensity.files import DamagedFileError
from tasks import DataError
from tasks.folders.pixel_store import MappedPixels, open_store, write_store

RECIPE = {"made": 1}


def noise(count: int, size: int, part: int = 10) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    for start in range(0, count, part):
        yield random.integers(0, 256, (min(part, count - start), 3, size, size), dtype=np.uint8)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    expected = np.concatenate(list(noise(25, 4)))
    store = write_store(tmp_path / "x", RECIPE, (25, 3, 4, 4), noise(25, 4))
    rows = np.array([[3, 24], [3, 0]])
    assert (store.pixels.take(rows) == expected[rows]).all()
    assert store.pixels.take(rows).shape == (2, 2, 3, 4, 4)
    assert store.pixels.take(rows[:0]).shape == (0, 2, 3, 4, 4)
    assert len({digest.tobytes() for digest in store.digests}) == 25
    taken = store.pixels.take(rows)
    taken[:] = 0  # a copy: neither the file nor the next reader sees it
    assert (store.pixels.take(rows) == expected[rows]).all()


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "x", RECIPE, (25, 3, 4, 4), noise(25, 4))
    for recipe, shape in (({"made": 2}, (25, 3, 4, 4)), (RECIPE, (24, 3, 4, 4))):
        with pytest.raises(DamagedFileError, match="another recipe"):
            open_store(tmp_path / "x", recipe, shape)


def test_nothing_is_left_of_a_store_that_failed(tmp_path: Path) -> None:
    def failing() -> Iterator[NDArray[np.uint8]]:
        yield from noise(10, 4)
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        write_store(tmp_path / "x", RECIPE, (25, 3, 4, 4), failing())
    assert not list(tmp_path.iterdir())


def test_a_cache_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .*XDG_CACHE_HOME"):
        write_store(tmp_path / "file" / "x", RECIPE, (25, 3, 4, 4), noise(25, 4))


def test_the_mapping_is_renewed(tmp_path: Path) -> None:
    write_store(tmp_path / "x", RECIPE, (25, 3, 4, 4), noise(25, 4))
    pixels = MappedPixels(tmp_path / "x.npy", window=3 * 131072)
    expected = pixels.take(np.arange(25))
    for row in range(25):
        assert (pixels.take(np.array(row)) == expected[row]).all()
        assert pixels._mapped <= pixels.window


GROWTH = """
import sys, numpy as np
from pathlib import Path
from tests.tasks.folders.test_pixel_store import noise
from tasks.folders.pixel_store import open_store, write_store
from tasks.folders.stored import StoredTasks

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024

count, size, stem = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
shape = (count, 3, size, size)
before = resident()
store = write_store(stem, {}, shape, noise(count, size, 100))
written = resident()
task = StoredTasks("x", "train", 0, store=store, rows=range(count), labels=np.arange(count) // 5,
                   class_names=[str(i) for i in range(count // 5)], group_names=["x"],
                   class_group=[0] * (count // 5), event_shape=shape[1:], levels=256, recipe={})
built = resident()
task.fingerprint
most, seen = 0, 0
for index in range(count // 64):
    episode = task.episode(index, 16, 3, 1)
    seen += 64
    most = max(most, resident())
print(before, written, built, most, seen, int(np.prod(shape)) // 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc, as on Linux")
def test_memory_stays_flat(repo_root: Path, tmp_path: Path) -> None:
    """As many draws as there are images, 234 MiB of them: the process grows by the window of 64 MiB and a little."""
    command = [sys.executable, "-c", GROWTH, "20000", "64", str(tmp_path / "x")]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True)
    before, written, built, most, _, size = map(int, done.stdout.split())
    assert size == 234
    assert written - before < 60, done.stdout
    assert built - written < 20, done.stdout
    assert most - written < 64 + 40, done.stdout

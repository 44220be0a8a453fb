"""What is freed is kept for the next tensors, rather than given back to the system and mapped anew."""

import ctypes
import subprocess
import sys

import pytest

KEPT = """
import ctypes
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [libc.malloc(ctypes.c_size_t(20 << 20)) for _ in range(10)]
for block in blocks:
    libc.free(ctypes.c_void_p(block))

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks "
                "fordblks keepcost".split()]

libc.mallinfo2.restype = Info
print(libc.mallinfo2().fordblks >> 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="other C libraries have no such settings")
def test_memory_is_kept_by_experiments_and_not_without_them() -> None:
    kept, kept_without = (
        int(subprocess.check_output([sys.executable, "-c", KEPT.format(first=first)], text=True))
        for first in ("import experiments", "")
    )
    assert kept >= 200  # MiB free, and not given back
    assert kept_without < 50

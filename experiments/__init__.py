"""Sacred experiments: a file here is a command, ``python -m experiments.NAME``; a folder holds what commands share.

Importing this package sets up the process: how threads wait, how memory is kept, and one filter of warnings. All three
have to be set before torch and Sacred are imported, and this file runs before the imports of every command. It also
says where a file of the user's hides one of the packages.
"""

import ctypes
import importlib.util
import os
import sys
import warnings
from pathlib import Path

# Threads that wait spin only briefly before they give their core back. With the default, 15 times as long, training
# beside one other busy process was 27 times slower than with threads that sleep at once; those cost 40 % on an idle
# machine, this 10 %. It has to be said before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def keep_memory() -> None:
    """Let glibc keep what torch frees, up to 1 GiB, for its next tensors; nothing happens where there is no glibc.

    Given back, it is zeroed and mapped anew page by page: a tenth of the time of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, its largest: blocks up to this size can be kept
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


keep_memory()

# Sacred's, at every start; nothing a user could act on.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")


def hidden_package() -> str | None:
    """A sentence where Python finds another ``metadensity`` or ``tasks`` than those beside this package, else None."""
    root = Path(__file__).resolve().parent.parent
    for name in ("metadensity", "tasks"):
        found = importlib.util.find_spec(name)
        if found is not None and found.origin and Path(found.origin).resolve() != root / name / "__init__.py":
            return (
                f"{found.origin} hides the package {name!r}, which experiments need, as Python looks in its folder "
                "first. Rename it, or start from another folder."
            )
    return None


if (_hidden := hidden_package()) is not None:
    if sys.argv[:1] == ["-m"]:  # a command is being started: a sentence, and no traceback
        sys.exit(_hidden)
    raise ImportError(_hidden)

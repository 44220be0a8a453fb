"""Small native kernels, built by the C++ compiler of the machine when first needed; how they are built.

One takes a few seconds to build and is kept in the user's cache folder, under a hash of its source and of what the
processor can do. Without a compiler, or with METADENSITY_NATIVE=0 in the environment, the same is computed in torch:
samplers draw the same pixels, layers (``nn/functional/gated_layer.py``) give the same but for rounding.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

CSRC = Path(__file__).with_name("csrc")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC", f"-I{CSRC}")
_log = logging.getLogger(__name__)


def load(source: Path, users: str) -> ctypes.CDLL | None:
    """The kernel of ``source``, or None where it is switched off or cannot be built: the log says so of ``users``."""
    if os.environ.get("METADENSITY_NATIVE") == "0":
        return None
    try:
        return ctypes.CDLL(str(build(_folder(), source)))
    except (OSError, subprocess.SubprocessError) as problem:
        output = getattr(problem, "stderr", None) or b""
        _log.info("%s run in torch alone, more slowly: %s %s", users, problem, output.decode(errors="replace"))
        return None


def build(folder: Path, source: Path) -> Path:
    """Compile the kernel of ``source`` into ``folder`` unless it lies there; returns its path.

    Raises OSError where there is no compiler or the folder cannot be written, SubprocessError where compiling fails.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler (c++, g++, clang++, or the one named by CXX).")
    command = [*compiler.split(), *FLAGS, str(source)]
    described = "\n".join([*command[:-2], platform.machine(), _processor()])
    text = b"".join(path.read_bytes() for path in [source, *sorted({*CSRC.rglob("*.h"), *source.parent.glob("*.h")})])
    digest = hashlib.sha256(described.encode() + text).hexdigest()
    target = folder / f"{source.stem}-{digest[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=folder)
        os.close(handle)
        try:  # to a temporary name, then renamed: builds at the same time do not meet, and none is left half done
            subprocess.run([*command, "-o", temporary], check=True, capture_output=True, timeout=300)
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return target


def _folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "metadensity" / "native"


def _processor() -> str:
    """What the processor can do, where the system says so: code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())

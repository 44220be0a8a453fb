"""Small native kernels, built by the C++ compiler of the machine when first needed; how they are built and loaded.

One takes up to half a minute to build and is kept in the user's cache folder, under a hash of its source, the compiler
and its flags, and what the processor can do. Without a compiler, or with METADENSITY_NATIVE=0 in the environment, the
same is computed in torch: samplers draw the same pixels, layers (``nn/functional/gated_layer.py``) give the same but
for rounding. METADENSITY_NATIVE_FLAGS adds flags to the compiler's; one that begins with -m takes the place of
-march=native, so that "-mavx2 -mfma" gives what a processor without AVX-512 runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock

CSRC = Path(__file__).with_name("csrc")
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC", f"-I{CSRC}")
# At the level of a warning, which Python prints where nobody has set up logging: in a terminal and in a notebook.
_log = logging.getLogger(__name__)
_disabled: ContextVar[bool] = ContextVar("disabled", default=False)
_reported: set[str] = set()  # why kernels could not be built: the log says each once


class Arguments(ctypes.Structure):
    """What a kernel is called with. Its C struct has the same fields in the same order, which loading compares."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).__dict__:  # ctypes would take it, and the kernel never see it
            raise AttributeError(f"{type(self).__name__} has no field {name!r}.")
        super().__setattr__(name, value)


def fields(numbers: str, pointers: str, **more: type) -> list[tuple[str, type]]:
    """The fields of ``Arguments``: whole numbers and pointers, by names with spaces between, and others after them."""
    of_kinds = {ctypes.c_int64: numbers, ctypes.c_void_p: pointers}
    return [(name, kind) for kind, names in of_kinds.items() for name in names.split()] + [*more.items()]


class _Field(ctypes.Structure):
    """``Field`` in common/layout.h."""

    _fields_ = (("name", ctypes.c_char_p), ("offset", ctypes.c_int64))


class Kernel:
    """A source in C++, built and loaded when first asked for.

    users: what runs in torch without it, for the log. arguments: its struct, whose layout it gives as
    ``<stem of the source>_layout``. functions: by name, the types of the arguments, and of the result.
    """

    def __init__(
        self,
        source: Path,
        users: str,
        arguments: type[Arguments],
        functions: Mapping[str, tuple[Sequence[Any], Any]],
    ) -> None:
        self.source, self.users, self.arguments, self.functions = source, users, arguments, functions
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Look for it anew when next asked for."""
        self._found: tuple[ctypes.CDLL | None, str | None] | None = None
        _reported.clear()

    def library(self) -> ctypes.CDLL | None:
        """The loaded kernel, or None where it is switched off or cannot be built (which the log says, once).

        Raises RuntimeError where its struct is not laid out as ``arguments``.
        """
        return None if _disabled.get() else self._look()[0]

    def why_not(self) -> str | None:
        """Why ``library`` is None; None where it is not."""
        return "inside metadensity.native.disabled()" if _disabled.get() else self._look()[1]

    @property
    def asked_for(self) -> bool:
        """Whether it was asked for already."""
        return self._found is not None

    def fingerprint(self) -> str | None:
        """A hash of its machine code; None where ``library`` is."""
        library = self.library()
        return None if library is None else hashlib.sha256(Path(library._name).read_bytes()).hexdigest()[:16]

    def _look(self) -> tuple[ctypes.CDLL | None, str | None]:
        if self._found is None:
            with self._lock:
                self._found = self._found or self._load()
        return self._found

    def _load(self) -> tuple[ctypes.CDLL | None, str | None]:
        if os.environ.get("METADENSITY_NATIVE") == "0":
            return None, "switched off by METADENSITY_NATIVE=0"
        try:
            found = ctypes.CDLL(str(build(_folder(), self.source)))
        except (OSError, subprocess.SubprocessError) as problem:
            output = (getattr(problem, "stderr", None) or b"").decode(errors="replace")
            why = f"{problem} {output}".strip()
            if why not in _reported:
                _reported.add(why)
                text = "%s run in torch alone, several times more slowly, as their kernel cannot be built: %s "
                _log.warning(text + "(METADENSITY_NATIVE=0: no kernels, and no word of it)", self.users, why)
            return None, why
        check_layout(self.arguments, getattr(found, f"{self.source.stem}_layout"))
        for name, (arguments, result) in self.functions.items():
            getattr(found, name).argtypes, getattr(found, name).restype = arguments, result
        return found, None


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """No native kernels in this thread while it lasts: all is computed in torch."""
    before = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(before)


def check_layout(arguments: type[Arguments], layout: Any) -> None:
    """Raise RuntimeError unless the C struct, whose fields ``layout`` gives, is laid out as ``arguments``."""
    layout.restype = ctypes.POINTER(_Field)
    field: Any = layout()
    theirs: list[tuple[str, int]] = []
    while True:
        theirs.append((field[len(theirs)].name.decode(), field[len(theirs)].offset))
        if theirs[-1][0] == "end":
            break
    ours = [(name, getattr(arguments, name).offset) for name, *_ in arguments._fields_]
    for mine, other in zip([*ours, ("end", ctypes.sizeof(arguments))], theirs, strict=False):
        if mine != other:
            raise RuntimeError(
                f"{arguments.__name__} has {mine[0]!r} at byte {mine[1]} where the C struct has {other[0]!r} at byte "
                f"{other[1]}: make their fields the same, in the same order."
            )


def build(folder: Path, source: Path) -> Path:
    """Compile the kernel of ``source`` into ``folder`` unless it lies there; returns its path.

    Processes that ask for it at the same time build it once. Raises OSError where there is no compiler or the folder
    cannot be written, SubprocessError where compiling fails.
    """
    compiler = (
        shlex.split(os.environ.get("CXX", ""))
        or [found for found in ("c++", "g++", "clang++") if shutil.which(found)][:1]
    )
    if not compiler:
        raise FileNotFoundError("there is no C++ compiler (c++, g++, clang++, or the one named by CXX).")
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    command = [*compiler, *flags()]
    described = "\n".join([*command, platform.machine(), _processor()]).encode() + version
    text = b"".join(path.read_bytes() for path in [source, *sorted({*CSRC.rglob("*.h"), *source.parent.glob("*.h")})])
    target = folder / f"{source.stem}-{hashlib.sha256(described + text).hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock"), timeout=600, mode=0o666):
            if not target.exists():
                _log.warning("compiling %s for this machine, which takes up to half a minute, once", source.name)
                _compile([*command, str(source)], target)
    return target


def flags() -> list[str]:
    """The compiler's, but for the names of files."""
    more = shlex.split(os.environ.get("METADENSITY_NATIVE_FLAGS", ""))
    target = [] if any(flag.startswith("-m") for flag in more) else ["-march=native"]
    return [*FLAGS, *target, *more]


def _compile(command: Sequence[str], target: Path) -> None:
    temporary = target.with_suffix(".part")  # the lock is held; and the compiler gives it the mode of any new file
    try:  # to a temporary name, then renamed: none is left half done
        subprocess.run([*command, "-o", str(temporary)], check=True, capture_output=True, timeout=300)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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

"""learn2learn and torchmeta, imported when asked for, with what they need to run on current releases.

Their last releases (learn2learn 0.2.0, torchmeta 1.8.0) were written for torchvision 0.10 and torch 1.9. Nothing in
them is changed on disk; the few names that are missing today are put in place around their import.
Both draw their tasks from Python's ``random``, so seed that.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

HOW_TO_INSTALL = (
    "In a clone of metadensity, run `make setup`; in an environment of your own, "
    "`uv pip install -r pyproject.toml --extra meta`."
)


@functools.cache
def import_learn2learn() -> ModuleType:
    """Return the module ``learn2learn``. Raises ImportError, saying how to install it, where it is missing.

    Its ``clone_module``, and so the ``clone`` of its algorithms, then says why it cannot copy a compiled module.
    """
    _declare_operators()
    # learn2learn imports gym, which prints a notice to stderr about its own age at every import.
    _import("gym_notices.notices", "learn2learn").notices.clear()
    learn2learn = _import("learn2learn", "learn2learn")
    clone = functools.wraps(learn2learn.clone_module)(functools.partial(_cloned, learn2learn.clone_module))
    for name in ("learn2learn", "learn2learn.utils", "learn2learn.algorithms.maml", "learn2learn.algorithms.meta_sgd"):
        vars(importlib.import_module(name))["clone_module"] = clone
    return learn2learn


def _cloned(clone_module: Callable[..., Any], module: Any, memo: dict[Any, Any] | None = None) -> Any:
    """learn2learn's copy of a module, which fetches ``_parameters`` of a compiled one without end."""
    if type(module).__name__ == "OptimizedModule":  # torch's, whose class takes seconds to import
        raise RecursionError(
            "learn2learn cannot clone a module of torch.compile. Compile what comes after: learner = "
            "MAML(model).clone(), then torch.compile of a function that calls learner; it sees adapt."
        )
    return clone_module(module, memo)


@functools.cache
def import_torchmeta() -> ModuleType:
    """Return the module ``torchmeta``. Raises ImportError, saying how to install it, where it is missing."""
    _declare_operators()
    downloads = _import("torchvision.datasets.utils", "torchmeta")
    # torchmeta imports these two private helpers, which torchvision has dropped; it only reaches them in downloads.
    for name in ("_get_confirm_token", "_save_response_content"):
        if not hasattr(downloads, name):
            setattr(downloads, name, None)
    torchmeta = _import("torchmeta", "torchmeta")

    utils: Any = importlib.import_module("torchmeta.datasets.utils")
    # Used there, but imported nowhere.
    utils.check_integrity = downloads.check_integrity
    utils.download_file_from_google_drive = downloads.download_file_from_google_drive

    # torch's Subset has a __getitems__ now, and refuses subclasses that replace __getitem__ alone.
    subset_task = importlib.import_module("torchmeta.utils.data.task").SubsetTask
    subset_task.__getitems__ = lambda self, indices: [self[index] for index in indices]
    return torchmeta


@functools.cache
def import_torchvision() -> ModuleType:
    """Return the module ``torchvision``. Raises ImportError, saying how to install it, where it is missing."""
    _declare_operators()
    _import("torchvision.datasets", "torchvision")
    return _import("torchvision", "torchvision")


@functools.cache
def _declare_operators() -> None:
    """Make torchvision importable where its compiled part does not fit the installed torch.

    torchvision as published holds CUDA code. Beside a CPU build of torch that does not load, and the import then fails
    at two operators that were never declared. They are declared here: everything but the compiled operators works.
    """
    spec = importlib.util.find_spec("torchvision")  # finds it without importing it
    if spec is None or spec.origin is None or "torchvision" in sys.modules or _loads(Path(spec.origin).parent):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep_alive.append(library)


_keep_alive: list[Any] = []  # an operator lives only as long as the Library that declared it


def _loads(folder: Path) -> bool:
    """Whether torchvision's compiled operators load; where they do, they must not be declared a second time."""
    compiled = [path for path in folder.glob("_C*") if path.suffix in (".so", ".pyd", ".dylib")]
    try:
        for path in compiled:
            torch.ops.load_library(path)
    except OSError:
        return False
    return bool(compiled)


def _import(name: str, wanted_by: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{wanted_by} cannot be imported: the package {error.name!r} is not installed. {HOW_TO_INSTALL}"
        ) from error

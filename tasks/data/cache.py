"""Arrays that are built once and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from metadensity.files import Arrays, DamagedFileError, read_arrays, write_arrays
from tasks.data import roots
from tasks.data.notices import SAID, say_once

WARNINGS = "warnings"  # the array of a cache that holds what was said while it was built
_log = logging.getLogger(__name__)


def sha256_of_json(value: object) -> str:
    """SHA-256, in hex, of ``value`` as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cached(name: str, recipe: dict[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """``build()``, or what an earlier call with an equal recipe built, from the user's cache folder.

    What ``build`` warns of is kept as well, and said again whenever the cache answers. A folder of data that the user
    named is never written to. A damaged file, or one of an earlier version, which does not hold the warnings, is built
    again; a cache folder that cannot be written only costs time.
    """
    path = roots.user_cache() / "cache" / f"{name}-{sha256_of_json(recipe)[:16]}.npz"
    try:
        arrays, head = read_arrays(path)
        if sha256_of_json(head) != sha256_of_json(recipe):
            _log.warning("the cache %s was made by another recipe: building it again.", path)
        elif WARNINGS in arrays:
            for text in json.loads(arrays.pop(WARNINGS).tobytes()):
                say_once(text)
            return arrays
    except FileNotFoundError:
        pass
    except DamagedFileError as problem:
        _log.warning("%s It is only a cache: building it again.", problem)
    with _overheard() as said:
        arrays = build()
    SAID.update(said)
    try:
        write_arrays(path, {**arrays, WARNINGS: np.frombuffer(json.dumps(said).encode(), dtype=np.uint8)}, recipe)
    except OSError as problem:
        _log.debug("no cache written to %s: %s", path, problem)
    return arrays


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the tasks warn of within this, as a list; it is said as well."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            if logging.lastResort is not None and not logging.getLogger().handlers:  # which this one stands in for
                logging.lastResort.handle(record)

    listener, tasks = Listener(logging.WARNING), logging.getLogger("tasks")
    tasks.addHandler(listener)
    try:
        yield said
    finally:
        tasks.removeHandler(listener)

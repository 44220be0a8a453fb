"""Arrays that are built once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

from metadensity.files import Arrays, DamagedFileError, read_arrays, write_arrays
from tasks.data import roots

_log = logging.getLogger(__name__)


def sha256_of_json(value: object) -> str:
    """SHA-256, in hex, of ``value`` as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cached(name: str, recipe: dict[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """``build()``, or what an earlier call with an equal recipe built, from the user's cache folder.

    A folder of data that the user named is never written to. A damaged file is built again, with a
    warning; a cache folder that cannot be written only costs time.
    """
    path = roots.user_cache() / "cache" / f"{name}-{sha256_of_json(recipe)[:16]}.npz"
    try:
        arrays, head = read_arrays(path)
        if sha256_of_json(head) == sha256_of_json(recipe):
            return arrays
        _log.warning("the cache %s was made by another recipe: building it again.", path)
    except FileNotFoundError:
        pass
    except DamagedFileError as problem:
        _log.warning("%s It is only a cache: building it again.", problem)
    arrays = build()
    try:
        write_arrays(path, arrays, recipe)
    except OSError as problem:
        _log.debug("no cache written to %s: %s", path, problem)
    return arrays

"""Trained models that are shipped: their names, and where their files are.

``weights.json`` beside this file lists them with the SHA-256 of each file. The files, 24 MB, lie in the repository and
are not part of the installed package, which looks for them where METADENSITY_WEIGHTS says, or in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

from experiments.results import RESULTS, WEIGHTS
from metadensity.files import DamagedFileError, write_atomically
from tasks.data.roots import user_cache

REGISTRY = RESULTS / "weights.json"
SUFFIX = ".safetensors"
SPELLINGS = ("weights", "experiments/results/weights")  # folders by which a shipped file may be named, wherever it lies


@functools.cache
def shipped() -> dict[str, str]:
    """The SHA-256 of each shipped file, by the model's name."""
    found: dict[str, str] = json.loads(REGISTRY.read_text())
    return found


def shipped_name(text: str) -> str | None:
    """The shipped model that ``text`` names, by its name or as ``weights/NAME.safetensors``; None for another."""
    path = Path(text)
    name = path.stem if path.suffix == SUFFIX and path.parent.as_posix() in SPELLINGS else text
    return name if name in shipped() else None


def shipped_file(name: str) -> Path:
    """The file of a shipped model, for ``metadensity.load``.

    Taken is the first there is: in the folder METADENSITY_WEIGHTS, in the repository, in the user's cache folder.
    Raises ValueError where no model of this name is shipped, FileNotFoundError where its file is in none of the three
    or METADENSITY_WEIGHTS is no folder, DamagedFileError where the file found is another one.
    """
    if name not in shipped():
        raise ValueError(f"No model called {name!r} is shipped; there are {', '.join(shipped())}.")
    sha256 = shipped()[name]
    cache = user_cache() / "weights"
    folders = [WEIGHTS, cache]
    if given := os.environ.get("METADENSITY_WEIGHTS"):
        folders.insert(0, Path(given).expanduser())
        if not folders[0].is_dir():
            raise FileNotFoundError(f"METADENSITY_WEIGHTS is {given}, which is no folder. Name one that holds weights.")
    path = next((path for folder in folders if (path := folder / f"{name}{SUFFIX}").is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"The weights of {name} are not here, as they are no part of the installed package. They are the file "
            f"{name}{SUFFIX} with sha256 {sha256}, in experiments/results/weights of the repository. Set "
            f"METADENSITY_WEIGHTS to a folder that holds it, or put it into {cache}."
        )
    if (found := _sha256(path)) != sha256:
        raise DamagedFileError(
            f"{path} is not the file that is shipped as {name}: its sha256 is {found}, not {sha256}. Copy it anew; "
            "where it was trained anew on purpose, `python -m experiments.reproduce registry` makes it the shipped one."
        )
    return path


def write_registry() -> list[str]:
    """List what lies in the repository's folder of weights in ``weights.json``. Returns the names."""
    found = {path.stem: _sha256(path) for path in sorted(WEIGHTS.glob(f"*{SUFFIX}"))}
    write_atomically(REGISTRY, json.dumps(found, indent=1).encode() + b"\n")
    shipped.cache_clear()
    return list(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The folder of published data sets, and the user's cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pooch

from metadensity.files import DamagedFileError


class DataError(DamagedFileError):
    """A data set, a split file or an episode set is missing, damaged or not the one expected."""


@dataclass(frozen=True)
class DataRoot:
    """The folder that holds the data sets. ``named``: the user chose it, so nothing is put there unasked."""

    path: Path
    named: bool


def find_data_root(given: str | os.PathLike[str] | None = None) -> DataRoot:
    """``given``, else the environment's METADENSITY_DATA, else a cache folder of the user's.

    Raises DataError where a folder that was named does not exist.
    """
    if given is None and not os.environ.get("METADENSITY_DATA"):
        return DataRoot(user_cache(), named=False)
    source = "METADENSITY_DATA" if given is None else "data_root"
    path = Path(os.environ["METADENSITY_DATA"] if given is None else given).expanduser()
    if not path.is_dir():
        raise DataError(f"{source} is {path}, which is no folder. Create it, or name the folder that holds the data.")
    return DataRoot(path, named=True)


def user_cache() -> Path:
    """The user's own cache folder for this project, by the conventions of the operating system."""
    return Path(pooch.os_cache("metadensity"))

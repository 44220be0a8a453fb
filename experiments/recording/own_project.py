"""Models and tasks of the user's own project, which every command then knows by their names.

A project names them in its ``pyproject.toml``, as entry points:

    [project.entry-points."metadensity.models"]
    counted_pixels = "counted_pixels:CountedPixels"

    [project.entry-points."metadensity.tasks"]
    bars = "bars:bars"

They are known in the project's folder and those below it, as it is, and everywhere once it is installed.
METADENSITY_PROJECT names the folder from elsewhere, and tells the processes that a command starts.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import MutableMapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from metadensity.models import MODELS
from tasks import TASKS

VARIABLE = "METADENSITY_PROJECT"
REGISTRIES: dict[str, MutableMapping[str, Any]] = {"metadensity.models": MODELS, "metadensity.tasks": TASKS}


def register() -> None:
    """List what the projects that are installed, and the one of the current folder, name.

    Raises ValueError where METADENSITY_PROJECT is no such project, ImportError for what cannot be imported, and for a
    name that there is already.
    """
    if (folder := project_folder()) is not None:
        os.environ[VARIABLE] = str(folder)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        for entry in _named_in(folder / "pyproject.toml"):
            _list(entry, f"{folder / 'pyproject.toml'}")
    for group in REGISTRIES:
        for entry in entry_points(group=group):
            _list(entry, f"The installed package {entry.dist.name if entry.dist else ''}")


def register_or_say() -> None:
    """``register``; while a command starts, what cannot be is a sentence, and the exit status 2, but with --debug."""
    try:
        register()
    except (ImportError, ValueError) as error:
        started = getattr(sys.modules["__main__"], "__spec__", None)
        if started is None or not started.name.startswith("experiments.") or "--debug" in sys.argv:
            raise
        print(error, file=sys.stderr)
        sys.exit(2)


def project_folder() -> Path | None:
    """The folder METADENSITY_PROJECT, else the nearest from the current one upwards that names models or tasks."""
    if given := os.environ.get(VARIABLE):
        folder = Path(given).expanduser().resolve()
        if not (folder / "pyproject.toml").is_file():
            raise ValueError(f"{VARIABLE} is {given}, where there is no pyproject.toml. Name a project, or unset it.")
        return folder
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _named_in(folder / "pyproject.toml")), None)


def _named_in(file: Path) -> list[EntryPoint]:
    """The entry points of both groups in a pyproject; none where there is no file."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not any(group in text for group in REGISTRIES):
        return []
    try:
        groups = tomllib.loads(text).get("project", {}).get("entry-points", {})
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} cannot be read: {error}.") from error
    return [EntryPoint(name, value, group) for group in REGISTRIES for name, value in groups.get(group, {}).items()]


def _list(entry: EntryPoint, where: str) -> None:
    registry, what = REGISTRIES[entry.group], entry.group.rpartition(".")[2].removesuffix("s")
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"{where} names {entry.value} as the {what} {entry.name!r}, which cannot be imported: {error}. Give it as "
            "FILE:NAME, of a file in the project's folder."
        ) from error
    if registry.get(entry.name, found) is not found:
        raise ImportError(f"{where} names a {what} {entry.name!r}, and there is one called so. Call it otherwise.")
    registry[entry.name] = found

"""What a run was made with: the script, the code beside it, the repositories of both, the versions of packages.

Sacred asks the module that makes an ``Experiment``, which here is the same helper for all of them. These ask the script
that was run, and the library.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacred.dependencies import PackageDependency, get_digest

import metadensity
from experiments.recording.own_project import project_folder

FLOORS = ("metadensity", "tasks", "experiments")
LIBRARY = Path(__file__).resolve().parents[2]  # the folder that holds the three


@dataclass(frozen=True)
class Repository:
    """A git repository at its newest commit. changed: files that differ from it. tracked: all that it has."""

    root: Path
    url: str
    commit: str
    tracked: frozenset[Path]
    changed: frozenset[Path]

    def differs(self, files: Iterable[Path]) -> bool:
        """Whether the commit does not hold the code as it is, these files among it."""
        return bool(self.changed) or any(file not in self.tracked for file in files)


def experiment_info(name: str, script: Path | None) -> dict[str, Any]:
    """What Sacred records of an experiment, as it is once all was imported.

    script: the file that was run, None where there is none, as in a notebook. Sources are the script, the modules
    loaded from its repository or folder or from the user's own project, and of the library those that differ from its
    commit: the others are in it.
    Names of sources are relative to ``base_dir`` where they lie in it.
    """
    base, own = LIBRARY if script is None else base_of(script), project_folder()
    files = set() if script is None else {script}
    for floor, file in _loaded():
        if floor:
            files |= {file} if _is_changed_library(file) else set()
        elif (script is not None and file.is_relative_to(base)) or (own is not None and file.is_relative_to(own)):
            files.add(file)
    of_own = repository_of(own / "pyproject.toml") if own else None
    homes = dict.fromkeys(
        home for home in (repository_of(script) if script else None, of_own, _home_of_library()) if home
    )
    return {
        "name": name,
        "base_dir": str(base),
        "mainfile": None if script is None else _named(script, base),
        "sources": [(_named(file, base), get_digest(file)) for file in sorted(files)],
        "repositories": [
            {"url": each.url, "commit": each.commit, "dirty": each.differs(file for file in files if _in(file, each))}
            for each in homes
        ],
        "dependencies": sorted({f"metadensity=={metadensity.__version__}", *_packages()}, key=str.lower),
    }


def base_of(script: Path) -> Path:
    """The repository that a script lies in, or else the folder that holds its package."""
    found = repository_of(script)
    if found is not None:
        return found.root
    folder = script.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def repository_of(file: Path) -> Repository | None:
    """The git repository of a file; None where it is in none, or is one that its repository ignores.

    A package installed inside a project is no part of that project's repository.
    """
    found = _repository(file.parent)
    if found is None or file in found.tracked:
        return found
    return None if _git(file.parent, "check-ignore", "--quiet", file.name) is not None else found


@functools.cache  # the code of a process is that which it began with
def _repository(folder: Path) -> Repository | None:
    commit = _git(folder, "rev-parse", "--verify", "HEAD")  # there may be none yet
    top = _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    root = Path(top.strip()).resolve()
    remote = (_git(root, "remote") or "").split()
    url = _git(root, "remote", "get-url", remote[0]) if remote else None
    tracked, changed = (
        frozenset(root / name for name in (_git(root, *command, "-z") or "").split("\0") if name)
        for command in (("ls-files",), ("diff", "--name-only", "--no-ext-diff", "HEAD"))
    )
    return Repository(root, url.strip() if url else f"git:/{root}", commit.strip(), tracked, changed)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder; None where it fails, or there is no git."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace")
    return done.stdout if done.returncode == 0 else None


def _loaded() -> Iterator[tuple[str, Path]]:
    """Every Python file that was imported and is no installed package: the floor it is of, or "", and the file."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        path = _own_file(file) if isinstance(file, str) else None
        if path is not None:
            floor = name.partition(".")[0]
            yield (floor if floor in FLOORS and path.is_relative_to(LIBRARY) else ""), path


@functools.cache
def _own_file(file: str) -> Path | None:
    """A Python file that is neither Python's own nor installed; None for all else."""
    if not file.endswith(".py") or _is_installed(Path(file)) or file.startswith(sysconfig.get_paths()["stdlib"]):
        return None
    path = Path(file).resolve()
    return path if path.is_file() and not _is_installed(path) else None


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _home_of_library() -> Repository | None:
    file = Path(__file__).resolve()
    return None if _is_installed(file) else repository_of(file)


def _is_changed_library(file: Path) -> bool:
    """Whether a file of the library is not that of its commit. An installed library is known by its version."""
    home = _home_of_library()
    return home is None or file not in home.tracked or file in home.changed


def _in(file: Path, home: Repository) -> bool:
    return file.is_relative_to(home.root)


def _named(file: Path, base: Path) -> str:
    return str(file.relative_to(base)) if file.is_relative_to(base) else str(file)


def _packages() -> set[str]:
    """Installed packages that were imported, ``name==version``."""
    tops = {name: module for name, module in list(sys.modules.items()) if "." not in name and not name.startswith("_")}
    found = (PackageDependency.create(module) for name, module in tops.items() if name not in FLOORS)
    return {package.to_json() for package in found if package.version is not None}

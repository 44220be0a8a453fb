"""Where a run came from, in ``lineage.json`` of its folder, and chains of resumed runs read as one.

Each run of the experiments has an id of its own, as numbers of runs are given again once the last one is removed, and
names its parents: the runs it resumed, evaluated, sampled or compared, with the hash of what it took from them. Parents
are found by their place beside the run, so a folder of runs may be moved as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacred.run import Run

from experiments.recording.run_folder import RunFolder
from experiments.recording.trained_model import TrainedModel
from metadensity.files import DamagedFileError, read_header, write_atomically
from tasks import TaskDistribution

if TYPE_CHECKING:
    import pandas as pd

FILE = "lineage.json"
PLACES = ("task.data_root", "task.folder")  # settings that name where the data lie


class LineageError(RuntimeError):
    """A chain of runs that cannot be followed."""


@dataclass(frozen=True)
class Parent:
    """What a run took from another.

    run: the other's name. place: its folder, from the run's own folder. id: the other's id, None for runs without one.
    file: what was read of it, from its folder. sha256: hash of the tensors in it, or of the file where it holds none.
    step: of the checkpoint, None where it is none.
    """

    run: str
    place: str
    id: str | None
    file: str
    sha256: str
    step: int | None = None


@dataclass(frozen=True)
class Lineage:
    """id: the run's own. kind: the verb. episodes_sha256: hash of what it was trained, scored or drawn on."""

    id: str
    kind: str
    parents: tuple[Parent, ...] = ()
    episodes_sha256: str | None = None


def parent_of(child: Path, parent: Path, file: Path) -> Parent:
    """The reference from a run in ``child`` to ``file`` of the run in ``parent``: a checkpoint, or another kind."""
    step = None
    if file.suffix == ".safetensors":
        header = read_header(file)
        sha256 = str(header["sha256"])
        step = header.get("step", header.get("provenance", {}).get("step"))
    else:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    known = read(parent)
    place = os.path.relpath(parent.resolve(), child.resolve())
    within = os.path.relpath(file.resolve(), parent.resolve())
    return Parent(parent.resolve().name, place, known.id if known else None, within, sha256, step)


def parent_of_file(child: Path, weights: Path) -> Parent:
    """As ``parent_of`` for a file of weights: of the run whose checkpoints it is among, or on its own beside others."""
    inside = weights.parent.name == "checkpoints" and (weights.parent.parent / "config.json").is_file()
    return parent_of(child, weights.parent.parent if inside else weights.parent, weights)


def record(
    run: Run | None, folder: Path, kind: str, parents: Iterable[Parent] = (), episodes_sha256: str | None = None
) -> Lineage:
    """Write the lineage of the run in ``folder``, and give it to Sacred's observers in ``info``."""
    lineage = Lineage(uuid.uuid4().hex, kind, tuple(parents), episodes_sha256)
    write_atomically(folder / FILE, json.dumps(asdict(lineage), indent=1, allow_nan=False).encode())
    if run is not None:
        run.info["lineage"] = asdict(lineage)
    return lineage


def record_use(
    run: Run | None, folder: Path, kind: str, models: Iterable[TrainedModel], episodes_sha256: str | None = None
) -> Lineage:
    """The lineage of a run that uses the weights of others, the subject first."""
    return record(run, folder, kind, [parent_of_file(folder, model.best) for model in models], episodes_sha256)


def read(folder: Path) -> Lineage | None:
    """The lineage of a run; None for one that has none, such as a run of an earlier version.

    Raises DamagedFileError where the file is damaged.
    """
    path = folder / FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return Lineage(**{**found, "parents": tuple(Parent(**parent) for parent in found["parents"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFileError(
            f"{path} is damaged ({error!r}): the run's parents are not known. info.json beside it repeats it."
        ) from error


def stream_hash(*tasks: TaskDistribution) -> str:
    """Hash of the endless episodes of tasks, which are a function of the index and of what is hashed here.

    The same settings on other data (another archive, another version of a font) give another hash.
    """
    said = [[task.name, task.split, task.seed, task.fingerprint, task.recipe] for task in tasks]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def chain(run: RunFolder) -> list[tuple[RunFolder, int]]:
    """The run and those it went on from, oldest first, each with the step at which it began.

    Raises LineageError where a run of the chain is gone, or another run now has its number.
    """
    found: list[tuple[RunFolder, int]] = []
    seen: set[Path] = set()
    while True:
        if run.path.resolve() in seen:
            raise LineageError(f"{run.path} is its own ancestor: its {FILE} was altered.")
        seen.add(run.path.resolve())
        lineage = read(run.path)
        parents = lineage.parents if lineage is not None and lineage.kind == "resumed" else ()
        found.append((run, int(parents[0].step or 0) if parents else 0))
        if not parents:
            return found[::-1]
        run = parent_folder(run, parents[0])


def parent_folder(run: RunFolder, parent: Parent) -> RunFolder:
    """The folder of a parent. Raises LineageError where it is gone, or is another run by now."""
    folder = run.path / parent.place
    if not folder.is_dir():
        raise LineageError(f"{run.path} came from run {parent.run}, which is not at {folder}. Move it back there.")
    found = RunFolder(Path(os.path.normpath(folder.resolve())))
    known = read(found.path)
    if parent.id is not None and (known is None or known.id != parent.id):
        raise LineageError(
            f"{run.path} came from run {parent.run} with id {parent.id}, but the run at {found.path} is another one, "
            f"with id {known.id if known else None}: its number was given again."
        )
    return found


def joined_lines(run: RunFolder) -> bytes:
    """metrics.jsonl of a chain of resumed runs as one file.

    Of each run what comes after the checkpoint its successor took is left out, as the successor did it again. The
    result is, byte for byte, what a run that was never interrupted writes: on the CPU, with as many threads, and the
    same configuration. What depends on speed stands in timing.jsonl, and is not part of it.
    """
    return b"".join(json.dumps(record).encode() + b"\n" for record in joined_metrics(run))


def joined_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """The records of ``joined_lines``. Raises LineageError, DamagedFileError as ``chain`` and ``metrics`` do."""
    links = chain(run)
    ends = [began for _, began in links[1:]] + [None]
    return [
        record
        for (link, _), end in zip(links, ends, strict=True)
        for record in link.metrics()
        if end is None or record["step"] <= end
    ]


def curve(run: RunFolder) -> pd.DataFrame:
    """A chain as one table: a row for each step at which anything was recorded, a column for each number."""
    rows: dict[int, dict[str, Any]] = {}
    for line in joined_metrics(run):
        rows.setdefault(line["step"], {}).update(line)
    import pandas as pd

    return pd.DataFrame([rows[step] for step in sorted(rows)])


def descendants(run: RunFolder, kinds: Iterable[str]) -> list[RunFolder]:
    """Runs beside ``run`` that took something of it, of some kinds, oldest first by the time of their record."""
    wanted, own = set(kinds), read(run.path)
    found: list[tuple[float, RunFolder]] = []
    for path in run.path.resolve().parent.glob(f"*/{FILE}"):
        try:
            lineage = read(path.parent)
        except DamagedFileError:
            continue
        if lineage is None or lineage.kind not in wanted:
            continue
        for parent in lineage.parents:
            same = os.path.normpath(path.parent / parent.place) == str(run.path.resolve())
            if same and (own is None or parent.id in (None, own.id)):
                found.append((path.stat().st_mtime, RunFolder(path.parent)))
                break
    return [folder for _, folder in sorted(found, key=lambda item: item[0])]


def require_same_episodes(parent: RunFolder, episodes_sha256: str) -> None:
    """Raise LineageError where a resumed run would see other episodes than its parent did, with the same settings."""
    known = read(parent.path)
    if known is not None and known.episodes_sha256 not in (None, episodes_sha256):
        raise LineageError(
            f"The settings are those of {parent.path}, but the data are not: the hash of its episodes is "
            f"{known.episodes_sha256}, that of these {episodes_sha256}. Point task.data_root, or "
            "task.folder, to the data it was trained on, or train anew. (Earlier versions drew the splits of a folder "
            "before small classes are left out: task.splits=unfiltered.)"
        )


def summary(lineage: Mapping[str, Any]) -> str:
    """``resumed from 3 at step 400`` for a record of ``lineage.json``."""
    parents = [
        f"{parent['run']}" + (f" at step {parent['step']}" if parent.get("step") is not None else "")
        for parent in lineage.get("parents", [])
    ]
    return f"{lineage.get('kind', '')}" + (f" from {', '.join(parents)}" if parents else "")

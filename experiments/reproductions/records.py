"""Records of a reproduction: one JSON and one file of scores an entry, from which its tables are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.recording.score_files import load_scores, save_scores
from experiments.reproductions.plan import Plan
from metadensity import Evaluation
from metadensity.evaluation.comparison import require_comparable
from metadensity.evaluation.scores import Scores
from metadensity.files import DamagedFileError, write_atomically

IDENTITY = ("units", "pixels", "split", "episodes_sha256")


@dataclass(frozen=True)
class Record:
    """What is known of an entry. values: the JSON. scores: by number of shots, of the test queries."""

    entry: str
    values: dict[str, Any]
    scores: dict[int, Scores]

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers are numbers of; see ``metadensity.evaluation.comparison.require_comparable``."""
        return {key: self.values[key] for key in IDENTITY}

    def row(self, shots: int, split: str = "rows") -> dict[str, Any] | None:
        """The row of one number of shots, of the test ("rows") or of training classes ("train_rows")."""
        return next((row for row in self.values[split] if row["shots"] == shots), None)


def write_record(folder: Path, entry: str, values: Mapping[str, Any], evaluation: Evaluation) -> Record:
    """Write ``ENTRY.json`` and ``ENTRY.npz``; the JSON last, so that it never stands without the scores."""
    save_scores(folder / f"{entry}.npz", {entry: evaluation}, {key: values[key] for key in IDENTITY})
    write_atomically(folder / f"{entry}.json", json.dumps(values, indent=1, allow_nan=False).encode() + b"\n")
    return Record(entry, dict(values), evaluation.scores)


def read_records(folder: Path, plan: Plan) -> dict[str, Record]:
    """The records there are of the entries in a plan's table, in its order.

    Raises DamagedFileError where JSON and scores do not belong together, IncomparableError where the entries were not
    scored on the same episodes.
    """
    found: dict[str, Record] = {}
    for name, entry in plan.entries.items():
        path = folder / f"{name}.json"
        if not entry.in_table or not path.is_file():
            continue
        values = json.loads(path.read_text())
        scores, identity = load_scores(path.with_suffix(".npz"))
        if any(values[key] != identity[key] for key in IDENTITY):
            raise DamagedFileError(f"{path} and the scores beside it are of different evaluations. Reproduce it again.")
        found[name] = Record(name, values, scores[name])
    first = next(iter(found), None)
    for name in list(found)[1:]:
        require_comparable(found[str(first)].identity, found[name].identity, (str(first), name))
    return found

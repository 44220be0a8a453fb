"""The score of every query in a file beside a report, so that two evaluations can be compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metadensity import Evaluation
from metadensity.evaluation.scores import Scores
from metadensity.files import DamagedFileError, read_arrays, write_arrays

FILE = "scores.npz"
SHARED = ("clusters", "groups", "queries")


def save_scores(path: Path, evaluations: Mapping[str, Evaluation], identity: dict[str, Any]) -> None:
    """Write scores of models on one episode set, with what they are scores of (see ``require_comparable``).

    The arrays of the ``.npz`` are "MODEL/SHOTS/nats", where MODEL is the place in the list of models in the head, and
    "SHOTS/clusters", "SHOTS/groups", "SHOTS/queries", which the models share.
    """
    arrays = {}
    for number, evaluation in enumerate(evaluations.values()):
        for shots, scores in evaluation.scores.items():
            arrays[f"{number}/{shots}/nats"] = scores.nats
            arrays |= {f"{shots}/{name}": getattr(scores, name) for name in SHARED}
    write_arrays(
        path, arrays, {"kind": "scores", "version": 1, "models": list(evaluations), "identity": identity}, True
    )


def load_scores(path: Path) -> tuple[dict[str, dict[int, Scores]], dict[str, Any]]:
    """Scores by model and number of shots, and their identity. No pickle is read.

    Raises FileNotFoundError where there is no such file, DamagedFileError where it is damaged or something else.
    """
    try:
        arrays, head = read_arrays(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"There are no scores at {path}. Evaluate the run again.") from None
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} Evaluate the run again.") from error
    if head.get("kind") != "scores" or head.get("version") != 1:
        raise DamagedFileError(f"{path} holds no scores that this version reads. Evaluate the run again.")
    found: dict[str, dict[int, Scores]] = {name: {} for name in head["models"]}
    for key in arrays:
        number, _, rest = key.partition("/")
        if rest.endswith("/nats"):
            shots = int(rest.removesuffix("/nats"))
            shared = (arrays[f"{shots}/{name}"] for name in SHARED)
            found[head["models"][int(number)]][shots] = Scores(arrays[key], *shared)
    return {name: dict(sorted(scores.items())) for name, scores in found.items()}, head["identity"]

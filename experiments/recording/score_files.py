"""The score of every query in a file beside a report, so that two evaluations can be compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metadensity import Evaluation
from metadensity.density import EXACT
from metadensity.evaluation.scores import Scores
from metadensity.files import DamagedFileError, read_arrays, write_arrays

FILE = "scores.npz"
SHARED = {"clusters": "class_ids", "groups": "group_ids", "queries": "query_ids"}
"""Arrays of the file that the models share, and what ``Scores`` calls them."""


def save_scores(path: Path, evaluations: Mapping[str, Evaluation], identity: dict[str, Any]) -> None:
    """Write scores of models on one episode set, with what they are scores of (see ``require_comparable``).

    The arrays of the ``.npz`` are "MODEL/SHOTS/nats", where MODEL is the place in the list of models in the head, and
    "SHOTS/clusters", "SHOTS/groups", "SHOTS/queries", which the models share. The head holds the quantity of each model
    as well; files without it are of exact densities.
    """
    arrays = {}
    quantities = [next(iter(evaluation.scores.values())).quantity for evaluation in evaluations.values()]
    for number, evaluation in enumerate(evaluations.values()):
        for shots, scores in evaluation.scores.items():
            arrays[f"{number}/{shots}/nats"] = scores.nats
            arrays |= {f"{shots}/{name}": getattr(scores, field) for name, field in SHARED.items()}
    head = {"kind": "scores", "version": 1, "models": list(evaluations), "identity": identity, "quantities": quantities}
    write_arrays(path, arrays, head, True)


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
    quantities = head.get("quantities", [EXACT] * len(found))
    for key in arrays:
        number, _, rest = key.partition("/")
        if rest.endswith("/nats"):
            shots = int(rest.removesuffix("/nats"))
            own: dict[str, Any] = {field: arrays[f"{shots}/{name}"] for name, field in SHARED.items()}
            own |= {"nats": arrays[key], "quantity": quantities[int(number)]}
            found[head["models"][int(number)]][shots] = Scores(**own)
    return {name: dict(sorted(scores.items())) for name, scores in found.items()}, head["identity"]

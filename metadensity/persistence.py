"""Models as files: weights, name, constructor arguments and provenance in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metadensity.files import DamagedFileError, read_tensors, write_tensors
from metadensity.models import MODELS, FewShotModel

FORMAT = "metadensity-model-1"


def model_header(model: FewShotModel, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a file needs beside the weights to build the model again."""
    names = [name for name, kind in MODELS.items() if kind is type(model)]
    if not names:
        raise ValueError(
            f"{type(model).__name__} is not listed in metadensity.models.MODELS, so a file could not name it. "
            "Add a line there."
        )
    return {"format": FORMAT, "model": names[0], "config": model.config, "provenance": dict(provenance or {})}


def save(model: FewShotModel, path: str | Path, provenance: Mapping[str, Any] | None = None) -> str:
    """Write ``model`` to ``path``, atomically. Returns the hash of its weights (sha256, hexadecimal).

    provenance: JSON values that say where the weights come from (run, task, step, seed).
    """
    return write_tensors(path, model.state_dict(), model_header(model, provenance))


def load(path: str | Path, device: torch.device | str = "cpu") -> FewShotModel:
    """Read a model that ``save`` wrote; ``model.provenance`` holds what was recorded with it.

    Raises FileNotFoundError for a missing file, DamagedFileError for one that is truncated, altered or not ours.
    """
    tensors, header = read_tensors(path)
    model = build(header, path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFileError(f"{path} does not hold the weights of its own model ({error}).") from error
    model.provenance = {**header["provenance"], "weights_sha256": header["sha256"]}
    return model.to(device).eval()


def build(header: Mapping[str, Any], path: str | Path) -> FewShotModel:
    """An untrained model from the header of a file. Raises DamagedFileError where the header names none we know."""
    if header.get("format") != FORMAT:
        raise DamagedFileError(f"{path} is no saved model: its format is {header.get('format')!r}, not {FORMAT!r}.")
    if missing := [name for name in ("model", "config", "provenance") if name not in header]:
        raise DamagedFileError(f"{path} is no saved model: its header has no {' and no '.join(missing)}.")
    if header["model"] not in MODELS:
        raise DamagedFileError(
            f"{path} holds a model called {header['model']!r}; this version knows {', '.join(MODELS)}. "
            "Register it in metadensity.models.MODELS."
        )
    kind = MODELS[header["model"]]
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, to be overwritten
            return kind(**kind.complete(header["config"]))
    except (TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{path} holds arguments that {kind.__name__} does not take in this version ({error}). Load it with the "
            "version that wrote it."
        ) from error

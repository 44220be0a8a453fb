"""Models as files: weights, name, constructor arguments and provenance in one safetensors file."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metadensity.files import DamagedFileError, read_tensors, write_tensors
from metadensity.models import MODELS, FewShotModel

FORMAT = "metadensity-model-1"
_WRAPPED = ("_orig_mod", "module", "model")  # by torch.compile, by DataParallel and AveragedModel, by FineTuned


def model_header(model: FewShotModel, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a file needs beside the weights to build the model again.

    Raises ValueError for a model that is not listed.
    """
    names = [name for name, kind in MODELS.items() if kind is type(model)]
    if not names:
        inner = next((name for name in _WRAPPED if isinstance(getattr(model, name, None), FewShotModel)), None)
        advice = "Add a line there." if inner is None else f"It wraps a model: save that one, as model.{inner}."
        raise ValueError(
            f"{type(model).__name__} is not listed in metadensity.models.MODELS, so a file could not name it. {advice}"
        )
    header = {"format": FORMAT, "model": names[0], "config": model.config, "provenance": dict(provenance or {})}
    if model.default_dtype != torch.float32:
        header["default_dtype"] = str(model.default_dtype).removeprefix("torch.")
    return header


def save(model: FewShotModel, path: str | Path, provenance: Mapping[str, Any] | None = None) -> str:
    """Write ``model`` to ``path``, atomically. Returns the hash of its weights (sha256, hexadecimal).

    provenance: JSON values that say where the weights come from (run, task, step, seed).
    Raises ValueError for a model that is not listed, and for one that the file could not build again: for an option
    that JSON cannot hold, say, or one that was changed after the model was built.
    """
    header, weights = model_header(model, provenance), model.state_dict()
    _require_rebuilt(model, header, weights)
    return write_tensors(path, weights, header)


def load(path: str | Path, device: torch.device | str = "cpu") -> FewShotModel:
    """Read a model that ``save`` wrote, in the precision it had; ``model.provenance`` holds what was recorded with it.

    Raises FileNotFoundError for a missing file, DamagedFileError for one that is truncated, altered or not ours.
    """
    tensors, header = read_tensors(path)
    model = build(header, path)
    _set_precision(model, tensors)
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
        # Initial weights are drawn, to be overwritten; what is computed from no weights has the precision it had.
        with torch.random.fork_rng(devices=[]), _default_dtype(header.get("default_dtype", "float32")):
            return kind(**kind.complete(header["config"]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DamagedFileError(
            f"{path} holds arguments that {kind.__name__} does not take in this version ({error}). Load it with the "
            "version that wrote it."
        ) from error


@contextlib.contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    known = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    torch.set_default_dtype(next(dtype for dtype in known if str(dtype) == f"torch.{name}"))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _set_precision(model: FewShotModel, tensors: Mapping[str, Tensor]) -> None:
    """Give ``model`` the precision of ``tensors``, and what they do not hold that of most of them."""
    kinds = Counter(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    if kinds:
        model.to(kinds.most_common(1)[0][0])
    for name, own in model.state_dict(keep_vars=True).items():
        if name in tensors and tensors[name].is_floating_point() and own.is_floating_point():
            own.data = own.data.to(tensors[name].dtype)


def _require_rebuilt(model: FewShotModel, header: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless ``header`` builds a model like ``model`` that takes ``weights``."""
    kind = type(model).__name__
    for name in type(model).signature(model.config).parameters:
        if name not in model.config:
            raise ValueError(f"{kind} takes {name}, which its config lacks: a file would build it with the default.")
    for name, value in model.config.items():
        try:
            kept = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            kept = None
        if kept != value:
            raise ValueError(
                f"{kind} was built with {name}={value!r}, which a file of JSON and tensors cannot hold. Let {name} be "
                "a number, a string, or a list or mapping of such, and let the constructor make of it what it needs."
            )
        now = getattr(model, name, value)
        if isinstance(now, bool | int | float | str) and now != value:
            raise ValueError(
                f"{kind} was built with {name}={value!r}, which is {now!r} now: a file would build it with {value!r}. "
                f"Build the model with {name}={now!r} and load its weights, or set config[{name!r}] as well."
            )
    try:
        rebuilt = build(header, "the file").state_dict()
    except DamagedFileError as error:
        raise ValueError(f"{kind} could not be built again ({error}). Correct what its config holds.") from error
    odd = [name for name in {**weights, **rebuilt} if _shape(weights, name) != _shape(rebuilt, name)]
    if odd:
        raise ValueError(
            f"{kind} could not be built again: of {odd[0]} it has {_shape(weights, odd[0])}, and one built with its "
            f"config, {model.config}, has {_shape(rebuilt, odd[0])}. What decides on sizes must be an argument of the "
            "constructor."
        )


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(tensors[name].shape) if name in tensors else "none"

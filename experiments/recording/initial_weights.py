"""Training that begins from the weights of another model: train attention first, say, and then to adapt."""

from __future__ import annotations

from pathlib import Path

import metadensity
from experiments.recording.root import runs_root
from experiments.recording.trained_model import find_model
from metadensity import FewShotModel


def weights_file(source: str | int) -> Path:
    """The file of a model: by its path or its name as a shipped one, or a run's, by its folder, its number or "latest".

    Raises as ``find_model``, and FileNotFoundError where a run holds no model.
    """
    path = Path(str(source))
    if path.is_file():
        return path
    best = find_model(source).best
    if not best.is_file():
        raise FileNotFoundError(f"{best.parent.parent} holds no trained model. Give a finished run in {runs_root()}.")
    return best


def load_initial_weights(model: FewShotModel, path: Path) -> list[str]:
    """Copy the weights in ``path`` into ``model``, or into its ``base`` where it adapts a model of their kind.

    Returns the names of the parameters that keep their own initial values. Raises as ``metadensity.load``, and
    ValueError where a weight of the file has no place of its shape in the model, or another meaning there.
    """
    source = metadensity.load(path)
    for name in source.earlier.keys() & source.config.keys() & model.config.keys():
        if (theirs := source.config[name]) != (ours := model.config[name]):
            raise ValueError(
                f"initial={str(path)!r} was trained with {name}={theirs}, and this model has {name}={ours}: its "
                f"weights would mean something else here. Type model.{name}={theirs} to go on from them."
            )
    given, own = source.state_dict(), model.state_dict()
    prefix = "" if given.keys() <= own.keys() else "base."
    for name, tensor in given.items():
        place = own.get(prefix + name)
        if place is None or place.shape != tensor.shape:
            raise ValueError(
                f"initial={str(path)!r} holds {name} of shape {tuple(tensor.shape)}, and this model "
                f"{'has none' if place is None else f'one of shape {tuple(place.shape)}'}. Begin from a model of the "
                "same sizes: the same kind, or the one that this kind adapts."
            )
    model.load_state_dict({**own, **{prefix + name: tensor for name, tensor in given.items()}})
    return sorted(name for name, _ in model.named_parameters() if name.removeprefix(prefix) not in given)

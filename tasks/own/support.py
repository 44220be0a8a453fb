"""One's own examples as the support that a trained model expects, with what was done to them in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metadensity.episode import Episode
from tasks.data.roots import DataError
from tasks.folders.image_files import Preparation, suffixes
from tasks.media import Images, Medium, Sounds, Strings, usual_medium
from tasks.own.drawings import Done, hand_of, in_hand, ink_of
from tasks.own.given import Given, examples, image_of
from tasks.own.sequences import recordings, strings
from tasks.speech import mu_law

FITS = ("box", "whole", "crop", "stretch")
INK = ("omniglot", "hershey", "templates", "digits")
"""Tasks of drawings, whose last level is ink."""
LIGHT = ("emoji", "folder", "mirror")
"""Tasks of images as they are, whose last level is white; others of two levels are taken for drawings."""


class Trained(Protocol):
    """What is asked of a model: its events, and in ``provenance["task"]`` the recipe of the task it was trained on."""

    event_shape: tuple[int, ...]
    levels: int
    provenance: dict[str, Any]


@dataclass(frozen=True)
class OwnSupport:
    """Examples as a model takes them.

    support: ``(S, 1, C, *space)`` uint8, one task. names: of each. notes: what was done to them, a sentence each.
    medium: how they are shown, heard or read. originals: of images, as they were given.
    lengths: ``(S, 1)``, of sequences, how many of the first places of each are real; None: all.
    told: whether a model has to be told these lengths: not of strings, which end by themselves.
    mirrored: whether what is asked of the model is the mirror image of each, as in the task ``mirror``.
    """

    support: Tensor
    names: list[str]
    notes: list[str]
    medium: Medium
    originals: list[Image.Image]
    lengths: Tensor | None = None
    told: bool = False
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.support)

    def episode(self) -> Episode:
        """What is drawn from: all examples as the support of one task, without queries; of mirrors each of its own."""
        if self.mirrored:
            return self.leave_one_out()
        lengths = self.lengths if self.told else None
        return Episode(self.support, self.support[:0], support_lengths=lengths)

    def leave_one_out(self) -> Episode:
        """A task for each example, which is its query; its support are all the others, in their order.

        Of mirrors each example is the support, and its mirror image the query.
        """
        count = len(self)
        ids, one_each = torch.arange(count)[None], self.support.transpose(0, 1)
        if self.mirrored:
            return Episode(one_each, one_each.flip(-1), support_ids=ids, query_ids=ids + count)
        others = torch.tensor([[j for j in range(count) if j != i] for i in range(count)], dtype=torch.int64).T
        others = others.reshape(count - 1, count)
        lengths = self.lengths
        return Episode(
            self.support[:, 0][others],
            one_each,
            support_ids=others,
            query_ids=ids,
            support_lengths=lengths[:, 0][others] if lengths is not None and self.told else None,
            query_lengths=None if lengths is None else lengths.T,
        )


def own_support(given: Given, model: Trained, *, fit: str | None = None, pen: bool = True) -> OwnSupport:
    """Examples of any size, paper and pen as a support: ``model(own_support("drawings", model).support)``.

    given: a folder or a list of files, or arrays, see ``tasks.own.given.examples``: images for a model of images, WAV
        or FLAC files for one of ``speech``, text files of a string a line, or a list of strings, for one of strings.
    fit: of drawings "box", put where those of the training are and as large, or "whole", the whole image resized; of
        other images "crop", the largest square in the middle, or "stretch". None: as the model was trained, "box" for
        drawings. Arrays of the model's own shape and levels are taken as they are, and files of its size are not boxed.
    pen: of drawings, whether strokes much thinner or thicker than those of the training are drawn as wide as these.

    Raises ValueError for another ``fit`` or arrays that are no images, DataError for examples that are missing, damaged
    or cannot be read by this model, TypeError for what is no example.
    """
    recipe: Mapping[str, Any] = model.provenance.get("task") or {}
    task = recipe.get("task")
    if fit is not None and fit not in FITS:
        raise ValueError(f"fit={fit!r}; give one of {', '.join(FITS)}, or None.")
    if len(model.event_shape) == 2 and task == "speech":
        return _sequences(*recordings(given, recipe), Sounds(int(recipe["rate"]), mu_law.SAMPLES), told=True)
    if len(model.event_shape) == 2 and "alphabet" in recipe:
        alphabet = str(recipe["alphabet"])
        end = len(alphabet) if model.levels == len(alphabet) + 1 else None
        return _sequences(*strings(given, recipe, model.levels), Strings(alphabet, end), told=False)
    if len(model.event_shape) != 3 or model.event_shape[0] not in (1, 3):
        raise DataError(
            f"the model was trained on {task or 'a task it does not name'}, of events {model.event_shape}: there is no "
            "way from files to these. Give models of images, of speech, or of strings."
        )
    return _images(given, model, recipe, fit, pen)


def _sequences(
    names: list[str],
    codes: NDArray[np.uint8],
    lengths: list[int] | None,
    notes: list[str],
    medium: Medium,
    told: bool,
) -> OwnSupport:
    places = None if lengths is None else torch.tensor(lengths)[:, None]
    return OwnSupport(torch.from_numpy(codes)[:, None, None], names, notes, medium, [], places, told)


def _images(given: Given, model: Trained, recipe: Mapping[str, Any], fit: str | None, pen: bool) -> OwnSupport:
    shape, levels, task = model.event_shape, model.levels, recipe.get("task")
    ink = bool(recipe.get("ink", task in INK or (task not in LIGHT and shape[0] == 1 and levels == 2)))
    allowed = FITS[:2] if ink else FITS[2:]
    if fit is not None and fit not in allowed:
        what = "drawings" if ink else "images"
        raise ValueError(f"fit={fit!r}, but the model is one of {what}; give one of {', '.join(allowed)}, or None.")
    if shape[1] != shape[2]:
        raise DataError(f"the model's images are {shape[1]} x {shape[2]}, and no square. Give arrays of that shape.")
    done, names, pixels, originals = Done(), [], [], []
    # As the task prepares its images; the whole image where it cuts windows out.
    trained = recipe.get("how", {}).get("fit", "crop")
    prepared = Preparation(shape[1], shape[0] == 1, levels, trained if ink or fit is None else fit)
    for name, example in examples(given, suffixes()):
        names.append(name)
        if isinstance(example, np.ndarray) and (taken := _as_it_is(example, shape, levels)) is not None:
            done.counts["taken as they are: of the model's own shape and levels"] += 1
            originals.append(Image.fromarray(Images(levels, ink).picture(torch.from_numpy(taken))))
            pixels.append(taken)
            continue
        image = image_of(example, name)
        originals.append(image)
        if ink:
            small = image.size == shape[:0:-1]
            if small:
                done.counts[f"of {shape[1]} x {shape[2]} pixels already: neither boxed nor drawn again"] += 1
            found = ink_of(image, name, done)
            hand = hand_of(recipe, shape[1])
            boxed, drawn = (False, False) if small else (fit != "whole" and task != "templates", pen)
            drawing = in_hand(found, hand, shape[1], levels, done, box=boxed, pen=drawn)
            if not drawing.any():
                raise DataError(f"{name} holds strokes too thin for {shape[1]} x {shape[2]} pixels; leave pen=True.")
            pixels.append(drawing[None])
        else:
            if image.size[0] != image.size[1]:
                how = "squeezed into a square" if prepared.fit == "stretch" else "the largest square in the middle"
                done.counts[how] += 1
            if image.size != shape[:0:-1]:
                done.counts[f"resized to {shape[1]} x {shape[2]}"] += 1
            pixels.append(prepared.of_image(image)[0])
    if task == "mirror":
        done.counts["the model draws mirror images: each is the support of its own"] = len(names)
    medium = Images(levels, ink) if ink else usual_medium(shape, levels)
    support = torch.from_numpy(np.stack(pixels))[:, None]
    return OwnSupport(support, names, done.said(len(names)), medium, originals, mirrored=task == "mirror")


def _as_it_is(array: NDArray[Any], shape: tuple[int, ...], levels: int) -> NDArray[np.uint8] | None:
    """An array of the model's own shape and levels as its pixels ``(C, H, W)``; None for any other."""
    kinds = "biu" if levels == 2 else "iu"
    if array.dtype.kind not in kinds or array.shape not in (shape, shape[1:] if shape[0] == 1 else shape):
        return None
    if not 0 <= array.min() <= array.max() < levels:
        return None
    return np.ascontiguousarray(array.astype(np.uint8).reshape(shape))

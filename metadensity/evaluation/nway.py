"""n-way classification episodes and their files. ``tasks.episodes.nway`` draws them from a task distribution."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.checks import real_places, require_lengths
from metadensity.files import ARCHIVE_ERRORS, DamagedFileError, atomic_file

ARRAYS = ("support", "query", "label")
OPTIONAL = ("classes", "support_lengths", "query_lengths")


@dataclass(frozen=True)
class NWayEpisodes:
    """Episodes in which each query belongs to one of ``ways`` classes, each shown by ``shots`` images.

    support: ``(episodes, ways, shots, C, *space)`` uint8. query: ``(episodes, queries, C, *space)`` uint8.
    label: ``(episodes, queries)`` int64 in ``[0, ways)``: which support set the query belongs to.
    classes: ``(episodes, ways)`` int64, which class each way is, or None where it is not known.
    support_lengths, query_lengths: ``(episodes, ways, shots)`` and ``(episodes, queries)`` int64 or None, as of an
        ``Episode``: of sequences ``(C, T)``, how many of the first places are real. None: all.

    Raises TypeError for other dtypes, ValueError for shapes that do not fit together and labels out of range.
    """

    support: Tensor
    query: Tensor
    label: Tensor
    classes: Tensor | None = None
    support_lengths: Tensor | None = None
    query_lengths: Tensor | None = None

    def __post_init__(self) -> None:
        for name, pixels in (("support", self.support), ("query", self.query)):
            if pixels.dtype != torch.uint8:
                raise TypeError(f"{name} holds {pixels.dtype}; give integer pixels as uint8.")
        if self.label.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            raise TypeError(f"label holds {self.label.dtype}; give integers, the number of a way from 0 on.")
        object.__setattr__(self, "label", self.label.long())
        s, q, label = (tuple(x.shape) for x in (self.support, self.query, self.label))
        if len(s) < 5 or s[0] < 1 or s[1] < 2:
            raise ValueError(
                f"support has shape {s}; it must be (episodes, ways, shots, channels, *space) with at least one "
                "episode, 2 ways and one space dimension."
            )
        if q[:1] != s[:1] or q[2:] != s[3:] or q[1] < 1:
            raise ValueError(
                f"query has shape {q}; with support {s} it must be (episodes, queries, channels, *space) = "
                f"({', '.join(map(str, (s[0], 'at least 1', *s[3:])))})."
            )
        if label != q[:2]:
            raise ValueError(f"label has shape {label}; with query {q} it must be (episodes, queries) = {q[:2]}.")
        if self.classes is not None and tuple(self.classes.shape) != s[:2]:
            raise ValueError(
                f"classes has shape {tuple(self.classes.shape)}; with support {s} it must be {s[:2]}: (episodes, ways)."
            )
        for name, shape in (("support_lengths", s[:3]), ("query_lengths", q[:2])):
            lengths = getattr(self, name)
            if lengths is not None:
                if len(q) != 4:
                    raise ValueError(f"{name} is given for images of shape {q[2:]}; only sequences have lengths.")
                require_lengths(name, lengths, shape, q[-1])
                object.__setattr__(self, name, lengths.long())
        low, high = int(self.label.min()), int(self.label.max())
        if low < 0 or high >= s[1]:
            raise ValueError(f"label holds {low} to {high}; with {s[1]} ways give 0 to {s[1] - 1}.")

    def __len__(self) -> int:
        return len(self.support)

    @property
    def ways(self) -> int:
        """Classes an episode."""
        return self.support.shape[1]

    @property
    def shots(self) -> int:
        """Support images a class."""
        return self.support.shape[2]

    @property
    def queries(self) -> int:
        """Queries an episode, over all its classes."""
        return self.query.shape[1]

    def __getitem__(self, part: slice) -> NWayEpisodes:
        """Some of the episodes."""
        known = {name: getattr(self, name) for name in OPTIONAL}
        more = {name: None if tensor is None else tensor[part] for name, tensor in known.items()}
        return NWayEpisodes(self.support[part], self.query[part], self.label[part], **more)

    def filled(self, level: int) -> NWayEpisodes:
        """The same with ``level`` where places are not real, of sequences whose supports have lengths; others as is.

        Strings that end by themselves hold their end there, in supports and queries alike.
        """
        if self.support_lengths is None:
            return self
        lengths = {"support": self.support_lengths, "query": self.query_lengths}
        found = {}
        for name, known in lengths.items():
            pixels = getattr(self, name)
            if known is not None:
                real = real_places(known, pixels.shape[-1]).unsqueeze(-2)
                found[name] = torch.where(real, pixels, torch.tensor(level, dtype=pixels.dtype))
        return replace(self, **found)

    def dependence(self) -> tuple[NDArray[np.int64], str]:
        """What the results hang on, for intervals that no redrawing of the same images narrows; and what that is.

        "classes", ``(episodes, ways)``, where there are twice as many as an episode has, so that some episodes share
        none: the intervals then are for further classes. Else "images", ``(episodes, queries, 1 + ways * shots)``: the
        query and all supports, by their pixels; for further images of the same classes.
        """
        if self.classes is not None and len(np.unique(self.classes.numpy())) >= 2 * self.ways:
            return self.classes.numpy(), "classes"
        known: dict[bytes, int] = {}

        def numbered(images: Tensor) -> NDArray[np.int64]:  # (episodes, images, C, *space): (episodes, images)
            digests = (hashlib.sha256(image.numpy().tobytes()).digest() for image in images.flatten(0, 1))
            return np.array([known.setdefault(each, len(known)) for each in digests], np.int64).reshape(
                images.shape[:2]
            )

        filled = self.filled(0)
        query, support = numbered(filled.query), numbered(filled.support.flatten(1, 2))
        given = np.broadcast_to(support[:, None], (*query.shape, support.shape[1]))
        return np.concatenate([query[..., None], given], axis=2), "images"

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, over shapes, pixels, labels, and lengths if any."""
        digest = hashlib.sha256()
        lengths = [x for x in (self.support_lengths, self.query_lengths) if x is not None]
        for x in (self.support, self.query, self.label, *lengths):
            digest.update(f"{tuple(x.shape)}".encode() + np.ascontiguousarray(x.numpy()).tobytes())
        return digest.hexdigest()

    def require_fit(self, event_shape: tuple[int, ...], levels: int, source: str = "these episodes") -> None:
        """Raise ValueError unless a model of this event shape and number of levels can score the episodes."""
        given = tuple(self.query.shape[2:])
        if given != tuple(event_shape):
            raise ValueError(
                f"{source}: images of shape {given}, but the model is of {tuple(event_shape)} (channels, *space). "
                "Prepare the images as the model's training images were."
            )
        high = max(int(x.max()) for x in (self.support, self.query) if x.numel())
        if high >= levels:
            raise ValueError(
                f"{source}: pixels up to {high}, but the model has levels 0 to {levels - 1}. Quantise the images as "
                "the model's training images were" + (", with ink as 1 and paper as 0." if levels == 2 else ".")
            )

    def save(self, path: str | Path) -> None:
        """Write an .npz of ``support``, ``query`` and ``label``, and the others that are known, atomically."""
        held = {name: getattr(self, name) for name in (*ARRAYS, *OPTIONAL)}
        arrays = {name: array.numpy() for name, array in held.items() if array is not None}
        with atomic_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @staticmethod
    def load(path: str | Path) -> NWayEpisodes:
        """Read an .npz of ``save``, or of numpy's own ``np.savez(path, support=..., query=..., label=...)``.

        Nothing in the file is executed: pickled arrays are refused. The zip's checksums are verified.
        Raises FileNotFoundError where there is none, DamagedFileError where it cannot be read or lacks an array,
        TypeError or ValueError, naming the file, where the arrays are not those of n-way episodes.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
            # Parsed only now: reading a member to its end is what verifies its checksum.
            arrays = {
                name: np.load(io.BytesIO(members[name]), allow_pickle=False)
                for name in (*ARRAYS, *OPTIONAL)
                if name in members
            }
        except (FileNotFoundError, IsADirectoryError):
            raise FileNotFoundError(f"There is no file {path}. NWayEpisodes.save writes one.") from None
        except ARCHIVE_ERRORS as error:
            raise DamagedFileError(
                f"{path} is damaged, no .npz archive, or holds pickled objects ({error}). Write it again with "
                "NWayEpisodes.save, or np.savez with plain numeric arrays."
            ) from error
        if missing := [name for name in ARRAYS if name not in arrays]:
            raise DamagedFileError(
                f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(members)) or 'nothing'}. n-way "
                "episodes are three arrays: support (episodes, ways, shots, C, H, W) and query (episodes, queries, "
                "C, H, W), uint8, and label (episodes, queries), integers."
            )
        classes = arrays.pop("classes", None)
        if classes is not None and (classes.dtype.kind not in "iu" or classes.shape != arrays["support"].shape[:2]):
            classes = None  # somebody else's array of that name
        for name, array in arrays.items():
            wanted = "uint8" if name in ("support", "query") else "iu"
            if array.dtype.kind not in "iu" or (wanted == "uint8" and array.dtype != np.uint8):
                raise TypeError(
                    f"{path}: {name} holds {array.dtype}; it must be "
                    f"{'uint8 pixels' if wanted == 'uint8' else 'integers, the number of a way from 0 on'}."
                )
        arrays["label"] = arrays["label"].astype(np.int64)
        support, query, label = (torch.from_numpy(arrays[name]) for name in ARRAYS)
        try:
            known = None if classes is None else torch.from_numpy(classes.astype(np.int64))
            lengths = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in OPTIONAL if name in arrays}
            return NWayEpisodes(support, query, label, known, **lengths)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from None


def stack_nway(episodes: list[NWayEpisodes]) -> NWayEpisodes:
    """Several as one. Raises RuntimeError of torch where their shapes differ, ValueError where some have lengths."""
    more = {}
    for name in OPTIONAL:
        known = [tensor for tensor in (getattr(one, name) for one in episodes) if tensor is not None]
        if name != "classes" and 0 < len(known) < len(episodes):
            raise ValueError(f"{len(known)} of {len(episodes)} episodes have {name}. Stack those that are alike.")
        more[name] = torch.cat(known) if len(known) == len(episodes) else None
    support, query, label = (torch.cat([getattr(one, name) for one in episodes]) for name in ARRAYS)
    return NWayEpisodes(support, query, label, **more)

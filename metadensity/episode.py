"""The episode: a support set and queries from a batch of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from metadensity.checks import is_whole, require_integer_pixels, require_lengths


@dataclass(frozen=True)
class Episode:
    """Support and query images of a batch of tasks, as integer pixels in ``[0, levels)``.

    Sample dimensions come first and the batch of tasks after them, as torch.distributions lays
    them out, so ``query`` is literally a draw from a batch of task distributions.

    support: ``(S, tasks, C, *space)``, an integer dtype. S may be 0: the prior.
    query: ``(Q, tasks, C, *space)``, the same dtype.
    class_ids, group_ids: ``(tasks,)`` int64 or None: which class each task is (a character), and
        which group the class belongs to (its alphabet). Intervals respect these groups.
    support_ids, query_ids: ``(S, tasks)`` and ``(Q, tasks)`` int64 or None: which images these are
        in the task distribution they came from.
    support_lengths, query_lengths: ``(S, tasks)`` and ``(Q, tasks)`` integers or None: of sequences ``(C, T)``, how
        many of the first places are real; the others are padding, of any level. None: all places are real.

    Raises ValueError where the shapes do not fit together, TypeError for pixels that are no integers.
    """

    support: Tensor
    query: Tensor
    class_ids: Tensor | None = None
    group_ids: Tensor | None = None
    support_ids: Tensor | None = None
    query_ids: Tensor | None = None
    support_lengths: Tensor | None = None
    query_lengths: Tensor | None = None

    def __post_init__(self) -> None:
        for name, pixels in (("support", self.support), ("query", self.query)):
            require_integer_pixels(name, pixels)
            if pixels.ndim < 4:
                raise ValueError(
                    f"{name} has shape {tuple(pixels.shape)}; an episode needs (samples, tasks, channels, *space) "
                    "with at least one space dimension. Add the missing dimensions, for example with unsqueeze."
                )
        if self.support.shape[1:] != self.query.shape[1:]:
            raise ValueError(
                f"support {tuple(self.support.shape)} and query {tuple(self.query.shape)} differ after the first "
                "dimension; both must hold the same tasks and images of the same shape."
            )
        expected = {
            "class_ids": (self.tasks,),
            "group_ids": (self.tasks,),
            "support_ids": (self.shots, self.tasks),
            "query_ids": (self.queries, self.tasks),
        }
        for name, shape in expected.items():
            ids = getattr(self, name)
            if ids is not None and tuple(ids.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(ids.shape)}; this episode needs {shape}.")
        for name, count in (("support_lengths", self.shots), ("query_lengths", self.queries)):
            lengths = getattr(self, name)
            if lengths is None:
                continue
            if len(self.event_shape) != 2:
                raise ValueError(
                    f"{name} is given for images of shape {tuple(self.event_shape)}; only sequences, (channels, "
                    "places), have lengths. Leave it None."
                )
            require_lengths(name, lengths, (count, self.tasks), self.event_shape[-1])

    @property
    def shots(self) -> int:
        """Number of support images of each task, S."""
        return self.support.shape[0]

    @property
    def queries(self) -> int:
        """Number of query images of each task, Q."""
        return self.query.shape[0]

    @property
    def tasks(self) -> int:
        """Number of tasks in the batch."""
        return self.query.shape[1]

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one image, ``(C, *space)``."""
        return self.query.shape[2:]

    @property
    def query_sizes(self) -> Tensor:
        """How many numbers each query has, ``(Q, tasks)`` int64: channels times real places."""
        if self.query_lengths is None:
            return torch.full((self.queries, self.tasks), self.event_shape.numel())
        return self.event_shape[0] * self.query_lengths.long()

    def with_shots(self, shots: int) -> Episode:
        """The same tasks and queries with the first ``shots`` supports: nested, so curves over shots are paired.

        Raises ValueError where the episode holds fewer supports than asked for.
        """
        if not 0 <= shots <= self.shots:
            raise ValueError(f"shots={shots}, but this episode holds {self.shots} supports; ask for 0 to {self.shots}.")
        return self._indexed(dict.fromkeys(("support", "support_ids", "support_lengths"), slice(shots)))

    def take_tasks(self, tasks: slice) -> Episode:
        """The part of the episode with these of its tasks, supports, queries, ids and lengths."""
        names = [f"{part}{kind}" for part in ("support", "query") for kind in ("", "_ids", "_lengths")]
        return self._indexed({"class_ids": tasks, "group_ids": tasks, **dict.fromkeys(names, (slice(None), tasks))})

    def to(self, device: torch.device | str) -> Episode:
        """The episode with its pixels and lengths on ``device``; ids stay where they are."""
        names = ("support", "query", "support_lengths", "query_lengths")
        given = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in given.items() if tensor is not None}
        return replace(self, **moved)

    def _indexed(self, indices: Mapping[str, Any]) -> Episode:
        """The episode with each of these of its tensors, where it has it, at the index given for it."""
        given = {name: getattr(self, name) for name in indices}
        parts: dict[str, Any] = {name: part[indices[name]] for name, part in given.items() if part is not None}
        return replace(self, **parts)


def windows(episode: Episode, length: int, generator: torch.Generator) -> Episode:
    """A window of each sequence of ``episode``, to train on: ``length`` places from where ``generator`` says.

    All windows within the real places of a sequence are equally likely. A sequence that is shorter is taken from its
    beginning and keeps its length; the lengths are None where none is.
    The generator alone decides: seeded by an index, the windows are a pure function of it.

    Raises ValueError for images that are no sequences, or a length that is not from 1 to the number of places.
    """
    places = episode.event_shape[-1]
    if len(episode.event_shape) != 2 or not is_whole(length) or not 1 <= length <= places:
        raise ValueError(
            f"length={length!r} with event_shape={tuple(episode.event_shape)}; windows are cut from sequences "
            "(channels, places), and have 1 place to all of them."
        )
    found: dict[str, Any] = {}
    for name in ("query", "support"):  # queries first: they do not depend on the number of shots
        pixels, lengths = getattr(episode, name), getattr(episode, f"{name}_lengths")
        if lengths is None:
            lengths = torch.full(pixels.shape[:2], places)
        room = (lengths.cpu() - length).clamp(min=0)
        start = (torch.rand(room.shape, generator=generator, dtype=torch.float64) * (room + 1)).long()
        index = (start.unsqueeze(-1) + torch.arange(length)).unsqueeze(2).expand(-1, -1, pixels.shape[2], -1)
        found[name] = pixels.gather(-1, index.to(pixels.device))
        kept = lengths.clamp(max=length)
        found[f"{name}_lengths"] = kept if bool((kept < length).any()) else None
    return replace(episode, **found)


class EpisodeSource(Protocol):
    """What training and evaluation need of a task distribution (the real ones live in ``tasks``)."""

    event_shape: tuple[int, ...]
    levels: int

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """A pure function of (the source's seed, ``index``)."""
        ...

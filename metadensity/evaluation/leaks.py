"""The guard against support leaks: a query that its own support holds is no test of few-shot density estimation.

An image is known by its id, and by its pixels. Equal ids in one task are one image: that is always an error. Equal
pixels under different ids are two drawings that look the same once shrunk; real data has a few (of the 28,100 training
images of Omniglot at 26x26, 10 pairs; of the 2,880 test images, none), they are honest draws from the task, and leaving
them out would flatter no one but change the quantity. So they are scored and counted. Equal pixels without ids may be
either, and are refused until the caller says which.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from metadensity.checks import real_places
from metadensity.episode import Episode

DUPLICATES = ("trust_ids", "raise", "drop", "allow")


class SupportLeakError(ValueError):
    """A query is in its own support."""


def identical_queries(episode: Episode) -> Tensor:
    """Which queries ``(Q, tasks)`` are, pixel by pixel, equal to an image of their own support; bool.

    Of sequences with lengths the real places are compared, and how many there are.
    """
    query, support = _real(episode.query, episode.query_lengths), _real(episode.support, episode.support_lengths)
    found = torch.zeros(episode.queries, episode.tasks, dtype=torch.bool, device=query.device)
    for image in support:
        found |= (query == image).flatten(2).all(-1)
    return found


def _real(pixels: Tensor, lengths: Tensor | None) -> Tensor:
    """The pixels, -1 at places that are not real."""
    if lengths is None:
        return pixels
    return torch.where(real_places(lengths, pixels.shape[-1]).unsqueeze(-2), pixels.long(), -1)


def guard_support(episode: Episode, duplicates: str = "trust_ids") -> Tensor:
    """Raise where a query leaks into its support; otherwise ``identical_queries(episode)``.

    duplicates: what to do about a query with the pixels of a support image.
        "trust_ids": let it pass where the ids say that the two are different images, raise where there are no ids.
        "raise": raise in either case. "allow", "drop": let it pass; it is the caller's to keep or to leave out.

    Raises SupportLeakError as said, and whatever ``duplicates`` says where support and query share an image id;
    ValueError for a name that is not in ``DUPLICATES``.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates={duplicates!r}; choose one of {', '.join(map(repr, DUPLICATES))}.")
    identified = episode.support_ids is not None and episode.query_ids is not None
    if identified:
        _require_different_ids(episode)
    found = identical_queries(episode)
    if bool(found.any()) and (duplicates == "raise" or (duplicates == "trust_ids" and not identified)):
        raise SupportLeakError(_same_pixels(episode, found, identified))
    return found


def _require_different_ids(episode: Episode) -> None:
    assert episode.support_ids is not None
    assert episode.query_ids is not None
    same = episode.query_ids[:, None] == episode.support_ids[None]  # (Q, S, tasks)
    if not bool(same.any()):
        return
    query, shot, task = (int(number) for number in same.nonzero()[0])
    raise SupportLeakError(
        f"{int(same.any(1).sum())} of {same.any(1).numel()} queries are in their own support: in task {task}"
        f"{_class(episode, task)}, image {int(episode.query_ids[query, task])} is query {query} and support {shot}. "
        "A support that holds the query gives the answer away, so this would be no few-shot likelihood. Draw the "
        "two without overlap, as TaskDistribution.episode and StoredEpisodes do, or score other images."
    )


def _same_pixels(episode: Episode, found: Tensor, identified: bool) -> str:
    query, task = (int(number) for number in found.nonzero()[0])
    image = episode.query[query, task]
    real, supports = _real(episode.query, episode.query_lengths), _real(episode.support, episode.support_lengths)
    shot = next(s for s in range(episode.shots) if bool((supports[s, task] == real[query, task]).all()))
    digest = hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()[:12]
    why = "duplicates='raise' allows none" if identified else "the episode does not say which images these are"
    return (
        f"{int(found.sum())} of {found.numel()} queries have the pixels of an image of their own support: in task "
        f"{task}{_class(episode, task)}, query {query} and support {shot} (content sha256 {digest}...), and {why}. A "
        "support that holds the query gives the answer away. If they are one image, draw the two without overlap. If "
        "they are different images that look the same, give support_ids and query_ids, or duplicates='allow' to score "
        "them or 'drop' to leave them out."
    )


def _class(episode: Episode, task: int) -> str:
    return "" if episode.class_ids is None else f" (class {int(episode.class_ids[task])})"

"""Episodes hold together, and say what does not fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from metadensity import Episode
from metadensity.checks import require_levels

from .toys import Patterns


def pixels(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def test_properties() -> None:
    episode = Episode(pixels(4, 3, 2, 5, 6), pixels(7, 3, 2, 5, 6))
    assert (episode.shots, episode.queries, episode.tasks) == (4, 7, 3)
    assert episode.event_shape == (2, 5, 6)


def test_fewer_shots_are_nested() -> None:
    whole = Patterns().episode(0, tasks=3, shots=4, queries=2)
    whole = Episode(whole.support, whole.query, whole.class_ids, whole.group_ids, torch.arange(12).view(4, 3))
    for shots in range(5):
        some = whole.with_shots(shots)
        assert torch.equal(some.support, whole.support[:shots])
        assert torch.equal(some.query, whole.query)
        assert some.class_ids is whole.class_ids
        assert some.support_ids is not None
        assert torch.equal(some.support_ids, torch.arange(3 * shots).view(shots, 3))


@pytest.mark.parametrize("shots", [-1, 5])
def test_more_shots_than_there_are(shots: int) -> None:
    with pytest.raises(ValueError, match=f"shots={shots}, but this episode holds 4 supports; ask for 0 to 4"):
        Patterns().episode(0, tasks=3, shots=4, queries=2).with_shots(shots)


def test_moving_leaves_the_ids() -> None:
    episode = Patterns().episode(0, tasks=3, shots=4, queries=2)
    moved = episode.to("meta")
    assert moved.support.device.type == moved.query.device.type == "meta"
    assert moved.class_ids is episode.class_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64], ids=str)
def test_pixels_that_are_no_integers(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"query holds {dtype}.*Binarise or quantise"):
        Episode(pixels(1, 1, 1, 2), pixels(1, 1, 1, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("support", "query", "says"),
    [
        ((1, 1, 2), (1, 1, 2), r"support has shape (1, 1, 2).*(samples, tasks, channels, *space).*unsqueeze"),
        ((1, 3, 1, 2, 2), (1, 2, 1, 2, 2), r"(1, 3, 1, 2, 2) and query (1, 2, 1, 2, 2) differ after the first"),
        ((1, 3, 1, 2, 2), (1, 3, 1, 2, 3), r"(1, 3, 1, 2, 2) and query (1, 3, 1, 2, 3) differ after the first"),
    ],
)
def test_shapes_that_do_not_fit(support: tuple[int, ...], query: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=".*".join(map(re.escape, says.split(".*")))):
        Episode(pixels(*support), pixels(*query))


@pytest.mark.parametrize(
    ("name", "shape", "needed"),
    [
        ("class_ids", (2,), "(3,)"),
        ("group_ids", (3, 1), "(3,)"),
        ("support_ids", (3, 4), "(4, 3)"),
        ("query_ids", (4, 3), "(2, 3)"),
    ],
)
def test_ids_that_do_not_fit(name: str, shape: tuple[int, ...], needed: str) -> None:
    ids: dict[str, Any] = {name: torch.zeros(shape, dtype=torch.int64)}
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape {shape}; this episode needs {needed}.")):
        Episode(pixels(4, 3, 1, 2, 2), pixels(2, 3, 1, 2, 2), **ids)


def test_levels_of_nothing_are_fine() -> None:
    require_levels("support", pixels(0, 3, 1, 2, 2), 2)

"""Episodes hold together, and say what does not fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from metadensity import Episode
from metadensity.checks import require_levels
from metadensity.episode import windows

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
    remedy = r"Type query\.to\(torch\.uint8\)" if dtype == torch.bool else "Binarise or quantise"
    with pytest.raises(TypeError, match=f"query holds {dtype}.*{remedy}"):
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


def sequences(shots: int = 3, queries: int = 4, tasks: int = 3, places: int = 10, seed: int = 0) -> Episode:
    """Sequences with two channels, ids and lengths; pixel t of a real place is t, of padding 77."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, count in (("support", shots), ("query", queries)):
        lengths = torch.randint(places + 1, (count, tasks), generator=generator)
        clock = torch.arange(places).expand(count, tasks, 2, places)
        parts[name] = torch.where(clock < lengths[:, :, None, None], clock, 77).to(torch.uint8)
        parts[f"{name}_lengths"] = lengths
        parts[f"{name}_ids"] = torch.arange(count * tasks).view(count, tasks)
    return Episode(**parts, class_ids=torch.arange(tasks), group_ids=torch.arange(tasks) // 2)


@pytest.mark.parametrize("part", [slice(0, 1), slice(1, None), slice(3), slice(0, 0)], ids=str)
def test_tasks_can_be_taken(part: slice) -> None:
    whole = sequences()
    some = whole.take_tasks(part)
    for name in ("support", "query", "support_ids", "query_ids", "support_lengths", "query_lengths"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[:, part])
    for name in ("class_ids", "group_ids"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[part])
    plain = Episode(whole.support, whole.query).take_tasks(part)
    assert torch.equal(plain.query, whole.query[:, part])
    assert plain.class_ids is plain.query_lengths is plain.support_ids is None


def test_parts_of_an_episode_are_the_episode() -> None:
    whole = sequences()
    parts = [whole.take_tasks(slice(i, i + 1)) for i in range(3)]
    assert torch.equal(torch.cat([part.query for part in parts], 1), whole.query)
    assert torch.equal(torch.cat([part.support for part in parts], 1), whole.support)


def test_lengths_go_with_their_sequences() -> None:
    whole = sequences()
    assert torch.equal(whole.with_shots(2).support_lengths, whole.support_lengths[:2])  # type: ignore[index, arg-type]
    assert torch.equal(whole.query_sizes, 2 * whole.query_lengths)  # type: ignore[operator, arg-type]
    assert Episode(pixels(0, 3, 2, 5, 6), pixels(2, 3, 2, 5, 6)).query_sizes.tolist() == [[60] * 3] * 2


@pytest.mark.parametrize("name", ["support_lengths", "query_lengths"])
def test_lengths_that_are_none(name: str) -> None:
    support, query = pixels(2, 3, 1, 6), pixels(2, 3, 1, 6)
    for lengths, kind, says in (
        (torch.full((2, 3), 7), ValueError, f"{name} holds 7 to 7; of sequences with 6 places, 0 to 6 can be real"),
        (torch.full((2, 3), -1), ValueError, f"{name} holds -1 to -1"),
        (torch.full((3, 2), 1), ValueError, rf"{name} has shape \(3, 2\); one length a sequence is \(2, 3\)"),
        (torch.ones(2, 3), TypeError, f"{name} holds torch.float32; lengths are integers"),
    ):
        with pytest.raises(kind, match=says):
            Episode(support, query, **{name: lengths})
    image = pixels(2, 3, 1, 6, 6)
    with pytest.raises(ValueError, match=rf"{name} is given for images of shape \(1, 6, 6\); only sequences"):
        Episode(image, image, **{name: torch.ones(2, 3).long()})


def test_windows_lie_within_the_real_places() -> None:
    whole = sequences(queries=200)
    cut = windows(whole, 4, torch.Generator().manual_seed(1))
    assert cut.event_shape == (2, 4)
    assert whole.query_lengths is not None
    assert cut.query_lengths is not None
    assert torch.equal(cut.query_lengths, whole.query_lengths.clamp(max=4))
    real = torch.arange(4) < cut.query_lengths[:, :, None, None]
    assert (cut.query[real.expand_as(cut.query)] < 10).all(), "padding came into a window"
    steps = cut.query.long().diff(dim=-1)[real[..., 1:].expand(*cut.query.shape[:3], 3)]
    assert (steps == 1).all(), "a window is not of neighbours"
    short = whole.query_lengths <= 4
    assert (cut.query[short][:, :, 0][cut.query_lengths[short] > 0] == 0).all(), "a short sequence lost its beginning"
    assert torch.equal(cut.query[:, :, 0], cut.query[:, :, 1])  # channels stay together
    assert cut.class_ids is whole.class_ids


def test_all_windows_are_equally_likely() -> None:
    """Seven places for a window of 4 in 10: chi-square at 1e-4, with fixed seeds."""
    one = Episode(pixels(0, 1, 1, 10), torch.arange(10, dtype=torch.uint8).expand(7000, 1, 1, 10))
    cut = windows(one, 4, torch.Generator().manual_seed(2))
    assert cut.query_lengths is None
    counts = cut.query[:, 0, 0, 0].bincount(minlength=7).double()
    assert len(counts) == 7
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 27.9


def test_windows_are_a_function_of_the_generator_and_not_of_the_shots() -> None:
    whole, state = sequences(), torch.get_rng_state()
    first, again, other = (windows(whole, 3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.query, again.query)
    assert torch.equal(first.support, again.support)
    assert not torch.equal(first.query, other.query)
    fewer = windows(whole.with_shots(1), 3, torch.Generator().manual_seed(0))
    assert torch.equal(first.query, fewer.query)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("length", [0, 11, 2.5])
def test_windows_that_are_none(length: Any) -> None:
    with pytest.raises(ValueError, match=rf"length={length} with event_shape=\(2, 10\)"):
        windows(sequences(), length, torch.Generator())
    with pytest.raises(ValueError, match="windows are cut from sequences"):
        windows(Patterns().episode(0, 1, 1, 1), 2, torch.Generator())

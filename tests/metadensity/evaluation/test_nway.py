"""n-way episodes: pure, disjoint, nested; and files of them that are whole, or named."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from metadensity.evaluation.nway import NWayEpisodes, draw_nway, eligible_groups, stack_nway
from metadensity.files import DamagedFileError


@dataclass
class Numbered:
    """Every pixel of an image is its number; classes of 5 to 9 images in groups of 3, 3 and 6 classes."""

    name: str = "numbered"
    split: str = "test"
    seed: int = 0
    class_names: list[str] = field(default_factory=lambda: [f"c{i}" for i in range(12)])
    class_size: np.ndarray = field(default_factory=lambda: 5 + np.arange(12) % 5)
    class_group: np.ndarray = field(default_factory=lambda: np.array([0] * 3 + [1] * 3 + [2] * 6))

    @property
    def class_start(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.class_size)[:-1]])

    @class_start.setter
    def class_start(self, value: np.ndarray) -> None:
        raise AssertionError("nothing is to be changed")

    def pixels(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids.astype(np.uint8))[..., None, None, None].expand(*ids.shape, 1, 2, 2)


def numbers(images: torch.Tensor) -> np.ndarray:
    return images[..., 0, 0, 0].numpy()


def classes(images: torch.Tensor, source: Numbered) -> np.ndarray:
    return np.searchsorted(source.class_start, numbers(images), side="right") - 1


@pytest.mark.parametrize("within_group", [False, True])
def test_episodes_are_what_they_say(within_group: bool) -> None:
    source, seen, groups = Numbered(), set(), []
    for index in range(300):
        one = draw_nway(source, index, ways=3, shots=2, queries=3, within_group=within_group)
        assert (len(one), one.ways, one.shots, one.queries) == (1, 3, 2, 9)
        ways = classes(one.support, source)[0]
        assert (ways == ways[:, :1]).all()
        assert len(set(ways[:, 0])) == 3
        assert (classes(one.query, source)[0] == ways[one.label[0].numpy(), 0]).all()
        assert one.label.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]]
        images = [*numbers(one.support).ravel(), *numbers(one.query).ravel()]
        assert len(set(images)) == len(images), "an image is there twice"
        assert len(set(source.class_group[ways[:, 0]])) == 1 or not within_group
        groups.append(source.class_group[ways[0, 0]])
        seen |= set(images)
    assert seen == set(range(int(source.class_size.sum()))), "some images are never drawn"
    if within_group:  # groups weigh the same, whatever their size: 100 each, standard error 8
        assert np.bincount(groups).min() > 70


def test_an_episode_is_a_function_of_seed_and_index() -> None:
    def draw(seed: int, index: int) -> str:
        return draw_nway(Numbered(seed=seed), index, 4, 1, 2).hash

    state = np.random.get_state()[1].copy()
    hashes = [draw(seed, index) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 2**64 - 1)]
    assert hashes == [draw(seed, index) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 2**64 - 1)]
    assert len(set(hashes)) == 9
    assert (np.random.get_state()[1] == state).all()


def test_supports_are_nested_and_queries_stay() -> None:
    most = draw_nway(Numbered(), 7, 4, 3, 2)
    for shots in range(3):
        fewer = draw_nway(Numbered(), 7, 4, shots, 2)
        assert torch.equal(fewer.query, most.query)
        assert torch.equal(fewer.support, most.support[:, :, :shots])


def test_what_cannot_be_drawn_is_named() -> None:
    source = Numbered()
    with pytest.raises(ValueError, match=r"ways=13, but the test split of numbered has 12 classes. Ask for at most 12"):
        draw_nway(source, 0, 13, 1, 1)
    with pytest.raises(ValueError, match=r"ways=7 within one group, but the largest .* 6 classes. Ask for at most 6"):
        draw_nway(source, 0, 7, 1, 1, within_group=True)
    with pytest.raises(ValueError, match=r"shots=3 and queries=3 need 6 different images, but class 'c0' .* has 5"):
        draw_nway(source, 0, 2, 3, 3)
    for wrong in ({"ways": 1}, {"shots": -1}, {"queries": 0}, {"index": -1}, {"index": 2**64}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}={wrong[name]}; give at least"):
            draw_nway(source, **{"index": 0, "ways": 2, "shots": 1, "queries": 1, **wrong})
    assert [len(group) for group in eligible_groups(source, 4)] == [6]


def stacked() -> NWayEpisodes:
    return stack_nway([draw_nway(Numbered(), index, 3, 2, 1) for index in range(4)])


def test_files_come_back(tmp_path: Path) -> None:
    episodes, path = stacked(), tmp_path / "new" / "episodes.npz"
    episodes.save(path)
    back = NWayEpisodes.load(path)
    assert back.hash == episodes.hash
    assert all(torch.equal(getattr(back, name), getattr(episodes, name)) for name in ("support", "query", "label"))
    assert episodes[1:3].hash != episodes.hash
    assert len(episodes[1:3]) == 2


def test_files_of_numpy_are_read(tmp_path: Path) -> None:
    episodes = stacked()
    arrays = {"support": episodes.support.numpy(), "query": episodes.query.numpy()}
    for dtype in (np.uint8, np.int32, ">i8", np.uint64):
        np.savez(tmp_path / "a.npz", label=episodes.label.numpy().astype(dtype), note=np.zeros(3), **arrays)
        assert NWayEpisodes.load(tmp_path / "a.npz").hash == episodes.hash


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"There is no file {path}"):
            NWayEpisodes.load(path)


def test_damage_is_named_or_harmless(tmp_path: Path) -> None:
    """Every truncation is named; a flipped bit is named, or in a part of the archive that carries no content."""
    episodes, path = stacked(), tmp_path / "episodes.npz"
    episodes.save(path)
    data, named = path.read_bytes(), 0
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFileError, match=re.escape(str(path))):
            NWayEpisodes.load(path)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        try:
            assert NWayEpisodes.load(path).hash == episodes.hash
        except DamagedFileError as error:
            named += str(path) in str(error)
    assert named > 0.6 * len(data)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was executed')",))


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    episodes, path = stacked(), tmp_path / "a.npz"
    trap = np.empty(1, dtype=object)
    trap[0] = Trap()
    np.savez(path, support=trap, query=episodes.query.numpy(), label=episodes.label.numpy())
    with pytest.raises(DamagedFileError, match=r"a.npz is damaged, no .npz archive, or holds pickled objects"):
        NWayEpisodes.load(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros(3), label=np.zeros(2))
    with pytest.raises(DamagedFileError, match=r"lacks support, query; it holds images, label. n-way episodes are"):
        NWayEpisodes.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("support", "query", "label"):
            archive.writestr(f"{name}.npy", b"not an array")
    with pytest.raises(DamagedFileError, match="is damaged"):
        NWayEpisodes.load(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DamagedFileError, match=r"no .npz archive"):
        NWayEpisodes.load(tmp_path / "b.npy")


GOOD = {"support": ((2, 3, 1, 1, 4, 4), np.uint8), "query": ((2, 5, 1, 4, 4), np.uint8), "label": ((2, 5), np.int64)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"support": ((2, 3, 1, 1, 4, 4), np.float32)}, TypeError, r"support holds float32; it must be uint8 pixels"),
        ({"query": ((2, 5, 1, 4, 4), np.int64)}, TypeError, r"query holds int64; it must be uint8 pixels"),
        ({"label": ((2, 5), np.float64)}, TypeError, r"label holds float64; it must be integers, the number of a way"),
        ({"support": ((3, 1, 4, 4), np.uint8)}, ValueError, r"support has shape \(3, 1, 4, 4\); it must be \(episodes"),
        ({"support": ((2, 1, 1, 1, 4, 4), np.uint8)}, ValueError, r"at least one episode, 2 ways"),
        ({"query": ((3, 5, 1, 4, 4), np.uint8)}, ValueError, r"query has shape \(3, 5, 1, 4, 4\).*\(2, at least 1, 1"),
        ({"query": ((2, 5, 1, 4, 5), np.uint8)}, ValueError, r"query has shape \(2, 5, 1, 4, 5\)"),
        ({"query": ((2, 0, 1, 4, 4), np.uint8)}, ValueError, r"query has shape \(2, 0, 1, 4, 4\)"),
        ({"label": ((2, 4), np.int64)}, ValueError, r"label has shape \(2, 4\).* = \(2, 5\)"),
    ],
)
def test_arrays_that_are_no_episodes_are_named(
    change: dict[str, tuple[tuple[int, ...], type]], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{name: np.zeros(shape, dtype) for name, (shape, dtype) in (GOOD | change).items()})
    with pytest.raises(error, match=f"a.npz: .*{message}"):
        NWayEpisodes.load(path)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_out_of_range_is_named(wrong: int, tmp_path: Path) -> None:
    arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in GOOD.items()}
    arrays["label"][1, 2] = wrong
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a.npz: label holds .*; with 3 ways give 0 to 2"):
        NWayEpisodes.load(tmp_path / "a.npz")


def test_episodes_that_do_not_fit_a_model_are_named() -> None:
    episodes = stacked()
    with pytest.raises(ValueError, match=r"a file: images of shape \(1, 2, 2\), but the model is of \(1, 3, 3\)"):
        episodes.require_fit((1, 3, 3), 256, "a file")
    high = int(max(episodes.support.max(), episodes.query.max()))
    with pytest.raises(ValueError, match=rf"pixels up to {high}, but the model has levels 0 to 1.*ink as 1"):
        episodes.require_fit((1, 2, 2), 2)
    episodes.require_fit((1, 2, 2), high + 1)

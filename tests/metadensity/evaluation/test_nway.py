"""Files of n-way episodes are whole, or named; arrays that are none are refused."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from metadensity.evaluation.nway import NWayEpisodes, stack_nway
from metadensity.files import DamagedFileError


def stacked() -> NWayEpisodes:
    """Four episodes of random pixels: 3 ways, 2 shots, a query a way."""
    random = torch.Generator().manual_seed(0)
    support = torch.randint(0, 84, (4, 3, 2, 1, 2, 2), generator=random, dtype=torch.uint8)
    query = torch.randint(0, 84, (4, 3, 1, 2, 2), generator=random, dtype=torch.uint8)
    label = torch.arange(3).expand(4, 3)
    return stack_nway([NWayEpisodes(support[i : i + 1], query[i : i + 1], label[i : i + 1]) for i in range(4)])


def test_files_come_back(tmp_path: Path) -> None:
    episodes, path = stacked(), tmp_path / "new" / "episodes.npz"
    episodes.save(path)
    back = NWayEpisodes.load(path)
    assert back.hash == episodes.hash
    assert all(torch.equal(getattr(back, name), getattr(episodes, name)) for name in ("support", "query", "label"))
    assert episodes[1:3].hash != episodes.hash
    assert len(episodes[1:3]) == 2


def test_lengths_are_kept_and_are_part_of_what_is_known(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    support = torch.randint(0, 84, (4, 3, 2, 1, 6), generator=random, dtype=torch.uint8)
    query, label = support[:, :, 0], torch.arange(3).expand(4, 3)
    plain = NWayEpisodes(support, query, label)
    lengths = {"support_lengths": torch.arange(24).view(4, 3, 2) % 7, "query_lengths": torch.arange(12).view(4, 3) % 7}
    episodes = NWayEpisodes(support, query, label, **lengths)
    episodes.save(tmp_path / "episodes.npz")
    back = NWayEpisodes.load(tmp_path / "episodes.npz")
    assert back.hash == episodes.hash != plain.hash
    for name, expected in lengths.items():
        assert torch.equal(getattr(back, name), expected)
        assert torch.equal(getattr(back[1:3], name), expected[1:3])
        assert torch.equal(getattr(stack_nway([back[:1], back[1:]]), name), expected)
    with pytest.raises(ValueError, match=r"1 of 2 episodes have support_lengths. Stack those that are alike"):
        stack_nway([back, plain])
    with pytest.raises(ValueError, match=r"query_lengths has shape \(4, 2\); one length a sequence is \(4, 3\)"):
        NWayEpisodes(support, query, label, query_lengths=torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"query_lengths holds 7 to 7; of sequences with 6 places"):
        NWayEpisodes(support, query, label, query_lengths=torch.full((4, 3), 7))
    with pytest.raises(ValueError, match=r"query_lengths is given for images of shape \(1, 2, 2\)"):
        NWayEpisodes(stacked().support, stacked().query, stacked().label, query_lengths=torch.ones(4, 3).long())


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

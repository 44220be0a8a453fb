"""Counts on top of a network: by hand, to a sum of one, and drawn as they are scored."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.benchmarks.timing import PeakMemory
from metadensity import load, save
from metadensity.densities import counts
from metadensity.densities.counts import SupportCounts
from metadensity.models import AlignedByteNet, ByteNet, NGram

SMALL: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4, "encoder_layers": 1, "dilations": (1, 2)}


def net(order: int | None = 2, **options: Any) -> ByteNet:
    torch.manual_seed(0)
    model = ByteNet((1, 4), 3, **{**SMALL, "counts": order, **options}).double()
    if model.log_strengths is not None:
        model.log_strengths.data = torch.linspace(-1, 1, order + 1).double()  # type: ignore[operator]
    return model


def strings(shots: int, tasks: int, seed: int = 0) -> Tensor:
    return torch.randint(3, (shots, tasks, 1, 4), generator=torch.Generator().manual_seed(seed))


def every_string() -> Tensor:
    return torch.tensor(list(product(range(3), repeat=4)))[:, None, None, :].expand(-1, 2, -1, -1)


def test_counts_by_hand() -> None:
    """Plain loops over supports and what stands before a place."""
    support, x = strings(3, 2)[:, :, 0], strings(5, 2, seed=1)[:, :, 0]
    strengths, p = torch.tensor([0.5, 2.0, 3.0]).double(), torch.rand(5, 2, 4, dtype=torch.float64)
    found = SupportCounts.of(support, strengths, 3).at_places(p, x)
    for n, task, place in product(range(5), range(2), range(4)):
        expected, string = p[n, task, place].item(), [3, 3, *x[n, task].tolist()]
        for length in range(3):
            context = string[place + 2 - length : place + 2]
            seen = [(s, 4) for s in ([3, 3, *row.tolist()] for row in support[:, task])] + [(string, place)]
            after = [s[at + 2] for s, end in seen for at in range(end) if s[at + 2 - length : at + 2] == context]
            s = strengths[length].item()
            expected = (after.count(string[place + 2]) + s * expected) / (len(after) + s)
        assert found[n, task, place].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("numbers", [1, 100, 2000])
def test_places_are_counted_some_at_a_time(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, a part of a string, or several strings at a time: the same bits, and as little memory as it says."""
    symbols = torch.randint(3, (8, 2, 50), generator=torch.Generator().manual_seed(0))
    support, x, strengths = symbols[:3], symbols[3:], torch.tensor([0.5, 2.0, 3.0])
    p = torch.rand(5, 2, 50, generator=torch.Generator().manual_seed(1))
    at_once = SupportCounts.of(support, strengths, 3).at_places(p, x)
    monkeypatch.setattr(counts, "_NUMBERS_AT_A_TIME", numbers)
    assert torch.equal(SupportCounts.of(support, strengths, 3).at_places(p, x), at_once)


@pytest.mark.parametrize("name", ["ngram", "bytenet"])
def test_long_sequences_take_little_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strings of four tasks, 800 places by 2,400: 15 MB a table, of which the control holds several."""
    model = NGram((1, 800), 3, order=2) if name == "ngram" else net(attention=None).resized(800)
    support, value = torch.randint(3, (2, 2, 4, 1, 800), generator=torch.Generator().manual_seed(0))
    peaks = []
    for numbers in (2**18, 2**40):
        monkeypatch.setattr(counts, "_NUMBERS_AT_A_TIME", numbers)
        with torch.no_grad(), PeakMemory() as memory:
            model(support).log_prob(value)
        peaks.append(memory.peak)
    assert peaks[0] < 8 * 2**20 < 30 * 2**20 < peaks[1]


@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("shots", [0, 3])
def test_it_sums_to_one_and_counts_matter(end: int | None, shots: int) -> None:
    support, every = strings(shots, 2), every_string()
    if end is not None:
        support = torch.where((support == end).cumsum(-1) > 0, end, support)
    with torch.no_grad():
        found = net(end=end)(support).log_prob(every)
        without = net(None, end=end)(support).log_prob(every)
    torch.testing.assert_close(found.logsumexp(0), torch.zeros(2, dtype=torch.float64))
    assert not torch.allclose(found.exp(), without.exp())


def test_strings_are_drawn_as_they_are_scored() -> None:
    """Each symbol is the one at which the conditional's CDF, from the scores of all strings, reaches its number."""
    density, every = net(end=2)(torch.tensor([[[[0, 1, 2, 2]], [[1, 1, 0, 2]]]])), every_string()
    with torch.no_grad():
        p = density.log_prob(every).exp()
    uniforms = torch.rand(40, 2, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = density.sample_from_uniforms(uniforms)  # type: ignore[attr-defined]
    for n, task in product(range(40), range(2)):
        alike = torch.ones(len(every), dtype=torch.bool)
        for place in range(4):
            mass = torch.stack([p[alike & (every[:, 0, 0, place] == level), task].sum() for level in range(3)])
            cdf = (mass / mass.sum()).cumsum(0)
            symbol = int(drawn[n, task, 0, place])
            assert symbol == min(2, int((uniforms[n, task, 0, place] >= cdf).sum()))
            alike &= every[:, 0, 0, place] == symbol
    known = torch.full((2, 1, 4), -1)
    known[:, :, 0] = 1
    assert (density.sample_from_uniforms(uniforms, known=known)[..., 0] == 1).all()  # type: ignore[attr-defined]
    assert density.has_attention  # type: ignore[attr-defined]


def test_strengths_are_learned_and_kept(tmp_path: Any) -> None:
    model = net(1)
    model(strings(2, 2)).log_prob(strings(3, 2)).sum().backward()
    assert model.log_strengths is not None
    assert (model.log_strengths.grad != 0).all()
    save(model, tmp_path / "model.safetensors")
    query = strings(3, 2)
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again(strings(2, 2)).log_prob(query), model(strings(2, 2)).log_prob(query))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": -1}, "counts=-1 with levels=3; give 0 or more"),
        ({"counts": 40}, "counts=40 with levels=3"),
        ({"counts": 1, "event_shape": (1, 2, 2)}, r"counts=1 with event_shape=\(1, 2, 2\); only \(1, places\)"),
    ],
)
def test_counts_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ByteNet(**{"event_shape": (1, 4), "levels": 3, **SMALL, **options})


def test_an_aligned_net_takes_no_counts() -> None:
    with pytest.raises(ValueError, match="counts=2; an aligned ByteNet takes none"):
        AlignedByteNet((1, 8), 4, counts=2)


def test_no_tasks_and_no_strings_are_taken() -> None:
    model = ByteNet((1, 4), 3, layers=2, planes=4, encoder_layers=1, counts=1)
    for shots, tasks, count in ((2, 0, 2), (2, 3, 0), (0, 0, 2)):
        density = model(torch.zeros(shots, tasks, 1, 4, dtype=torch.uint8))
        strings = torch.zeros(count, tasks, 1, 4, dtype=torch.uint8)
        assert density.log_prob(strings).shape == (count, tasks)
        assert density.sample((count,)).shape == strings.shape

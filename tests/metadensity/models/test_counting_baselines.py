"""Counts, histograms and linear prediction by hand, what they learn of data, and that they are what they say."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metadensity
from metadensity.densities.ngram import FULL
from metadensity.episode import Episode
from metadensity.models import Histogram, LinearPrediction, NGram
from metadensity.nn.linear_prediction import WINDOW, amplitudes
from metadensity.training import MetaTrainer, TrainingConfig
from tests.contracts.checks_density import all_images, table


class Source:
    """Episodes of given strings ``(n, T)``, drawn with their numbers."""

    def __init__(self, strings: Tensor, levels: int, lengths: Tensor | None = None) -> None:
        self.strings, self.levels, self.lengths = strings, levels, lengths
        self.event_shape = (1, strings.shape[1])

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(len(self.strings), (shots + queries, tasks), generator=generator)
        lengths = None if self.lengths is None else self.lengths[ids]
        return Episode(
            support=self.strings[ids[queries:]].unsqueeze(2),
            query=self.strings[ids[:queries]].unsqueeze(2),
            support_ids=ids[queries:],
            query_ids=ids[:queries],
            support_lengths=None if lengths is None else lengths[queries:],
            query_lengths=None if lengths is None else lengths[:queries],
        )


def words(*spelt: str, places: int = 6) -> Tensor:
    """Strings of a, b and c, ended by level 3."""
    return torch.tensor([["abc".index(c) for c in word] + [3] * (places - len(word)) for word in spelt])


def grams(strings: list[list[int]], length: int) -> Counter[tuple[Any, ...]]:
    """N-grams as pairs of a context and a symbol; before a string stand as many "^" as a context takes."""
    found: Counter[tuple[Any, ...]] = Counter()
    for string in strings:
        padded = ["^"] * length + string
        for place in range(len(string)):
            found[tuple(padded[place : place + length]), padded[place + length]] += 1
    return found


def by_hand(trained: list[list[int]], support: list[list[int]], string: list[int], strengths: list[float]) -> float:
    """log p of a string, with dictionaries."""
    total = 0.0
    for place, symbol in enumerate(string):
        p = 1 / 4
        own = string[:place]
        for adapted in (False, True):
            for length, strength in enumerate(strengths):
                context = tuple((["^"] * length + own)[len(own) : len(own) + length])
                counts = grams([*support, own], length) if adapted else grams(trained, length)
                after = {s: n for (c, s), n in counts.items() if c == context}
                d = strength if adapted else len(after)
                if sum(after.values()) + d:
                    p = (after.get(symbol, 0) + d * p) / (sum(after.values()) + d)
        total += math.log(p)
    return total


def counted(strings: Tensor, **options: Any) -> NGram:
    model = NGram((1, strings.shape[1]), 4, end=True, entries=64, **options).double()
    model.initialise(Source(strings, 4), tasks=8, queries=4)
    with torch.no_grad():
        model.log_strengths.copy_(torch.linspace(0.5, -0.5, model.order + 1))
    return model


def real(strings: Tensor) -> list[list[int]]:
    """Strings up to their end, it included."""
    return [string[: string.index(3) + 1] if 3 in string else string for string in strings.tolist()]


@pytest.mark.parametrize("order", [0, 1, 3])
def test_counts_are_interpolated_as_by_hand(order: int) -> None:
    trained, support = words("abab", "abc", "ca", "bbabba"), words("cab", "ccc")
    model = counted(trained, order=order)
    assert int(model.counted) == 4, "each training string counts once, however often it is drawn"
    strengths = model.log_strengths.exp().tolist()
    value = words("ab", "cccc", "", "ccabab", "bbabba")
    for shots in (0, 2):
        density = model(support[:shots].view(shots, 1, 1, 6))
        found = density.log_prob(value.view(5, 1, 1, 6))[:, 0]
        for string, log_prob in zip(real(value), found.tolist(), strict=True):
            expected = by_hand(real(trained), real(support[:shots]), string, strengths)
            assert log_prob == pytest.approx(expected, abs=1e-12)


def test_all_strings_sum_to_one_and_what_follows_the_end_is_impossible() -> None:
    model = NGram((1, 4), 3, end=True).double()
    model.initialise(Source(torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]]), 3), tasks=32, queries=8)
    density = model(torch.tensor([[0, 0, 2, 2]]).view(1, 1, 1, 4))
    whole = table(density)
    assert whole.logsumexp(0).abs().max() < 1e-12
    assert int((whole > -torch.inf).sum()) == 31  # strings of up to four of two symbols
    draws = density.sample((500,), torch.Generator().manual_seed(0))
    assert (density.log_prob(draws) > -torch.inf).all()
    value = torch.tensor([[0, 2, 2, 2], [1, 0, 1, 2]]).view(2, 1, 1, 4)
    through_the_end = density.prefix_log_prob(value, torch.tensor([[2], [4]]))
    torch.testing.assert_close(density.log_prob(value), through_the_end)


def test_lengths_say_what_of_a_support_counts() -> None:
    model = NGram((1, 5), 3, order=2)
    support = torch.tensor([[0, 1, 0, 2, 2], [1, 1, 1, 0, 0]]).view(2, 1, 1, 5)
    lengths = torch.tensor([[3], [2]])
    value = all_images((1, 5), 3)[:50].unsqueeze(1)
    found = model(support, lengths).log_prob(value)
    other = support.clone()
    other[0, ..., 3:], other[1, ..., 2:] = 1, 2
    assert torch.equal(found, model(other, lengths).log_prob(value))
    assert not torch.allclose(found, model(support).log_prob(value))
    assert table(model(support, lengths)).logsumexp(0).abs().max() < 1e-5


def test_the_most_frequent_entries_are_held_and_all_still_sums_to_one() -> None:
    strings = torch.randint(3, (40, 6), generator=torch.Generator().manual_seed(0))
    model = NGram((1, 6), 3, entries=9).double()
    model.initialise(Source(strings, 3), tasks=8, queries=4)
    assert (model.table.keys[3] < FULL).sum() == 9
    kept = model.table.counts[3]
    assert kept.min() >= 2
    everything = NGram((1, 6), 3, entries=200).double()
    everything.initialise(Source(strings, 3), tasks=8, queries=4)
    assert kept.sum() == everything.table.counts[3].sort(descending=True).values[:9].sum()
    assert table(model(strings[:1].view(1, 1, 1, 6))).logsumexp(0).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [NGram, LinearPrediction])
def test_what_was_fitted_is_kept_and_not_fitted_again(kind: Any, tmp_path: Any) -> None:
    strings = torch.randint(7, (60, 40), generator=torch.Generator().manual_seed(0))
    source: Any = Source(strings, 7)
    model = kind((1, 40), 7)
    before = model(strings[:0].view(0, 1, 1, 40)).log_prob(strings[:1].view(1, 1, 40)).item()
    model.initialise(source, tasks=4, queries=2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    density = model(strings[:2].view(2, 1, 1, 40))
    assert model(strings[:0].view(0, 1, 1, 40)).log_prob(strings[:1].view(1, 1, 40)).item() != before
    metadensity.save(model, tmp_path / "model.safetensors")
    loaded = metadensity.load(tmp_path / "model.safetensors")
    value = strings[2:5].view(3, 1, 1, 40)
    assert torch.equal(loaded(strings[:2].view(2, 1, 1, 40)).log_prob(value), density.log_prob(value))
    loaded.initialise(Source(strings.flip(1), 7), tasks=4, queries=2)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def waves(count: int, places: int, seed: int) -> Tensor:
    """Codes ``(count, places)`` of a resonance driven by noise: x_t = 1.6 x_{t-1} - 0.8 x_{t-2} + e_t."""
    noise = 0.02 * torch.randn(count, places, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.zeros(count, places + 2, dtype=torch.float64)
    for place in range(places):
        x[:, place + 2] = 1.6 * x[:, place + 1] - 0.8 * x[:, place] + noise[:, place]
    borders = amplitudes(torch.arange(255).double() + 0.5, 256)
    return torch.searchsorted(borders, x[:, 2:].contiguous())


def test_amplitudes_are_the_mu_law_of_the_speech_task() -> None:
    from tasks.speech import mu_law

    found = amplitudes(torch.arange(256).double(), 256)
    torch.testing.assert_close(found, torch.from_numpy(mu_law.decode(np.arange(256))), rtol=0, atol=1e-14)
    borders = amplitudes(torch.arange(255).double() + 0.5, 256).numpy()
    assert (mu_law.encode(borders + 1e-9).codes == range(1, 256)).all()
    assert (mu_law.encode(borders - 1e-9).codes == range(255)).all()


def test_linear_prediction_finds_the_resonance() -> None:
    """From data or from the support alone; and the scale is that of the noise."""
    codes = waves(20, 2000, seed=0)
    fitted = LinearPrediction((1, 2000), 256).double()
    fitted.initialise(Source(codes, 256), tasks=4, queries=2)
    unseen = LinearPrediction((1, 2000), 256).double()
    unseen.log_trust.data.zero_()  # in the white noise that stands for data
    empty, support = codes[:0].view(0, 1, 1, 2000), codes[:8].view(8, 1, 1, 2000)
    for density in (fitted(empty), unseen(support), fitted(support)):
        expected = torch.tensor([1.6, -0.8] + [0.0] * 14, dtype=torch.float64)  # but for the noise of the codes
        torch.testing.assert_close(density.predictor.taps[0].detach(), expected, rtol=0, atol=0.15)
    value = waves(4, 2000, seed=1).view(4, 1, 1, 2000)
    sound = fitted(empty).log_prob(value).mean() / 2000 / -math.log(2)
    assert sound < unseen(empty).log_prob(value).mean() / 2000 / -math.log(2) - 0.5
    # The noise has an entropy of log2(0.02 sqrt(2 pi e)) bits; codes at x are ln(256) (1/255 + |x|) 2 / 255 apart.
    x = amplitudes(value.double(), 256).abs()
    ideal = math.log2(0.02 * math.sqrt(2 * math.pi * math.e)) - (math.log(256) * (1 / 255 + x) * 2 / 255).log2().mean()
    assert ideal - 0.01 < sound < ideal + 0.1


def test_linear_prediction_by_hand() -> None:
    """Two taps, a place at a time."""
    model = LinearPrediction((1, 40), 256, taps=2).double()
    codes = waves(3, 40, seed=2)
    with torch.no_grad():
        density = model(codes[:2].view(2, 1, 1, 40))
        of = density.predictor
    taps = of.taps[0].tolist()
    gain, floor, start, uniform = (float(n) for n in (of.gain, of.floor, of.start, of.uniform))
    x = amplitudes(codes[2].double(), 256).tolist()
    borders = [-math.inf, *amplitudes(torch.arange(255).double() + 0.5, 256).tolist(), math.inf]
    errors, expected = [start] * WINDOW, []
    for place, code in enumerate(codes[2].tolist()):
        mean = sum(tap * x[place - 1 - lag] for lag, tap in enumerate(taps) if place > lag)
        scale = gain * sum(errors[-WINDOW:]) / WINDOW + floor
        low, high = (1 / (1 + math.exp(min(700, -(b - mean) / scale))) for b in borders[code : code + 2])
        expected.append(math.log((1 - uniform) * (high - low) + uniform / 256))
        errors.append(abs(x[place] - mean))
    found = density.conditional_log_probs(codes[2].view(1, 1, 40))[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_lengths_say_what_of_a_recording_is_fitted() -> None:
    model, codes = LinearPrediction((1, 300), 256).double(), waves(3, 300, seed=3)
    support, lengths = codes[:2].view(2, 1, 1, 300), torch.tensor([[200], [120]])
    taps = model(support, lengths).predictor.taps
    other = support.clone()
    other[0, ..., 200:], other[1, ..., 120:] = 7, 250
    assert torch.equal(taps, model(other, lengths).predictor.taps)
    assert not torch.allclose(taps, model(support).predictor.taps)
    silent = torch.full((2, 1, 1, 300), 128)
    assert model(silent).log_prob(support).isfinite().all()


def test_all_256_codes_sum_to_one_in_the_tails_as_well() -> None:
    """Float32, given a loud past and a quiet one: the sum over codes of each place is one."""
    model = LinearPrediction((1, 60), 256)
    codes = waves(2, 60, seed=4)
    density = model(codes[:1].view(1, 1, 1, 60))
    for before in (codes[1], torch.full((60,), 128), torch.tensor([0, 255] * 30)):
        every = before.repeat(256, 1)
        every[:, -1] = torch.arange(256)
        terms = density.conditional_log_probs(every.view(256, 1, 1, 60))[..., -1].double()
        assert terms.logsumexp(0).abs().max() < 1e-5


def test_training_improves_both() -> None:
    """Five numbers of one, four of the other, learned as any parameters are."""
    strings = torch.randint(7, (60, 30), generator=torch.Generator().manual_seed(0))
    for kind in (NGram, LinearPrediction):
        source: Any = Source(strings, 7)
        config = TrainingConfig(steps=30, tasks=4, queries=2, shots=(0, 2), learning_rate=0.1, warmup=2)
        trainer = MetaTrainer(kind((1, 30), 7), source, None, config)
        episode = source.episode(99, 8, 2, 4)
        before = trainer.model.loss(episode.support, episode.query).mean().item()
        after = trainer.run().loss(episode.support, episode.query).mean().item()
        assert after < before


def test_arguments_that_are_none() -> None:
    for options in ({"order": -1}, {"order": 1.5}, {"order": 8}):
        with pytest.raises(ValueError, match=r"order=.* with levels=256; give 0 or more"):
            NGram((1, 4), 256, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"entries=0; it must be a whole number of at least 1"):
        NGram((1, 4), 2, entries=0)
    with pytest.raises(ValueError, match=r"taps=0; it must be"):
        LinearPrediction((1, 4), 2, taps=0)
    for model in (NGram((1, 4), 2), LinearPrediction((1, 4), 2)):
        density: Any = model(torch.zeros(0, 1, 1, 4).long())
        with pytest.raises(ValueError, match=r"looks? at no supports while"):
            density.attention_weights(torch.zeros(1, 1, 4).long())


def test_the_histogram_of_a_support_is_as_by_hand() -> None:
    strings = torch.tensor([[0, 1, 2, 2], [0, 3, 3, 3], [1, 1, 3, 3]])
    model = Histogram((1, 4), 4).double()
    model.initialise(Source(strings, 4, torch.tensor([3, 1, 2])), tasks=8, queries=4)
    drawn = [Source(strings, 4).episode(index, 8, 0, 4).query_ids for index in range(8)]
    often = torch.cat([ids.flatten() for ids in drawn if ids is not None]).bincount(minlength=3)
    prior = (1 + often @ torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 2, 0, 0]])).double()
    prior /= prior.sum()
    support, lengths = torch.tensor([[0, 0, 2, 3], [2, 1, 0, 0]]).view(2, 1, 1, 4), torch.tensor([[4], [1]])
    strength = model.log_strength.exp().item()
    counts = torch.tensor([2, 0, 2, 1])
    expected = ((counts + strength * prior) / (5 + strength)).log()
    value = torch.tensor([[3, 2, 0, 0], [1, 1, 1, 1]]).view(2, 1, 1, 4)
    density = model(support, lengths)
    torch.testing.assert_close(density.conditional_log_probs(value), expected[value])
    assert table(density).logsumexp(0).abs().max() < 1e-12
    torch.testing.assert_close(model(support[:0]).log_prob(value), prior.log()[value].sum((-2, -1)))
    again = model.logits.clone()
    model.initialise(Source(strings.flip(1), 4), tasks=8, queries=4)
    assert torch.equal(model.logits, again), "a model that has seen data stays as it is"


def test_a_histogram_learns_how_far_to_trust_a_support() -> None:
    """Where each class has an offset of its own supports are believed, where none has they are not."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(3, (60, 1, 40), generator=generator)
    offsets = torch.arange(60).view(-1, 1, 1) % 12

    class Classes:
        event_shape, levels = (1, 40), 16

        def __init__(self, offset: int) -> None:
            self.images = noise + offset * offsets

        def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
            draws = torch.Generator().manual_seed(index)
            classes, of_class = torch.randint(12, (tasks,), generator=draws), torch.randperm(5, generator=draws)
            rows = classes + 12 * of_class[: shots + queries].unsqueeze(1)
            return Episode(support=self.images[rows[queries:]], query=self.images[rows[:queries]])

    trust = {}
    for offset in (0, 1):
        model = Histogram((1, 40), 16)
        config = TrainingConfig(steps=60, tasks=8, queries=2, shots=(2,), learning_rate=0.2, warmup=0)
        trust[offset] = MetaTrainer(model, Classes(offset), None, config).run().log_strength.exp().item()
    assert trust[1] < 10 < 200 < trust[0], trust

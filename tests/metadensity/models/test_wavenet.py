"""WaveNet: sizes of the paper, any number of places with the same weights, lengths, and three ways to a new speaker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.benchmarks.timing import PeakMemory
from metadensity import Episode, evaluate
from metadensity.adaptation.fine_tuning import EMBEDDING, FineTuning, fine_tune
from metadensity.adaptation.functional import adapting_names
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.evaluation.cost import parameter_count
from metadensity.models import WaveNet
from metadensity.nn.encoders import SupportSequenceEncoder, stretches
from metadensity.testing.subjects import random_images, randomise
from metadensity.training import MetaTrainer, TrainingConfig

SMALL: dict[str, Any] = {"layers": 5, "planes": 6, "penultimate": 8, "dilations": (1, 2, 4), "patches": 3}
FIELD = 2 + 1 + 2 + 4 + 1


def net(places: int, attention: str | None = "dot", **options: Any) -> WaveNet:
    model = WaveNet((1, places), 16, **{**SMALL, "attention": attention, **options}).double()
    randomise(model, seed=0)
    return model


def clips(*shape: int, seed: int = 0) -> Tensor:
    return random_images(*shape, levels=16, seed=seed)


def reach(model: WaveNet) -> int:
    return sum(layer.conv(0).reach for layer in model.network.layers)


def test_the_field_is_that_of_the_paper() -> None:
    model = WaveNet((1, 4000), 256)
    dilations = [layer.conv(0).dilation for layer in model.network.layers]
    assert dilations == [1, *[2**i for i in range(10)] * 3]
    assert all(layer.conv(0).taps == 2 for layer in model.network.layers)
    assert reach(model) == 2 + 3 * 1023
    assert reach(net(20)) == FIELD


@pytest.mark.parametrize("attention", [None, "dot", "additive"])
def test_weights_do_not_know_the_number_of_places(attention: str | None) -> None:
    """A model made for windows scores a whole clip; terms do not see where they lie, nor what is out of the field."""
    model, support = net(24, attention), clips(2, 3, 1, 24, seed=1)
    whole = model.resized(70)
    assert whole.config == {**model.config, "event_shape": [1, 70]}
    assert parameter_count(whole) == parameter_count(model)
    assert [p.data_ptr() for p in whole.parameters()] == [p.data_ptr() for p in model.parameters()]
    value = clips(2, 3, 1, 70, seed=2)
    lengths = torch.full((2, 3), 24)
    padded = torch.cat([support, clips(2, 3, 1, 46, seed=3)], -1)
    terms = whole(padded, lengths).conditional_log_probs(value)
    first = model(support).conditional_log_probs(value[..., :24])
    torch.testing.assert_close(terms[..., :24], first, rtol=0, atol=1e-10)
    cut = model(support).conditional_log_probs(value[..., 30:54])  # a window, which begins as a clip does
    torch.testing.assert_close(terms[..., 30 + FIELD : 54], cut[..., FIELD:], rtol=0, atol=1e-10)
    assert (terms[..., 30 : 30 + FIELD] - cut[..., :FIELD]).abs().max() > 1e-3


def test_a_clip_scored_in_pieces_is_the_clip_scored_whole() -> None:
    """Pieces of any size, each after as many samples as the field has: the sum is the log-probability of the clip."""
    model, support, value = net(90), clips(2, 2, 1, 90, seed=1), clips(3, 2, 1, 90, seed=2)
    density = model(support)
    whole = density.log_prob(value)
    for size in (7, 32, 90):
        total = torch.zeros(3, 2, dtype=torch.float64)
        for start in range(0, 90, size):
            begin, end = max(0, start - FIELD), min(start + size, 90)
            piece = PixelCNNDensity(model.resized(end - begin).network, density.condition)
            total += piece.conditional_log_probs(value[..., begin:end])[..., start - begin :].sum((-2, -1))
        torch.testing.assert_close(total, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attention", [None, "dot", "additive"])
def test_what_is_not_real_moves_nothing(attention: str | None) -> None:
    model, value = net(200, attention), clips(2, 3, 1, 200, seed=2)
    support, lengths = (
        clips(4, 3, 1, 200, seed=1),
        torch.tensor([[200, 1, 64], [65, 130, 7], [12, 200, 128], [0, 3, 5]]),
    )
    other = support.clone()
    for shot, task in torch.cartesian_prod(torch.arange(4), torch.arange(3)).tolist():
        other[shot, task, :, lengths[shot, task] :] = 0
    found = model(support, lengths).log_prob(value)
    assert found.isfinite().all()
    assert torch.equal(found, model(other, lengths).log_prob(value))
    assert not torch.equal(found, model(support).log_prob(value))
    full = torch.full_like(lengths, 200)
    torch.testing.assert_close(model(support, full).log_prob(value), model(support).log_prob(value), rtol=0, atol=1e-9)


def test_stretches_are_those_of_adaptive_pooling() -> None:
    x = torch.randn(4, 3, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([23, 5, 1, 0])
    found = stretches(x, counts, 6)
    for row, count in enumerate(counts.tolist()):
        pooled = torch.nn.functional.adaptive_avg_pool1d(x[row, :, :count], 6) if count else torch.zeros(3, 6).double()
        torch.testing.assert_close(found[row], pooled, rtol=0, atol=1e-12)


def test_a_long_support_has_as_many_patches_as_a_short_one() -> None:
    encoder = SupportSequenceEncoder((1, 5000), 256, 8, 4, patches=16)
    for places in (3, 400, 5000):
        vector, patches = encoder.__class__((1, places), 256, 8, 4, patches=16)(clips(2, 3, 1, places))
        assert vector.shape == (3, 4)
        assert patches is not None
        assert [part.shape for part in patches] == [(3, 32, 8)] * 2
    assert encoder(clips(0, 3, 1, 5000))[1][0].shape == (3, 0, 8)


def test_attention_holds_no_samples_times_samples() -> None:
    """Nor samples times patches: twice the samples take less more than the scores of all their patches would."""
    peaks = []
    for places in (2048, 4096):
        model = WaveNet((1, places), 16, **{**SMALL, "patches": 256}, attention="dot")
        with PeakMemory() as memory:
            model(clips(4, 1, 1, places)).log_prob(clips(1, 1, 1, places)).sum().backward()
        peaks.append(memory.peak)
    assert 0 < peaks[1] - peaks[0] < 2048 * (4 * 256) * 4 / 2  # bytes of float32


def test_images_are_taken_and_sizes_are_asked_for_by_dimension() -> None:
    model = net(9)
    with pytest.raises(ValueError, match=r"space=\(3, 3\); this model has 1 space dimensions"):
        model.resized(3, 3)
    images = WaveNet((1, 6, 5), 2, **SMALL).resized(4, 7)
    assert images(torch.zeros(2, 1, 1, 4, 7, dtype=torch.uint8)).sample().shape == (1, 1, 4, 7)
    with pytest.raises(ValueError, match="attention='soft'; choose"):
        WaveNet((1, 9), 2, attention="soft")
    with pytest.raises(ValueError, match="patches=0; it must be"):
        WaveNet((1, 9), 2, patches=0)


class Tones:
    """Each class is a period; its clips are square waves of it with noise, of a length of their own each."""

    event_shape, levels = (1, 48), 16

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        generator = torch.Generator().manual_seed(index)
        period = torch.randint(3, 9, (tasks,), generator=generator)

        def draw(count: int) -> tuple[Tensor, Tensor]:
            phase = torch.randint(20, (count, tasks, 1, 1), generator=generator)
            wave = (torch.arange(48) + phase) // period[:, None, None] % 2 * 9
            noise = torch.randint(6, wave.shape, generator=generator)
            return (wave + noise).to(torch.uint8), torch.randint(20, 49, (count, tasks), generator=generator)

        (query, query_lengths), (support, support_lengths) = draw(queries), draw(shots)
        return Episode(
            support, query, period, support_lengths=support_lengths, query_lengths=query_lengths,
        )  # fmt: skip


def test_it_trains_on_windows_and_scores_whole_clips() -> None:
    torch.manual_seed(0)
    model = WaveNet((1, 48), 16, **{**SMALL, "planes": 12}, attention="dot")
    episodes = [Tones().episode(1000 + i, 8, 3, 2) for i in range(2)]
    before = [row.nats_per_dim for row in evaluate(model, episodes).rows]
    settings = {"steps": 60, "tasks": 8, "queries": 2, "shots": (0, 1, 3), "warmup": 5, "learning_rate": 1e-2}
    trained = MetaTrainer(model, Tones(), None, TrainingConfig(**settings, average=0.0, window=16)).run()
    after = [row.nats_per_dim for row in evaluate(trained, episodes).rows]
    assert max(after) < min(before) - 0.2


def test_what_is_resized_has_the_same_parameters() -> None:
    model = net(48, None)
    frozen = next(model.parameters()).requires_grad_(False)
    other = model.resized(16)
    assert all(mine is its for mine, its in zip(model.parameters(), other.parameters(), strict=True))
    assert not frozen.requires_grad
    assert sum(parameter.requires_grad for parameter in other.parameters()) == len(list(model.parameters())) - 1


WAYS = {"encoder": None, "embedding": EMBEDDING, "all": ""}


def test_three_ways_to_a_new_speaker() -> None:
    """Chen et al. 2019: what is fitted to the support makes it likelier, all weights more than f(s) alone."""
    model, support = net(20, None).float(), Tones().episode(3, 2, 3, 0).support[..., :20]
    nll, moved = {}, {}
    for way, names in WAYS.items():
        settings = None if names is None else FineTuning(20, 1e-2, names, early_stopping=False)
        density = model(support) if settings is None else fine_tune(model, support, settings)
        nll[way] = -density.log_prob(support).detach().mean()
        moved[way] = 0 if names is None else len(adapting_names(model, names))
    assert moved == {"encoder": 0, "embedding": 1, "all": len(list(model.parameters()))}
    assert nll["all"] < nll["embedding"] < nll["encoder"]

"""Templates: the optimum is the posterior predictive of the very episodes that are drawn, and nothing beats it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily

from metadensity import Episode
from metadensity.evaluation.intervals import clustered_mean
from metadensity.testing.checks_density import all_images, goodness_of_fit, table
from tasks import TASKS, TemplateTasks
from tasks.templates.density import TemplateDensity

# Of each chi-square test, if its seed were drawn anew; the seeds are fixed.
FALSE_ALARM = 1e-4
SMALL: list[dict[str, Any]] = [
    {"size": 2, "classes": 3, "shifts": 1, "flip": 0.2, "ink": 0.5},
    {"size": 3, "classes": 4, "shifts": 9, "flip": 0.1, "ink": 0.4},
    {"size": 3, "classes": 2, "shifts": 9, "flip": 0.4, "variety": 0.3, "ink": 0.5},
]


def make(**options: Any) -> TemplateTasks:
    task = TASKS["templates"](**options)
    assert isinstance(task, TemplateTasks)
    return task


def naive_image(task: TemplateTasks, image: Tensor, number: int, down: int, right: int) -> float:
    """p(image | template, shift), pixel by pixel."""
    size, total = task.event_shape[1], 1.0
    for row, column in itertools.product(range(size), repeat=2):
        clean = bool(task.templates[number, (row - down) % size, (column - right) % size])
        total *= 1 - task.flip if bool(image[0, row, column]) == clean else task.flip
    return total


def naive_given_class(task: TemplateTasks, image: Tensor, number: int) -> float:
    """p(image | template): the mean over shifts."""
    offsets = list(itertools.product(range(-task.reach, task.reach + 1), repeat=2))
    return sum(naive_image(task, image, number, *offset) for offset in offsets) / len(offsets)


def naive(task: TemplateTasks, image: Tensor, support: Tensor) -> float:
    """p(image | support) as a ratio of two sums over templates, the support ``(S, 1, height, width)`` of one task."""
    joint = [math.prod(naive_given_class(task, shot, c) for shot in support) for c in range(task.classes)]
    return sum(p * naive_given_class(task, image, c) for c, p in enumerate(joint)) / sum(joint)


@pytest.mark.parametrize("shots", [0, 1, 3])
@pytest.mark.parametrize("options", SMALL, ids=str)
def test_the_optimum_is_the_sum_by_hand(options: dict[str, Any], shots: int) -> None:
    task = make(**options)
    episode = task.episode(0, tasks=2, shots=shots, queries=3)
    found = task.optimum(episode).log_prob(episode.query)
    assert found.shape == (3, 2)
    assert found.dtype == torch.float64
    for query, number in itertools.product(range(3), range(2)):
        expected = math.log(naive(task, episode.query[query, number], episode.support[:, number]))
        assert found[query, number].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("options", SMALL, ids=str)
def test_it_sums_to_one(options: dict[str, Any], shots: int) -> None:
    task = make(**options)
    total = table(task.optimum(task.episode(1, tasks=3, shots=shots, queries=1))).logsumexp(0)
    assert total.abs().max() < 1e-12


@pytest.mark.parametrize("options", SMALL, ids=str)
def test_pixel_terms_are_the_conditionals(options: dict[str, Any]) -> None:
    """Against p(x_<=t) / p(x_<t), each a sum over all images with that beginning."""
    task = make(**options)
    density = task.optimum(task.episode(1, tasks=2, shots=1, queries=1))
    images = all_images(task.event_shape, 2)
    log_probs, flat, value = table(density), images.flatten(1), images[11 % len(images)].expand(2, *task.event_shape)
    prefix = [
        log_probs[(flat[:, :length] == value[0].flatten()[:length]).all(1)].logsumexp(0)
        for length in range(flat.shape[1] + 1)
    ]
    expected = torch.stack(prefix).diff(dim=0).mT.view(value.shape)
    torch.testing.assert_close(density.conditional_log_probs(value), expected, rtol=0, atol=1e-12)


def test_torchs_mixture_agrees() -> None:
    """One matrix product against torch's own mixture of Bernoulli pixels, of the whole image and of every prefix."""
    task = make(classes=5, flip=0.2)
    episode = task.episode(3, tasks=2, shots=1, queries=4)
    density = task.optimum(episode)
    ink = density.components * (1 - 2 * task.flip) + task.flip
    pixels = episode.query.double().flatten(2)  # one channel: in raster order
    prefixes = density.conditional_log_probs(episode.query).flatten(2).cumsum(-1)
    for number in range(2):
        weights = Categorical(logits=density.log_weights[number])
        for length in range(1, ink.shape[1] + 1):
            twin = MixtureSameFamily(weights, Independent(Bernoulli(ink[:, :length]), 1))
            expected = twin.log_prob(pixels[:, number, :length])
            torch.testing.assert_close(prefixes[:, number, length - 1], expected)
        torch.testing.assert_close(density.log_prob(episode.query)[:, number], expected)


def test_pixel_terms_sum_to_log_prob_over_many_chunks() -> None:
    task = make(flip=0.3)
    episode = task.episode(0, tasks=50, shots=2, queries=5)  # 250 images: three chunks
    density = task.optimum(episode)
    by_pixel = density.conditional_log_probs(episode.query)
    assert by_pixel.shape == episode.query.shape
    torch.testing.assert_close(by_pixel.flatten(2).sum(-1), density.log_prob(episode.query), rtol=1e-12, atol=1e-10)


def test_channels_are_generated_fastest() -> None:
    """With two channels the terms, in raster order, sum up to p of whole pixels."""
    components = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 1]]])  # (components, C, X)
    density = TemplateDensity(components, torch.tensor([[0.3, 0.7]], dtype=torch.float64).log(), 0.1)
    value = torch.tensor([[[0, 1], [1, 0]]])
    first = 0.3 * 0.9 * 0.9 + 0.7 * 0.1 * 0.1  # the first place: channels 0 and 1 are 0 and 1
    assert density.conditional_log_probs(value)[0, :, 0].sum().item() == pytest.approx(math.log(first))


def test_the_order_of_the_support_does_not_matter_and_tasks_do_not_see_one_another() -> None:
    task = make(flip=0.3)
    episode = task.episode(2, tasks=6, shots=4, queries=2)
    expected = task.optimum(episode).log_prob(episode.query)
    shuffled = Episode(episode.support[[2, 0, 3, 1]], episode.query)
    torch.testing.assert_close(task.optimum(shuffled).log_prob(episode.query), expected, rtol=0, atol=1e-11)
    for number in range(6):
        alone = Episode(episode.support[:, number : number + 1], episode.query[:, number : number + 1])
        found = task.optimum(alone).log_prob(alone.query)[:, 0]
        torch.testing.assert_close(found, expected[:, number], rtol=0, atol=1e-11)


def test_the_class_posterior() -> None:
    task = make(flip=0.05)
    none = task.class_log_posterior(task.episode(0, tasks=2, shots=0, queries=1).support)
    torch.testing.assert_close(none, torch.full((2, 64), -math.log(64), dtype=torch.float64))
    episode = task.episode(0, tasks=200, shots=1, queries=1)
    assert episode.class_ids is not None
    assert (task.class_log_posterior(episode.support).argmax(-1) == episode.class_ids).double().mean() > 0.99


@pytest.mark.parametrize("shots", [0, 1])
def test_samples_follow_the_density(shots: int) -> None:
    task = make(**SMALL[1])
    density = task.optimum(task.episode(0, tasks=2, shots=shots, queries=1))
    draws = density.sample((20_000,), torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, 2, *task.event_shape)
    assert draws.dtype == torch.int64
    counts = [np.bincount(codes, minlength=512) for codes in (draws.flatten(2) @ 2 ** torch.arange(9)).T.numpy()]
    probabilities = table(density).exp().numpy()
    for number in range(2):
        chance = goodness_of_fit(counts[number], probabilities[:, number] * 20_000)
        assert chance > FALSE_ALARM, f"p = {chance:.2g}"


def test_samples_come_from_the_generator_alone() -> None:
    task = make()
    density = task.optimum(task.episode(0, tasks=3, shots=1, queries=1))
    state = torch.get_rng_state()
    first = density.sample((2, 5), torch.Generator().manual_seed(1))
    assert first.shape == (2, 5, 3, 1, 8, 8)
    assert torch.equal(first, density.sample((2, 5), torch.Generator().manual_seed(1)))
    assert not torch.equal(first, density.sample((2, 5), torch.Generator().manual_seed(2)))
    assert torch.equal(state, torch.get_rng_state())
    assert density.sample((0,), torch.Generator()).shape == (0, 3, 1, 8, 8)
    assert density.sample().shape == (3, 1, 8, 8)


def test_episodes_follow_the_optimum() -> None:
    """Support and query are jointly distributed as p(support) p(query | support): all 256 pairs of 2 x 2 images."""
    task = make(**SMALL[0])
    drawn = task.episode(0, tasks=20_000, shots=1, queries=1)
    codes = (torch.cat([drawn.support, drawn.query]).flatten(2).long() @ torch.tensor([64, 16, 4, 1])).numpy()
    images = all_images(task.event_shape, 2)
    number = (images.flatten(1) @ torch.tensor([64, 16, 4, 1])).numpy()
    first = table(task.optimum(Episode(images[:0, None], images[:1, None])))  # (16, 1)
    then = table(task.optimum(Episode(images[None], images[None])))  # (query, support)
    expected = (first.mT + then).exp().numpy() * 20_000
    counts = np.array([[((codes[0] == s) & (codes[1] == q)).sum() for s in number] for q in number])
    assert counts.sum() == 20_000
    assert goodness_of_fit(counts.ravel(), expected.ravel()) > FALSE_ALARM
    # Negative control: without the support's information the same test fails.
    unrelated = (first + first.mT).exp().numpy() * 20_000
    assert goodness_of_fit(counts.ravel(), unrelated.ravel()) < FALSE_ALARM


def paired(one: Tensor, other: Tensor) -> tuple[float, float]:
    """95 % interval of the mean of ``one - other`` over tasks, one query each."""
    difference = (one - other).flatten().numpy()
    return clustered_mean(difference, np.arange(len(difference)))[1]


@pytest.fixture(scope="module")
def hard() -> tuple[TemplateTasks, Episode]:
    task = make(split="test", flip=0.3)
    return task, task.episode(0, tasks=2000, shots=8, queries=1)


def test_more_shots_are_better_on_average(hard: tuple[TemplateTasks, Episode]) -> None:
    task, episode = hard
    scores = [task.optimum(episode.with_shots(shots)).log_prob(episode.query) for shots in (0, 1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(scores):
        assert paired(more, fewer)[0] > 0


@pytest.mark.parametrize("shots", [0, 1, 4])
@pytest.mark.parametrize(
    "wrong", [{"flip": 0.25}, {"flip": 0.35}, {"template_seed": 1}, {"classes": 60}, {"ink": 0.35}]
)
def test_no_other_density_beats_it(hard: tuple[TemplateTasks, Episode], shots: int, wrong: dict[str, Any]) -> None:
    """Models of the same form, each wrong in one number, score worse than the optimum with 95 % confidence."""
    task, episode = hard
    episode = episode.with_shots(shots)
    other = make(**{"flip": 0.3, **wrong}).optimum(episode).log_prob(episode.query)
    assert paired(task.optimum(episode).log_prob(episode.query), other)[0] > 0


@pytest.mark.parametrize("options", SMALL, ids=str)
def test_the_expected_gap_of_a_wrong_density_is_a_divergence(options: dict[str, Any]) -> None:
    """Summed over all images: never below 0 for any support, and 0 for the optimum itself."""
    task = make(**options)
    episode = task.episode(0, tasks=20, shots=1, queries=1)
    truth = table(task.optimum(episode))
    wrong = table(make(**{**options, "flip": 0.3}).optimum(episode))
    assert (truth.exp() * (truth - wrong)).sum(0).min() > 0


def nats_per_image(task: TemplateTasks, shots: int, images: int) -> tuple[float, float]:
    """Mean of the optimum's nats/image and its standard error, from images whose noise is known.

    How many pixels are flipped varies the score a lot, and has a known mean, which is put in place of what was drawn.
    """
    generator = torch.Generator().manual_seed(0)
    components = task.optimum(task.episode(0, 1, 0, 1)).components.bool()
    classes = torch.randint(task.classes, (images,), generator=generator)
    shift = torch.randint(task.variants, (shots + 1, images), generator=generator)
    flips = torch.rand(shots + 1, images, components.shape[1], generator=generator) < task.flip
    drawn = (components[classes * task.variants + shift] ^ flips).byte().view(shots + 1, images, *task.event_shape)
    count = flips[:1].sum(-1)
    noise = -(count * math.log(task.flip) + (components.shape[1] - count) * math.log1p(-task.flip))
    nats = -task.optimum(Episode(drawn[1:], drawn[:1])).log_prob(drawn[:1])
    found = (nats - noise + task.noise_entropy).flatten()
    return float(found.mean()), float(found.std()) / math.sqrt(images)


@pytest.mark.parametrize(
    ("flip", "shots", "expected", "tolerance"),
    [(0.30, 0, 43.1, 0.1), (0.30, 5, 41.1, 0.1), (0.05, 0, 19.06, 0.01), (0.05, 1, 14.90, 0.01)],
)
def test_the_known_values(flip: float, shots: int, expected: float, tolerance: float) -> None:
    """8 x 8, 64 classes, 9 shifts. At 0.05 templates are hardly confused: log(576) and log(9) above the noise."""
    found, error = nats_per_image(make(flip=flip), shots, 3000)
    assert error < 0.05
    assert found == pytest.approx(expected, abs=tolerance)


def test_variety_is_the_strength_of_the_support() -> None:
    gains = []
    for variety in (0.0, 0.3, 1.0):
        task = make(flip=0.3, variety=variety)
        episode = task.episode(0, tasks=1000, shots=5, queries=1)
        with_support = task.optimum(episode).log_prob(episode.query)
        gains.append((with_support - task.optimum(episode.with_shots(0)).log_prob(episode.query)).mean().item())
    assert gains[0] == pytest.approx(0, abs=1e-12)
    assert 0.3 < gains[1] < gains[2] - 0.3
    assert len(np.unique(make(variety=0.0).templates, axis=0)) == 1


def test_a_flip_of_a_half_is_pure_noise() -> None:
    task = make(flip=0.5)
    episode = task.episode(0, tasks=4, shots=2, queries=3)
    torch.testing.assert_close(
        task.optimum(episode).log_prob(episode.query), torch.full((3, 4), -64 * math.log(2), dtype=torch.float64)
    )
    assert task.noise_entropy == pytest.approx(64 * math.log(2))

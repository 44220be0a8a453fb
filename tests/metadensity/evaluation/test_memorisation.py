"""Copying is caught, honest samples are not accused; the statistic by hand and its rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from metadensity.evaluation.memorisation import CopyTest, closeness, nearest
from metadensity.models import IndependentPixels, SupportMixture

SHAPE = (1, 6, 6)
CLASSES, SHOTS, SAMPLES, HELDOUT = 24, 3, 6, 8


def drawings(seed: int, number: int, noise: float = 0.15, levels: int = 2) -> torch.Tensor:
    """Images ``(number, CLASSES, *SHAPE)`` of classes that are the same for every seed: a template, noisy pixels."""
    fixed, generator = torch.Generator().manual_seed(1_000), torch.Generator().manual_seed(seed)
    templates = torch.randint(levels, (CLASSES, *SHAPE), generator=fixed).expand(number, CLASSES, *SHAPE)
    other = torch.randint(levels, templates.shape, generator=generator)
    redrawn = torch.rand(templates.shape, generator=generator) < 2 * noise
    return torch.where(redrawn, other, templates).to(torch.uint8)


def compare(samples: torch.Tensor, heldout: torch.Tensor, support: torch.Tensor, levels: int = 2) -> CopyTest:
    distances = (nearest(images, support, levels)[0] for images in (samples, heldout))
    return closeness(*distances, np.arange(support.shape[1]), permutations=400)


def mixture(noise_logit: float, prior_logit: float, levels: int = 2) -> SupportMixture:
    model = SupportMixture(SHAPE, levels)
    model.noise_logit.data.fill_(noise_logit)
    model.prior_logit.data.fill_(prior_logit)
    return model


def test_the_probability_is_mann_whitneys() -> None:
    random = np.random.default_rng(0)
    samples, heldout = random.integers(6, size=(7, 5)) / 6, random.integers(6, size=(9, 5)) / 6
    tested = closeness(samples, heldout, np.arange(5))
    found = tested.per_class
    for t in range(5):
        by_hand = np.mean([(s < h) + 0.5 * (s == h) for s in samples[:, t] for h in heldout[:, t]])
        assert found[t] == pytest.approx(by_hand)
        assert found[t] == pytest.approx(mannwhitneyu(heldout[:, t], samples[:, t]).statistic / 63)
    assert tested.auc == pytest.approx(found.mean())


def test_the_p_value_is_that_of_all_permutations() -> None:
    """One class, 2 samples nearest of 5: one of 10 assignments is as extreme. 20,000 draws: 4 errors are 0.009."""
    samples, heldout = np.array([[0.1], [0.2]]), np.array([[0.3], [0.4], [0.5]])
    found = closeness(samples, heldout, np.zeros(1, np.int64), permutations=20_000)
    assert found.p_value == pytest.approx(0.1, abs=0.009)
    assert found.auc == 1
    assert not found.closer


@pytest.mark.parametrize("levels", [2, 8])
def test_nearest_equals_the_loop(levels: int) -> None:
    images, support = drawings(0, 4, 0.4, levels), drawings(1, 3, 0.4, levels)
    distance, which = nearest(images, support, levels)
    for n, t in np.ndindex(4, CLASSES):
        squares = [float((images[n, t].double() - s[t].double()).square().mean()) for s in support]
        expected = min(squares) if levels == 2 else min(squares) ** 0.5 / (levels - 1)
        assert distance[n, t] == pytest.approx(expected)
        assert squares[which[n, t]] == min(squares)


@pytest.mark.parametrize(("levels", "noise"), [(2, 0.001), (2, 0.05), (8, 0.05)])
def test_a_model_that_copies_its_support_is_caught(levels: int, noise: float) -> None:
    support, model = drawings(0, SHOTS, levels=levels), mixture(float(np.log(noise / (1 - noise))), -20.0, levels)
    samples = model(support).sample((SAMPLES,), torch.Generator().manual_seed(0))
    heldout = drawings(1, HELDOUT, levels=levels)
    found = compare(samples, heldout, support, levels)
    assert found.closer
    assert found.auc > 0.95
    assert found.interval[0] > 0.85
    assert found.p_value < 0.01
    assert found.sample_distance < found.heldout_distance
    assert found.heldout_copies < 0.05
    # It is the support that they are near to, not the class's images in general.
    assert not compare(samples, heldout, drawings(2, SHOTS, levels=levels), levels).closer


def test_copies_are_counted() -> None:
    support = drawings(0, SHOTS)
    found = compare(support[[0, 1, 2, 0]], drawings(1, HELDOUT), support)
    assert found.sample_copies == 1
    assert found.sample_distance == 0


def test_one_copy_among_honest_samples_is_caught() -> None:
    """A sixth of the samples are copies: caught with enough classes."""
    support = drawings(0, SHOTS)
    samples = torch.cat([support[:1], drawings(2, SAMPLES - 1)])
    found = compare(samples, drawings(1, HELDOUT), support)
    assert found.sample_copies == pytest.approx(1 / SAMPLES, abs=0.01)
    assert found.closer


def test_a_model_that_ignores_the_support_is_not_accused() -> None:
    support = drawings(0, SHOTS)
    samples = IndependentPixels(SHAPE, 2)(support).sample((SAMPLES,), torch.Generator().manual_seed(0))
    found = compare(samples, drawings(1, HELDOUT), support)
    assert not found.closer
    assert found.auc < 0.1


def test_blank_images_are_near_to_everything() -> None:
    """Why the same samples are measured against images the model did not see: here both say closer."""
    scarce = [drawings(seed, number) * (drawings(seed + 50, number, 0.5)) for seed, number in ((0, 3), (1, 8), (2, 3))]
    blank = torch.zeros_like(scarce[1][:SAMPLES])
    assert compare(blank, scarce[1], scarce[0]).closer
    assert compare(blank, scarce[1], scarce[2]).closer


def test_false_alarms_with_real_held_out_images() -> None:
    """Samples that are held-out images of the class: at most 2.5 % alarms. 600 simulations: 3 errors are 1.9 %."""
    alarms, covered = 0, 0
    for seed in range(600):
        images = drawings(seed, SHOTS + SAMPLES + HELDOUT)
        support, samples, heldout = images.split([SHOTS, SAMPLES, HELDOUT])
        distances = (nearest(part, support, 2)[0] for part in (samples, heldout))
        found = closeness(*distances, np.arange(CLASSES), seed=seed, permutations=199)
        alarms += found.closer
        covered += found.interval[0] <= 0.5 <= found.interval[1]
    assert alarms / 600 <= 0.044
    assert 0.92 < covered / 600 < 0.98


def test_false_alarms_of_the_exact_predictive_distribution() -> None:
    """A class is a rate of ink, uniform in [0, 1]; given one image the exact predictive is beta-Bernoulli.

    Its samples are as near to the support as held-out images on average over classes, and the interval keeps its rate.
    Within a class they are of another distribution, which the permutation test alone calls copying far too often.
    600 simulations: 3 errors are 1.9 %.
    """
    random, alarms, permutation_alone = np.random.default_rng(0), 0, 0
    for seed in range(600):
        rate = random.random(CLASSES)
        support = random.random((1, CLASSES, 6)) < rate[:, None]
        ink = support[0].sum(-1)
        predicted = random.beta(1 + ink, 7 - ink, (12, CLASSES))
        samples = random.random((12, CLASSES, 6)) < predicted[..., None]
        heldout = random.random((12, CLASSES, 6)) < rate[:, None]
        distances = ((part != support).mean(-1) for part in (samples, heldout))
        found = closeness(*distances, np.arange(CLASSES), seed=seed, permutations=199)
        alarms += found.closer
        permutation_alone += found.p_value <= 0.025
    assert alarms / 600 <= 0.044
    assert permutation_alone / 600 > 0.05


def test_few_classes_are_no_proof() -> None:
    """Two classes in which the one sample is nearer than the one held-out image: a quarter of honest models do that."""
    found = closeness(np.zeros((1, 2)), np.ones((1, 2)), np.arange(2))
    assert found.auc == 1
    assert found.interval[0] < 0.5
    assert not found.closer


def test_tasks_of_one_class_are_one_cluster() -> None:
    random = np.random.default_rng(0)
    samples, heldout = random.random((4, 12)), random.random((5, 12))
    apart, together = (closeness(samples, heldout, ids) for ids in (np.arange(12), np.arange(12) // 4))
    assert apart.auc == together.auc
    assert (apart.classes, together.classes) == (12, 3)
    assert apart.interval != together.interval


def test_the_same_seed_is_the_same_result_and_nothing_is_disturbed() -> None:
    state, random = torch.get_rng_state(), np.random.default_rng(0)
    samples, heldout = random.random((4, 12)), random.random((5, 12))
    results = [closeness(samples, heldout, np.arange(12), seed).p_value for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    assert torch.equal(state, torch.get_rng_state())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"no references: shots=0 leaves nothing to be near to"):
        nearest(drawings(0, 2), drawings(0, 2)[:0], 2)
    good, ids = np.zeros((2, 3)), np.arange(3)
    with pytest.raises(ValueError, match=r"samples \(2, 3\), heldout \(2, 2\), classes \(3,\); give"):
        closeness(good, good[:, :2], ids)
    with pytest.raises(ValueError, match=r"0 samples and 2 held-out images of 3 tasks, 10 permutations; give at least"):
        closeness(good[:0], good, ids, permutations=10)
    with pytest.raises(ValueError, match=r"0 permutations; give at least one"):
        closeness(good, good, ids, permutations=0)
    with pytest.raises(ValueError, match=r"A distance is not finite"):
        closeness(good, good + np.nan, ids)

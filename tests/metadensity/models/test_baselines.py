"""The simple densities against sums by hand, and inverse-CDF sampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metadensity.densities.independent import IndependentDensity
from metadensity.drawing import invert_cdf
from metadensity.models import IndependentPixels, SupportMean, SupportMixture, UnconditionalPixelCNN

SUPPORT = torch.tensor([[0, 1, 2], [0, 2, 2]]).view(2, 1, 1, 3)  # two images of three pixels, three levels, one task


def logits() -> Tensor:
    return torch.tensor([[0.5, 0.2, 0.1], [0.25, 0.3, 0.1], [0.25, 0.5, 0.8]]).log().view(3, 1, 3)  # (levels, C, X)


def images() -> Tensor:
    """All 27 images, ``(27, 1, 1, 3)``."""
    return torch.cartesian_prod(*[torch.arange(3)] * 3).view(27, 1, 1, 3)


def test_independent_pixels() -> None:
    model = IndependentPixels((1, 3), 3)
    assert model(SUPPORT).log_prob(images()).unique().tolist() == pytest.approx([-3 * math.log(3)])
    model.logits.data = logits() + 7.0  # a constant does not matter
    expected = [math.log(p) for p in (0.25 * 0.2 * 0.8,)]
    assert model(SUPPORT).log_prob(torch.tensor([1, 0, 2]).view(1, 1, 3)).tolist() == pytest.approx(expected)


def test_support_mean_is_the_dirichlet_posterior_mean() -> None:
    """Strength 4: pixel 1 has prior 0.5, 0.25, 0.25 and counts 2, 0, 0, hence (2 + 2, 1, 1) / 6; and so on."""
    model = SupportMean((1, 3), 3)
    model.logits.data, model.log_strength.data = logits(), torch.tensor(4.0).log()
    expected = torch.tensor(
        [[4 / 6, 1 / 6, 1 / 6], [0.8 / 6, (1.2 + 1) / 6, (2 + 1) / 6], [0.4 / 6, 0.4 / 6, (3.2 + 2) / 6]]
    )
    torch.testing.assert_close(model(SUPPORT).log_probs[0, :, 0].exp(), expected.T)
    value = torch.tensor([0, 1, 0]).view(1, 1, 3)
    assert model(SUPPORT).log_prob(value).item() == pytest.approx(math.log(4 / 6 * 2.2 / 6 * 0.4 / 6))


def test_support_mean_of_nothing_is_the_prior() -> None:
    model = SupportMean((1, 3), 3)
    model.logits.data = logits()
    torch.testing.assert_close(model(SUPPORT[:0]).log_probs[0], logits())


def test_support_mixture_is_the_sum_over_its_components() -> None:
    model = SupportMixture((1, 3), 3)
    noise, weight = 0.3, 0.5  # the prior's weight is 0.5 to 1 for each support
    model.logits.data = logits()
    model.noise_logit.data = torch.tensor(noise / (1 - noise)).log()
    model.prior_logit.data = torch.tensor(weight).log()
    prior, density = logits().exp()[:, 0], model(SUPPORT)
    for image in images():
        pixels = image.flatten().tolist()
        by_prior = [prior[level, place].item() for place, level in enumerate(pixels)]
        total = weight * math.prod(by_prior)
        for shot in SUPPORT:
            kept = [float(a == b) for a, b in zip(pixels, shot.flatten().tolist(), strict=True)]
            total += math.prod((1 - noise) * k + noise * p for k, p in zip(kept, by_prior, strict=True))
        assert density.log_prob(image).item() == pytest.approx(math.log(total / (2 + weight)), abs=1e-5)


def test_support_mixture_of_nothing_is_the_prior() -> None:
    model = SupportMixture((1, 3), 3)
    model.logits.data = logits()
    expected = IndependentDensity(logits()[None]).log_prob(images())
    torch.testing.assert_close(model(SUPPORT[:0]).log_prob(images()), expected)


def test_the_unconditional_model_never_looks_at_the_support() -> None:
    torch.manual_seed(0)
    model = UnconditionalPixelCNN((1, 3), 3, layers=2, planes=4, penultimate=4)
    scores = [model(support).log_prob(images()) for support in (SUPPORT, SUPPORT[:0], SUPPORT.flip(-1))]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_inverse_cdf_by_hand() -> None:
    """Levels of probability 0.2, 0, 0.3, 0.5: a level begins where those before it end; 0 is in the first that is."""
    table = torch.tensor([0.25, 0.0, 0.25, 0.5]).log()
    uniforms = torch.tensor([0.0, 0.1, 0.249, 0.25, 0.3, 0.499, 0.5, 0.75, 1 - 2**-24])
    assert invert_cdf(table.expand(9, 4), uniforms).tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    assert invert_cdf(torch.tensor([0.0, 1.0]).log(), torch.tensor(0.0)).item() == 1, "a level without probability"


@pytest.mark.parametrize("levels", [2, 17, 256, 1000])
def test_inverse_cdf_stays_in_range(levels: int) -> None:
    """However the running sum rounds, the largest uniform number below one gives a level there is."""
    table = torch.randn(500, levels, generator=torch.Generator().manual_seed(0)) * 5
    drawn = invert_cdf(table, torch.full((500,), 1 - 2**-24))
    assert drawn.max() < levels
    assert invert_cdf(table, torch.zeros(500)).min() >= 0

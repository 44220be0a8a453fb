"""Densities with a latent variable: the exact one keeps the contracts of exact ones, its bound those of bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metadensity import FewShotModel
from metadensity.adaptation import adapt
from metadensity.testing import checks_density, checks_model
from metadensity.testing.contracts import BOUNDS, Contract
from metadensity.testing.subjects import ADAPTATIONS, Case, Subject, randomise

from . import latent

EXACT: list[Callable[[Subject], None]] = [
    checks_density.sums_to_one,
    checks_density.samples_follow,
    checks_density.draws_are_reproducible,
    checks_model.order_does_not_matter,
    checks_model.zero_shots_work,
    checks_model.tasks_are_separate,
    checks_model.batches_have_shapes,
    checks_model.gradients_reach_parameters,
]


def subject(kind: type[FewShotModel], case: Case, adaptation: str = "unadapted") -> Subject:
    model = kind(case.event_shape, case.levels).double()
    randomise(model, seed=0)
    return Subject(model, ADAPTATIONS[adaptation])


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("check", EXACT, ids=lambda check: check.__name__)
def test_an_exact_density_need_not_be_a_product(check: Callable[[Subject], None], adaptation: str) -> None:
    check(subject(latent.LatentMixture, Case((1, 2, 2), 3), adaptation))


@pytest.mark.parametrize(
    ("contract", "case"),
    [pytest.param(c, case, id=f"{c.check.__name__}-{case}") for c in BOUNDS for case in c.cases],
)
def test_bounds(contract: Contract, case: Case) -> None:
    bound = subject(latent.LatentModel, case)
    assert contract.applies(bound(bound.images(0, 1, seed=0)))
    contract.check(bound)


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (latent.ForgetsTheMean, checks_density.bound_sums_to_one_at_most, "above 0"),
        (latent.KeepsOneSample, checks_density.bound_grows_with_samples, "does not grow with samples"),
        (latent.DrawsElsewhere, checks_density.bound_draws_from_its_generator, "moved torch's own random state"),
    ],
)
def test_a_broken_bound_is_caught(kind: type[FewShotModel], check: Callable[[Subject], None], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(subject(kind, Case((1, 2, 3))))


def test_every_check_of_bounds_has_a_control() -> None:
    controls = test_a_broken_bound_is_caught.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {contract.check for contract in BOUNDS} == {check for _, check, _ in controls}


def test_the_bound_lies_below_the_truth_and_comes_near() -> None:
    """Against the sum over all z, image by image; 6 standard errors, of 128 images: a false alarm in 1 of 10^7 runs."""
    case = Case((1, 2, 3))
    bound = subject(latent.LatentModel, case)
    support, images = bound.images(2, 2, seed=1), checks_density.all_images(case.event_shape, case.levels)
    value = images.unsqueeze(1).expand(-1, 2, *case.event_shape)
    for samples, gap in ((1, None), (400, 0.02)):
        bound.model.samples = samples
        density = bound(support)
        assert isinstance(density, latent.LatentBound)
        truth = density.truth.log_prob(value).detach()
        found = checks_density.estimates(density, value, 100, seed=2)
        error = found.std(0) / 10
        assert (found.mean(0) <= truth + 6 * error).all()
        off = (truth - found.mean(0)).abs().max()
        assert off < gap if gap else off > 0.1, f"{samples} samples are off by {off:.3g} nats"


def test_bounds_do_not_adapt() -> None:
    bound = subject(latent.LatentModel, Case((1, 2, 2)))
    with torch.no_grad(), pytest.raises(TypeError, match=r"LatentModel gives a bound \(bound with 4 samples\)"):
        adapt(bound.model, bound.images(2, 1, seed=0))

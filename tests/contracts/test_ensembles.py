"""Ensembles of models of several kinds keep the contracts, in each way; one with a fault is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity.densities.ensemble import EnsembleDensity, MixedDensity, SequentialEnsembleDensity, ensemble_density
from metadensity.density import Density
from metadensity.models import MODELS, EnsemblePixelCNN
from metadensity.testing import checks_density, checks_model
from metadensity.testing.contracts import CONTRACTS, Contract
from metadensity.testing.subjects import Case, Subject, random_images, small_model

from .latent import LatentMixture, LatentModel

NET = {"layers": 3, "planes": 6, "penultimate": 8}
ORDERED: list[Mapping[str, Any]] = [
    {"name": "attention", **NET},
    {"name": "kernel_density"},
    {"name": "ngram", "order": 2, "entries": 64},
    {"name": "support_mean"},
]
OTHER_ORDER: Mapping[str, Any] = {"name": "multiscale", **NET, "base": 2, "upscaler_layers": 2}
ENSEMBLES: dict[str, dict[str, Any]] = {
    "mean": {"members": ORDERED, "combine": "mean", "weights": "fitted"},
    "mixture": {"members": ORDERED, "combine": "mixture", "weights": "leave_one_out"},
    "product": {"members": ORDERED, "combine": "product", "weights": "leave_one_out"},
    "nets_product": {"members": 2, "member": "conditional", **NET, "combine": "product", "weights": "fitted"},
    "nets_mixture": {
        "members": [*ORDERED[:1], {"name": "conditional", **NET}],
        "combine": "mixture",
        "weights": [1, 2],
    },
    "other_order": {"members": [*ORDERED[:2], OTHER_ORDER], "combine": "mixture", "weights": "leave_one_out"},
}
# One case of each check, the smallest that says something: members are checked at length where they are listed.
CASES = {
    checks_density.sums_to_one: (Case((2, 4)), Case((1, 2, 2), 3)),
    checks_density.is_causal: (Case((2, 4)), Case((1, 2, 2), 3)),
    checks_density.gradients_are_causal: (Case((2, 2, 2)),),
    checks_density.samples_follow: (Case((1, 2, 3)),),
    checks_model.samplers_agree: (Case((2, 3, 3), 3),),
}


def subject_of(name: str, case: Case, dtype: torch.dtype = torch.float32) -> Subject:
    return Subject(small_model(EnsemblePixelCNN, case, ENSEMBLES[name], dtype))


def contracts() -> list[Any]:
    found = []
    for name in ENSEMBLES:
        subject = subject_of(name, Case((2, 4)))
        density = subject(subject.images(0, 1, seed=0))
        for contract in CONTRACTS:
            if not contract.applies(density):
                continue
            for case in CASES.get(contract.check, contract.cases[1:2] or contract.cases):
                found.append(pytest.param(name, contract, case, id=f"{contract.check.__name__}-{name}-{case}"))
    return found


@pytest.mark.parametrize(("name", "contract", "case"), contracts())
def test_an_ensemble_keeps_the_contract(name: str, contract: Contract, case: Case) -> None:
    contract.check(subject_of(name, case, contract.dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_mixture_is_the_mean_with_weights_that_follow_the_prefix(dtype: torch.dtype) -> None:
    subject = subject_of("mixture", Case((2, 3, 4), 3), dtype)
    density, value = subject(subject.images(3, 2, seed=1)), subject.images(5, 2, seed=2)
    assert isinstance(density, SequentialEnsembleDensity)
    assert density.log_weights is not None
    whole = density.log_weights + torch.stack([member.log_prob(value) for member in density.members], -1)
    by_prefix = density.conditional_log_probs(value).double().flatten(2).sum(-1)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-6 * float(whole.detach().abs().max())
    torch.testing.assert_close(by_prefix, whole.logsumexp(-1).double(), rtol=0, atol=tolerance)
    unweighted = ensemble_density(density.members, "mean", density.log_weights).log_prob(value)
    assert (unweighted - whole.logsumexp(-1)).abs().min() > 1e-3, "the same without the prefix, which tests nothing"


@pytest.mark.parametrize("name", ["mean", "mixture", "product"])
def test_the_cached_sampler_is_the_naive_one(name: str) -> None:
    """Members with samplers of their own, in step, against full tables of all levels for each pixel."""
    subject = subject_of(name, Case((2, 3, 3), 3), torch.float64)
    density = subject(subject.images(3, 2, seed=1))
    assert isinstance(density, SequentialEnsembleDensity)
    uniforms = torch.rand(4, 2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    drawn, pixels = density.sample_from_uniforms(uniforms), torch.zeros_like(uniforms, dtype=torch.long)
    for row in range(3):
        for column in range(3):
            for channel in range(2):
                p = density.level_log_probs(pixels)[..., channel, row, column].exp().cumsum(-1)
                chance = uniforms[..., channel, row, column].unsqueeze(-1)
                pixels[..., channel, row, column] = (chance >= p).sum(-1).clamp(max=2)
    assert torch.equal(drawn, pixels)
    assert len(drawn.unique()) == 3


@pytest.mark.parametrize("combine", ["mean", "mixture", "product"])
def test_nets_that_draw_frames_at_once_are_drawn_in_step(combine: str) -> None:
    films: Mapping[str, Any] = {"name": "attention", **NET, "frame_independent": True}
    members, case = [films, {"name": "conditional", **NET}], Case((1, 2, 2, 3))
    subject = Subject(small_model(EnsemblePixelCNN, case, {"members": members, "combine": combine, "weights": [1, 2]}))
    density = subject(subject.images(2, 2, seed=1))
    assert isinstance(density, EnsembleDensity)
    assert [member.draws_in_step for member in density.members] == [False, True]
    uniforms = torch.rand(3, 2, *subject.event_shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(density.sample_from_uniforms(uniforms), density.sample_from_uniforms(uniforms, naive=True))


class _ForgetsThePrefix(EnsemblePixelCNN):
    """A mixture scored as one and drawn as a mean: the fault of a sampler that is another model."""

    def condition(self, support: Tensor) -> Density:
        density = super().condition(support)
        assert isinstance(density, SequentialEnsembleDensity)
        mean = ensemble_density(density.members, "mean", density.log_weights)
        density._drawn = mean._drawn  # type: ignore[method-assign, attr-defined]
        return density


class _NotNormalised(EnsemblePixelCNN):
    """A product of conditionals that is not made to sum to one."""

    def condition(self, support: Tensor) -> Density:
        density = super().condition(support)
        members = density.members  # type: ignore[attr-defined]
        density._conditional_log_probs = lambda value: sum(  # type: ignore[attr-defined]
            member._conditional_log_probs(value) for member in members
        )
        return density


def test_faults_are_caught() -> None:
    case = Case((1, 2, 3))
    forgets = Subject(small_model(_ForgetsThePrefix, case, {**ENSEMBLES["mixture"], "weights": "fitted"}))
    with pytest.raises(AssertionError):
        checks_density.samples_follow(forgets)
    loose = Subject(small_model(_NotNormalised, case, {**ENSEMBLES["product"], "weights": "fitted"}))
    with pytest.raises(AssertionError):
        checks_density.sums_to_one(loose)


@pytest.mark.parametrize("combine", ["mean", "product"])
def test_another_order_of_pixels_is_refused_but_in_a_mixture(combine: str) -> None:
    model = EnsemblePixelCNN((1, 4, 4), 2, members=[*ORDERED[:2], OTHER_ORDER], combine=combine)
    with pytest.raises(ValueError, match=f"combine='{combine}' takes members that go through an image in raster order"):
        model(random_images(2, 1, 1, 4, 4, levels=2, seed=0))


def test_a_member_that_is_a_bound_makes_it_a_bound() -> None:
    support, value = (random_images(count, 2, 1, 3, levels=2, seed=count) for count in (2, 4))
    exact, bound = LatentMixture((1, 3), 2)(support), LatentModel((1, 3), 2)(support)
    net = MODELS["conditional"]((1, 3), 2, **NET)(support)
    assert ensemble_density([net, exact], "mixture").exact
    mixture = ensemble_density([net, bound], "mixture")
    assert isinstance(mixture, MixedDensity)
    assert not mixture.exact
    assert mixture.quantity == "bound with 4 samples"
    found = [mixture.log_prob(value, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    with pytest.raises(ValueError, match="LatentBound does not"):
        ensemble_density([net, bound], "mean")


def test_a_bound_keeps_its_contract_in_a_mixture() -> None:
    class Mixed(LatentModel):
        def condition(self, support: Tensor) -> Density:
            return ensemble_density([super().condition(support), LatentMixture.condition(self, support)], "mixture")

    subject = Subject(small_model(Mixed, Case((1, 2, 2)), {}, torch.float64))
    checks_density.bound_sums_to_one_at_most(subject)
    checks_density.bound_draws_from_its_generator(subject)

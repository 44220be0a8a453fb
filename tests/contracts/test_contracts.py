"""Every model in MODELS, in every likelihood, in one to three dimensions, keeps every contract."""

from __future__ import annotations

import itertools

import pytest

from metadensity.models import MODELS
from metadensity.testing.checks_density import KNOWN_FIELDS, network_of
from metadensity.testing.contracts import BOUNDS, CONTRACTS, Contract
from metadensity.testing.subjects import ADAPTATIONS, Case

from .subjects import COMPOSED, NETWORKS, RECIPES, Recipe, adapts_itself, cases_of, recipes_of

ALL = [
    pytest.param(contract, recipe, case, id=f"{contract.check.__name__}-{recipe}-{case}-{str(contract.dtype)[6:]}")
    for contract in (*CONTRACTS, *BOUNDS)
    for recipe in recipes_of(contract)
    for case in cases_of(contract, recipe)
]


def aspects(case: Case) -> set[str]:
    """What there is to images of a case: their dimensions, and whether there are several channels, or levels."""
    channels, *space = case.event_shape
    return {f"{len(space)}-D", "channels" if channels > 1 else "channel", "levels" if case.levels > 2 else "bits"}


@pytest.mark.parametrize(("contract", "recipe", "case"), ALL)
def test_contract(contract: Contract, recipe: Recipe, case: Case) -> None:
    contract.check(recipe.build(case, contract.dtype))


def test_nothing_is_left_out() -> None:
    assert {recipe.name for recipe in RECIPES} == set(MODELS)
    outside = [name for name in MODELS if not (adapts_itself(name) or name in COMPOSED)]
    expected = {*itertools.product(outside, ADAPTATIONS), *itertools.product(MODELS, ["unadapted"])}
    assert {(recipe.name, recipe.adaptation) for recipe in RECIPES} == expected
    for contract in CONTRACTS:  # in whatever way, on all that its images have
        for recipe in recipes_of(contract):
            assert {what for case in cases_of(contract, recipe) for what in aspects(case)} == {
                what for case in contract.cases for what in aspects(case)
            }, f"{contract.check.__name__}, {recipe}"
    networks = {recipe: network_of(recipe.build(Case((1, 6))).model) for recipe in NETWORKS}
    unknown = {recipe.name for recipe, network in networks.items() if not isinstance(network, KNOWN_FIELDS)}
    assert unknown == {"nade"}, "gradients are checked against no field"  # all of the past, which ``is_causal`` checks
    assert {str(recipe) for recipe in NETWORKS} >= {"conditional", "attention-additive", "attention-dot"}

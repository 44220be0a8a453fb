"""Every model in MODELS, in every likelihood, in one to three dimensions, keeps every contract."""

from __future__ import annotations

import itertools

import pytest

from metadensity.models import MODELS
from metadensity.testing.checks_density import KNOWN_FIELDS, network_of
from metadensity.testing.contracts import BOUNDS, CONTRACTS, Contract
from metadensity.testing.subjects import ADAPTATIONS, Case

from .subjects import COMPOSED, NETWORKS, RECIPES, Recipe, adapts_itself, recipes_of

ALL = [
    pytest.param(contract, recipe, case, id=f"{contract.check.__name__}-{recipe}-{case}-{str(contract.dtype)[6:]}")
    for contract in (*CONTRACTS, *BOUNDS)
    for recipe in recipes_of(contract)
    for case in contract.cases
]


@pytest.mark.parametrize(("contract", "recipe", "case"), ALL)
def test_contract(contract: Contract, recipe: Recipe, case: Case) -> None:
    contract.check(recipe.build(case, contract.dtype))


def test_nothing_is_left_out() -> None:
    assert {recipe.name for recipe in RECIPES} == set(MODELS)
    outside = [name for name in MODELS if not (adapts_itself(name) or name in COMPOSED)]
    expected = {*itertools.product(outside, ADAPTATIONS), *itertools.product(MODELS, ["unadapted"])}
    assert {(recipe.name, recipe.adaptation) for recipe in RECIPES} == expected
    networks = [network_of(recipe.build(Case((1, 6))).model) for recipe in NETWORKS]
    assert all(isinstance(network, KNOWN_FIELDS) for network in networks), "gradients are checked against no field"
    assert {str(recipe) for recipe in NETWORKS} >= {"conditional", "attention-additive", "attention-dot"}

"""Every model in MODELS, in every likelihood, in one to three dimensions, keeps every contract."""

from __future__ import annotations

import itertools

import pytest

from metadensity.models import MODELS

from .contracts import BOUNDS, CONTRACTS, Contract
from .subjects import ADAPTATIONS, COMPOSED, NETWORKS, RECIPES, Case, Recipe, adapts_itself

ALL = [
    pytest.param(contract, recipe, case, id=f"{contract.check.__name__}-{recipe}-{case}-{str(contract.dtype)[6:]}")
    for contract in (*CONTRACTS, *BOUNDS)
    for recipe in contract.recipes
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
    assert {str(recipe) for recipe in NETWORKS} >= {"conditional", "attention-additive", "attention-dot"}

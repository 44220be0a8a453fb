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
    for case in contract.cases_of(recipe)
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
        for recipe in contract.recipes:
            assert {what for case in contract.cases_of(recipe) for what in aspects(case)} == {
                what for case in contract.cases for what in aspects(case)
            }, f"{contract.check.__name__}, {recipe}"
    assert {str(recipe) for recipe in NETWORKS} >= {"conditional", "attention-additive", "attention-dot"}

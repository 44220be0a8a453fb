"""Networks with dilated kernels see what these promise, gaps included, and their samplers agree."""

from __future__ import annotations

import pytest
import torch

from metadensity.testing import checks_density, checks_model
from metadensity.testing.subjects import Case

from .subjects import Recipe

# Dilated so that the field has no gaps, and so that it has some.
CASES = [
    Case((1, 16), options={"layers": 5, "dilations": (1, 2, 4)}),
    Case((1, 20), options={"layers": 4, "dilations": (3, 2)}),
    Case((2, 9), 3, {"layers": 4, "dilations": (2,), "kernel_size": 5}),
    Case((1, 5, 7), options={"layers": 3, "dilations": (1, 2)}),
    Case((1, 6, 5), options={"layers": 3, "dilations": (2,)}),
    Case((1, 3, 4, 5), options={"layers": 3, "dilations": (2, 1)}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_field_is_the_one_promised(case: Case) -> None:
    checks_density.gradients_are_causal(Recipe("conditional").build(case, torch.float64))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samplers_agree(case: Case) -> None:
    checks_model.samplers_agree(Recipe("attention", {"attention": "dot"}).build(case, torch.float64))


def test_fields_by_hand() -> None:
    """Kernels of two taps: the first sees one place back, later ones themselves and one ``dilation`` back."""
    fields = {}
    for dilations in ((1, 2, 4), (2,), (4, 4)):
        subject = Recipe("unconditional").build(Case((1, 12), options={"layers": 4, "dilations": dilations}))
        seen = checks_density.field(subject.model.network)[:, 11]
        fields[dilations] = [11 - u for u in range(11, -1, -1) if seen[u]]
    assert fields[1, 2, 4] == [1, 2, 3, 4, 5, 6, 7, 8]  # 1 + the sum of the dilations
    assert fields[2,] == [1, 3, 5, 7]
    assert fields[4, 4] == [1, 5, 9]


@pytest.mark.parametrize("dilations", [(), (0,), (1, -2), (1.5,), 2, "12", None], ids=repr)
def test_dilations_that_are_none(dilations: object) -> None:
    with pytest.raises(ValueError, match=r"dilations=.*whole numbers of at least 1, .* for example \(1, 2, 4, 8\)"):
        Recipe("conditional").build(Case((1, 9), options={"dilations": dilations}))

"""A likelihood is a file and a line: the suite then runs on it, and refuses a broken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity import likelihoods
from metadensity.likelihoods import LIKELIHOODS, Categorical, Likelihood, build_likelihood
from metadensity.nn.convolution import pointwise
from metadensity.testing import checks_density, checks_model
from metadensity.testing.subjects import Case, Subject

from . import broken
from .subjects import Recipe, recipes

NO_LIKELIHOODS = {"__init__", "base", "levels"}
FOLDER = Path(likelihoods.__file__).parent


class Floored(Likelihood):
    """A mixture of a categorical distribution and the uniform one, which channels do not hear one another in."""

    def __init__(self, features: int, channels: int, levels: int, space_dims: int, floor: float = 0.1) -> None:
        super().__init__(features, channels, levels, space_dims)
        self.floor = floor
        self.table = pointwise(features, channels * levels, space_dims)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        table = self.table(F.relu(features)).unflatten(1, (self.channels, self.levels)).transpose(1, 2)
        return (self.floor / self.levels + (1 - self.floor) * table.softmax(1)).log()

    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        shape = (1,) * self.space_dims
        return self(features.view(*features.shape, *shape), pixels.view(*pixels.shape, *shape))[:, :, channel].flatten(
            1
        )


def unlisted(folder: Path, listed: dict[str, type[Likelihood]]) -> set[str]:
    """Files in ``folder`` whose module gives no class to ``listed``."""
    named = {kind.__module__.rpartition(".")[2] for kind in listed.values()}
    return {path.stem for path in folder.glob("*.py")} - NO_LIKELIHOODS - named


def test_every_file_is_listed() -> None:
    assert not unlisted(FOLDER, LIKELIHOODS), "add a line to LIKELIHOODS in metadensity/likelihoods/__init__.py"
    assert unlisted(FOLDER, {"categorical": Categorical}) == {"logistic_mixture"}


@pytest.fixture
def a_third(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that the suite gains by a line in LIKELIHOODS."""
    before = {str(recipe) for recipe in recipes()}
    monkeypatch.setitem(LIKELIHOODS, "floored", Floored)
    return [recipe for recipe in recipes() if str(recipe) not in before]


def test_the_suite_takes_what_is_listed(a_third: list[Recipe]) -> None:
    networks = {recipe.name for recipe in recipes() if recipe.options.get("likelihood") == "logistic"}
    assert {recipe.name for recipe in a_third} == networks > {"unconditional", "attention", "ensemble", "multiscale"}
    assert {recipe.options["likelihood"] for recipe in a_third} == {"floored"}


# Its channels do not hear one another, by design, so causality is asked of images of one channel.
KEPT: list[tuple[Callable[[Subject], None], Case, torch.dtype]] = [
    (checks_density.sums_to_one, Case((2, 2, 2)), torch.float32),
    (checks_density.is_causal, Case((1, 3, 3)), torch.float64),
    (checks_density.samples_follow, Case((1, 2, 2), 3), torch.float32),
    (checks_model.samplers_agree, Case((2, 3, 3), 3), torch.float64),
    (checks_model.gradients_reach_parameters, Case((2, 4, 5)), torch.float32),
    (checks_model.bfloat16_is_close, Case((1, 9), 3), torch.float32),
    (checks_model.a_file_keeps_it, Case((1, 3, 2, 3), 4), torch.float32),
]


@pytest.mark.parametrize(("check", "case", "dtype"), KEPT, ids=lambda part: getattr(part, "__name__", str(part)))
def test_it_keeps_the_contracts(
    check: Callable[[Subject], None], case: Case, dtype: torch.dtype, a_third: list[Recipe]
) -> None:
    recipe = next(recipe for recipe in a_third if recipe.name == "conditional")
    subject = recipe.build(case, dtype)
    assert subject.model.config["likelihood"] == {"name": "floored", "floor": 0.1}  # with its own option
    check(subject)


@pytest.mark.parametrize(
    ("kind", "case", "check", "message"),
    [
        (broken.FlooredTwice, Case((1, 3, 3)), checks_density.sums_to_one, "sum over all images"),
        (broken.DeafAtAPlace, Case((2, 3, 3)), checks_model.samplers_agree, "pixels differ"),
    ],
    ids=["does not sum to one", "another at a place"],
)
def test_a_broken_likelihood_is_refused(
    kind: type[Likelihood],
    case: Case,
    check: Callable[[Subject], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LIKELIHOODS, "broken", kind)
    gained = [recipe for recipe in recipes() if recipe.options.get("likelihood") == "broken"]
    subject = next(recipe for recipe in gained if recipe.name == "conditional").build(case, torch.float64)
    with pytest.raises(AssertionError, match=message):
        check(subject)


def test_options_of_a_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIKELIHOODS, "floored", Floored)
    made = build_likelihood({"name": "floored", "floor": 0.5}, 4, 1, 3, 2, components=7)  # it has no components
    assert isinstance(made, Floored)
    assert made.floor == 0.5
    with pytest.raises(ValueError, match=r"'floored' has no option 'roof': it takes 'floor'\."):
        build_likelihood({"name": "floored", "roof": 1}, 4, 1, 3, 2)
    with pytest.raises(ValueError, match=r"has no 'name', .* Give {'name': 'categorical' or 'logistic' or 'floored', "):
        build_likelihood({"floor": 0.5}, 4, 1, 3, 2)

"""Strings of any length as one density, and the beginnings of sequences: their probabilities sum to one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity import Density, FewShotModel
from metadensity.adaptation import InnerLoop, adapt
from metadensity.densities.sequence import SequenceDensity
from metadensity.density import SequentialDensity
from metadensity.models import MODELS
from metadensity.testing import checks_density
from metadensity.testing.subjects import Case, Subject, randomise
from tests.contracts.subjects import Recipe

PLACES, LEVELS, END = 4, 3, 2
NETWORKS = ["unconditional", "conditional", "attention"]


class Strings(FewShotModel):
    """A network of sequences whose last level is the end."""

    def __init__(self, base: FewShotModel, end: int = END) -> None:
        super().__init__(base.event_shape, base.levels)
        self.base, self.end = base, end

    def condition(self, support: Tensor) -> Density:
        density = self.base.condition(support)
        assert isinstance(density, SequentialDensity)
        return SequenceDensity(density, self.end)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """The content says how long a string is, so nothing is to be done but to check that it agrees."""
        return self.condition(support)


def network(name: str, places: int = PLACES, levels: int = LEVELS) -> FewShotModel:
    model = MODELS[name]((1, places), levels, layers=2, planes=4, penultimate=4).double()
    randomise(model, seed=0)
    return model


def drawn(*shape: int, levels: int = LEVELS, seed: int = 0) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def strings() -> Tensor:
    """Every string of up to PLACES symbols, ended, ``(strings, 1, PLACES)``."""
    found = []
    for length in range(PLACES + 1):
        for symbols in itertools.product(range(END), repeat=length):
            found.append([*symbols, *[END] * (PLACES - length)])
    return torch.tensor(found).unsqueeze(1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("adapted", [False, True])
def test_the_probabilities_of_all_strings_sum_to_one(name: str, adapted: bool) -> None:
    """31 strings of up to four of two symbols; all 81 arrays sum to one as well, as others than strings have none."""
    model, support = Strings(network(name)), strings()[[3, 9]].unsqueeze(1)
    density = adapt(model, support, InnerLoop(way="loop")) if adapted else model(support)
    every = strings().unsqueeze(1)
    assert len(every) == 31
    total = density.log_prob(every).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)
    arrays = checks_density.all_images((1, PLACES), LEVELS).unsqueeze(1)
    whole = density.log_prob(arrays)
    torch.testing.assert_close(whole.logsumexp(0), torch.zeros_like(total), rtol=0, atol=1e-12)
    assert int((whole > -torch.inf).sum()) == 31
    base = model.base(support).log_prob(every)  # negative control: it pays for all that follows the end
    assert base.detach().logsumexp(0).item() < -0.1


def test_what_follows_the_end_costs_exactly_nothing() -> None:
    base = network("conditional")(drawn(2, 3, 1, PLACES))
    assert isinstance(base, SequentialDensity)
    density = SequenceDensity(base, END)
    value = torch.tensor([[0, END, END, END], [1, 0, 1, 1], [END] * 4]).view(1, 3, 1, PLACES)
    assert density.lengths(value).tolist() == [[2, 4, 1]]
    terms, plain = density.conditional_log_probs(value), base.conditional_log_probs(value)
    real = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool().view(1, 3, 1, PLACES)
    assert torch.equal(terms[real], plain[real])
    assert (terms[~real] == 0).all()
    assert density.log_prob(torch.tensor([[0, END, END, 1]] * 3).view(1, 3, 1, PLACES)).tolist() == [[-torch.inf] * 3]
    gradients = torch.autograd.grad(density.log_prob(value).sum(), base.network.head.logits.bias)  # type: ignore[attr-defined]
    assert gradients[0].isfinite().all()


def test_drawn_strings_follow_it_and_are_ended() -> None:
    """The chi-square test of the contracts, on all arrays: those that are no strings never come."""
    subject = Subject(Strings(network("conditional", places=3)))
    checks_density.samples_follow(subject)
    checks_density.draws_are_reproducible(subject)
    draws = subject(subject.images(1, 2, seed=0)).sample((500,), torch.Generator().manual_seed(0))
    after = (draws == END).cumsum(-1) > 1
    assert after.any()
    assert (draws[after] == END).all()


def test_known_pixels_are_kept() -> None:
    base = network("unconditional")(drawn(0, 1, 1, PLACES))
    assert isinstance(base, SequentialDensity)
    known = torch.tensor([0, END, -1, -1]).view(1, 1, 1, PLACES)
    uniforms = torch.rand(20, 1, 1, PLACES, generator=torch.Generator().manual_seed(0))
    assert (
        SequenceDensity(base, END).sample_from_uniforms(uniforms, known=known) == torch.tensor([0, END, END, END])
    ).all()


@pytest.mark.parametrize("recipe", [*NETWORKS, "independent", "support_mixture"])
def test_the_probability_of_a_beginning_is_that_of_all_that_begin_so(recipe: str) -> None:
    """Against the sum over all continuations; what stands at later places is not looked at, were it no level."""
    subject = Recipe(recipe).build(Case((1, PLACES), LEVELS), torch.float64)
    density, every = subject(subject.images(2, 2, seed=1)), checks_density.all_images((1, PLACES), LEVELS)
    table = density.log_prob(every.unsqueeze(1).expand(-1, 2, 1, PLACES))
    value = drawn(5, 2, 1, PLACES, seed=2)
    for length in range(PLACES + 1):
        lengths = torch.full((5, 2), length)
        padded = value.clone()
        padded[..., length:] = 99
        found = density.prefix_log_prob(padded, lengths)
        begins = (every[:, None, None, 0, :length] == value[None, :, :, 0, :length]).all(-1)
        expected = table.unsqueeze(1).masked_fill(~begins, -torch.inf).logsumexp(0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    mixed = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1], [3, 4]])
    each = [
        density.prefix_log_prob(value, torch.full((5, 2), n)).gather(1, torch.tensor([[0, 1]] * 5)) for n in range(5)
    ]
    chosen = torch.stack(each).gather(0, mixed.unsqueeze(0))[0]
    torch.testing.assert_close(density.prefix_log_prob(value, mixed), chosen)


def test_beginnings_of_what_has_none() -> None:
    image = MODELS["unconditional"]((1, 2, 2), 2, layers=2, planes=4, penultimate=4)(drawn(0, 1, 1, 2, 2, levels=2))
    with pytest.raises(ValueError, match="PixelCNNDensity does not give the probability of the beginning"):
        image.prefix_log_prob(drawn(1, 1, 1, 2, 2, levels=2), torch.ones(1, 1).long())
    scales = MODELS["multiscale"]((1, 8), 2, base=2, layers=2, planes=4, penultimate=4, upscaler_layers=2)
    support = drawn(2, 1, 1, 8, levels=2)
    for density in (scales(support), adapt(scales, support)):  # it begins with every so many-th place
        with pytest.raises(ValueError, match="does not give the probability of the beginning"):
            density.prefix_log_prob(support, torch.ones(2, 1).long())
    density = network("unconditional")(drawn(0, 1, 1, PLACES))
    value = drawn(2, 1, 1, PLACES)
    for lengths, kind, message in (
        (torch.ones(2, 1), TypeError, "lengths holds torch.float32; lengths are integers"),
        (torch.ones(2).long(), ValueError, r"lengths has shape \(2,\); one length a sequence is \(2, 1\)"),
        (torch.tensor([[1], [5]]), ValueError, "lengths holds 1 to 5; of sequences with 4 places, 0 to 4"),
        (torch.tensor([[-1], [3]]), ValueError, "lengths holds -1 to 3"),
    ):
        with pytest.raises(kind, match=message):
            density.prefix_log_prob(value, lengths)


def test_bases_and_ends_that_are_none() -> None:
    base: Any = network("unconditional")(drawn(0, 1, 1, PLACES))
    for end in (-1, 3):
        with pytest.raises(ValueError, match=f"end={end}; it must be one of the levels 0 to 2"):
            SequenceDensity(base, end)
    image: Any = MODELS["unconditional"]((1, 2, 2), 2, layers=2, planes=4, penultimate=4)(drawn(0, 1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"base has event_shape=\(1, 2, 2\); strings are \(1, places\)"):
        SequenceDensity(image, 1)


def test_the_rest_of_a_sequence_given_its_beginning() -> None:
    """The probabilities of all that may follow sum to one, and the two parts multiply to the whole."""
    density = network("conditional")(drawn(2, 1, 1, PLACES))
    every = checks_density.all_images((1, PLACES), LEVELS).unsqueeze(1)
    for known in range(PLACES + 1):
        lengths = torch.full((len(every), 1), known)
        rest = density.rest_log_prob(every, lengths)  # type: ignore[attr-defined]
        torch.testing.assert_close(rest + density.prefix_log_prob(every, lengths), density.log_prob(every))
        same = (every[:, 0, 0, :known] == every[5, 0, 0, :known]).all(1)
        assert abs(float(rest[same].detach().logsumexp(0))) < 1e-12
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\); one length a sequence is \(1,\)"):
        density.rest_log_prob(every[0], torch.zeros(2, dtype=torch.int64))  # type: ignore[attr-defined]
    image: Any = MODELS["multiscale"]((1, 4), 2, layers=2, planes=4, penultimate=4, base=2)(drawn(0, 1, 1, 4))
    with pytest.raises(ValueError, match="does not give the probability of the rest of a sequence"):
        image.rest_log_prob(drawn(1, 1, 4, levels=2), torch.zeros(1, dtype=torch.int64))

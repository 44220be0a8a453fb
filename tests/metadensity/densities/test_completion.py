"""Completion: exact from what comes first, approximate and so named elsewhere; a seed an image; parts that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metadensity.adaptation import InnerLoop, adapt
from metadensity.densities.completion import Part, complete, complete_in_parts, observe, seeds_of, uniforms_of
from metadensity.density import SequentialDensity
from metadensity.drawing import Draws
from metadensity.models import (
    AttentionPixelCNN,
    IndependentPixels,
    MultiscalePixelCNN,
    SupportMixture,
    UnconditionalPixelCNN,
)
from metadensity.testing.checks_density import all_images, goodness_of_fit, table
from metadensity.testing.subjects import randomise
from tests.contracts.latent import LatentModel

SHAPE = (1, 3, 3)
DRAWS, FALSE_ALARM = 20_000, 1e-4  # of each of the chi-square tests, if its seed were drawn anew


def density(kind: Any = AttentionPixelCNN, shape: tuple[int, ...] = SHAPE, tasks: int = 1, **options: Any) -> Any:
    sizes = {} if kind in (IndependentPixels, SupportMixture) else {"layers": 3, "planes": 6, "penultimate": 8}
    sizes |= {"base": 2, "upscaler_layers": 2} if kind is MultiscalePixelCNN else {}
    model = kind(shape, 2, **sizes, **options)
    randomise(model, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".layers." in name:  # pixels that depend on one another strongly
                parameter *= 1.7
        return model(torch.randint(2, (2, tasks, *shape), generator=torch.Generator().manual_seed(0)))


def fit(given: Any, mask: Tensor, approximate: bool) -> float:
    """p-value of completions against the true conditional, enumerated."""
    image = torch.tensor([[[1, 0, 1], [1, 1, 0], [0, 1, 0]]])
    drawn = complete(given, seeds_of(3, DRAWS, 1), observe(image, mask), approximate=approximate, images_at_once=DRAWS)
    assert (drawn[:, 0, mask] == image[mask]).all(), "what is observed stays as it is"
    images = all_images(SHAPE, 2)
    consistent = (images[:, mask] == image[mask]).all(1)
    probabilities = table(given)[:, 0].double().exp().where(consistent, torch.zeros(()).double())
    probabilities = probabilities / probabilities.sum()
    codes = drawn[:, 0].flatten(1) @ 2 ** torch.arange(9)
    counts = np.bincount(codes.numpy(), minlength=512)[consistent.numpy()]
    assert counts.sum() == DRAWS
    return goodness_of_fit(counts, probabilities[consistent].numpy() * DRAWS)


@pytest.mark.parametrize("observed", [0, 1, 4, 5])
def test_what_comes_first_is_completed_exactly(observed: int) -> None:
    mask = (torch.arange(9) < observed).view(SHAPE)
    chance = fit(density(), mask, approximate=False)
    assert chance > FALSE_ALARM, f"completions do not follow the conditional (p = {chance:.2g})"


def test_any_other_mask_is_approximate() -> None:
    """The negative control of the test above: completions that do not look ahead are not the conditional."""
    mask = torch.tensor([[[0, 0, 0], [1, 0, 1], [1, 1, 0]]]).bool()
    assert fit(density(), mask, approximate=True) < 1e-6


def test_an_independent_density_completes_any_mask_exactly() -> None:
    mask = torch.tensor([[[0, 1, 0], [1, 0, 0], [0, 1, 0]]]).bool()
    assert fit(density(IndependentPixels), mask, approximate=False) > FALSE_ALARM


def test_other_masks_must_be_asked_for() -> None:
    given = density(shape=(2, 3, 3), tasks=2)
    known = torch.full((2, 3, 3), -1)
    known[0, 0, 0] = 1
    seeds = seeds_of(0, 4, 2)
    complete(given, seeds, known)  # the first channel of the first place
    known[0, 1, 2] = 0
    with pytest.raises(
        ValueError, match=r"Sample 0 of task 0 has a known pixel at \(1, 2\) \(channel 0\).*approximate"
    ):
        complete(given, seeds, known)
    drawn = complete(given, seeds, known, approximate=True)
    assert (drawn[:, :, 0, 0, 0] == 1).all()
    assert (drawn[:, :, 0, 1, 2] == 0).all()


def test_each_image_has_its_own_mask() -> None:
    given = density(tasks=2)
    known = torch.full((3, 2, *SHAPE), -1)
    known[2, 1, 0, 0, :2] = 1
    drawn, free = (complete(given, seeds_of(0, 3, 2), some) for some in (known, None))
    assert (drawn[2, 1, 0, 0, :2] == 1).all()
    assert torch.equal(drawn[:2], free[:2])
    assert torch.equal(drawn[2, 0], free[2, 0])


@pytest.mark.parametrize("adapted", [False, True])
def test_an_image_depends_on_its_seed_alone(adapted: bool) -> None:
    if adapted:
        model = UnconditionalPixelCNN(SHAPE, 2, layers=2, planes=4, penultimate=4)
        randomise(model, seed=0)
        given: Any = adapt(model, torch.ones(2, 2, *SHAPE, dtype=torch.long), InnerLoop(step_size=0.5))
    else:
        given = density(tasks=2)
    seeds = seeds_of(7, 20, 2)
    assert len(seeds.unique()) == 40
    together = complete(given, seeds)
    assert len(together.flatten(0, 1).unique(dim=0)) > 10
    for images_at_once in (1, 3, 8, 1000):
        assert torch.equal(together, complete(given, seeds, images_at_once=images_at_once))
    assert torch.equal(together[5:6], complete(given, seeds[5:6]))
    assert torch.equal(seeds[:3], seeds_of(7, 3, 2))
    assert not torch.equal(seeds, seeds_of(8, 20, 2))


def test_uniforms_are_those_of_a_seed() -> None:
    numbers = uniforms_of(torch.tensor([[1, 2], [2, -1]]), (1, 50, 50))
    assert torch.equal(numbers[0, 1], numbers[1, 0])
    assert not torch.equal(numbers[0, 0], numbers[0, 1])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(float(numbers[0].mean()) - 0.5) < 5 / (12 * 5000) ** 0.5  # 5 standard errors: 6e-7
    assert uniforms_of(torch.zeros(0, 3, dtype=torch.long), (1, 2)).shape == (0, 3, 1, 2)


def test_the_temperature_sharpens() -> None:
    given, seeds = density(), seeds_of(0, 400, 1)
    log_probs = [given.log_prob(complete(given, seeds, temperature=t)).mean() for t in (0.2, 1.0, 5.0)]
    assert log_probs[0] > log_probs[1] > log_probs[2]
    cold = complete(given, seeds, temperature=1e-6)
    assert len(cold.unique(dim=0)) == 1, "next to zero only the likeliest pixel is left"


def _keep(kept: list[Part], parts: Iterator[Part]) -> None:
    for part in parts:
        kept.append(part)  # one by one: list.extend would lose them


def test_who_interrupts_keeps_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    given, seeds = density(tasks=2), seeds_of(0, 10, 2)
    whole = complete(given, seeds)
    kept: list[Part] = []
    draw = given._drawn

    def interrupted(*arguments: Any) -> Tensor:
        if len(kept) == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    given._drawn = interrupted
    with pytest.raises(KeyboardInterrupt):
        _keep(kept, complete_in_parts(given, seeds, images_at_once=6, progress=True))
    assert [(part.first, part.last) for part in kept] == [(0, 3), (3, 6)]
    assert torch.equal(torch.cat([part.images for part in kept]), whole[:6])
    assert "drawing" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [AttentionPixelCNN, MultiscalePixelCNN, IndependentPixels])
def test_the_bar_moves_within_a_part(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = density(kind, (1, 8, 8))
    complete(given, seeds_of(0, 10, 1), images_at_once=6, progress=True)
    *_, last = re.findall(r"drawing:.*\| (\S+)/(\S+) \[", capsys.readouterr().err)
    assert last == ("640", "640")
    reports: list[int] = []
    if isinstance(given, SequentialDensity):
        given.drawn(Draws(torch.rand(6, 1, 1, 8, 8), report=reports.append))
        assert len(reports) >= 3


# The order of a 3x3 image whose base is 2x2: corners, then (0, 1) and (2, 1), then (1, 0) and (1, 2), then the middle.
CORNERS = [[1, 0, 1], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("mask", [CORNERS, [[1, 0, 1], [0, 0, 0], [1, 1, 1]], [[1, 1, 1], [0, 0, 0], [1, 1, 1]]])
def test_a_smaller_image_is_enlarged_exactly(mask: list[list[int]]) -> None:
    """Its own pixels, and some of a group: they do not depend on one another."""
    chance = fit(density(MultiscalePixelCNN), torch.tensor([mask]).bool(), approximate=False)
    assert chance > FALSE_ALARM, f"completions do not follow the conditional (p = {chance:.2g})"


def test_the_upper_part_of_a_multiscale_image_is_approximate() -> None:
    given, top = density(MultiscalePixelCNN), torch.tensor([[[1, 1, 1], [1, 1, 1], [0, 0, 0]]]).bool()
    known = observe(torch.ones(1, 3, 3, dtype=torch.long), top)
    with pytest.raises(ValueError, match=r"at \(0, 1\) .* come first in the order of a multiscale.*approximate=True"):
        complete(given, seeds_of(0, 2, 1), known)
    assert fit(given, top, approximate=True) < 1e-6, "the negative control of the test above"


def test_temperature_channels_and_masks_reach_every_scale() -> None:
    """A colour image of odd size: what is known stays in base and upscalers, next to zero there is one completion."""
    shape = (3, 5, 6)
    model = MultiscalePixelCNN(shape, 7, base=2, layers=2, upscaler_layers=2, planes=6, penultimate=8)
    randomise(model, seed=1)
    given = model(torch.zeros(1, 2, *shape, dtype=torch.long))
    seeds = seeds_of(0, 6, 2)
    image = torch.randint(7, (2, *shape), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5  # single channels, too
    drawn = complete(given, seeds, observe(image, mask), approximate=True)
    assert (drawn[..., mask] == image[:, mask]).all()
    free = drawn[..., ~mask]
    assert (free.amin(0) < free.amax(0)).float().mean() > 0.9, "the rest is drawn"
    cold = complete(given, seeds, observe(image, mask), approximate=True, temperature=1e-6)
    assert len(cold.unique(dim=0)) == 1
    assert torch.equal(complete(given, seeds), complete(given, seeds, images_at_once=2))
    with pytest.raises(ValueError, match=r"known pixel at .* \(channel [12]\) after an unknown one"):
        complete(given, seeds, observe(image, torch.tensor([False, True, True]).view(3, 1, 1).expand(shape)))


def test_densities_that_cannot_say_so() -> None:
    with pytest.raises(TypeError, match="LatentBound does not draw its pixels one by one"):
        complete(LatentModel(SHAPE, 2)(torch.zeros(1, 1, *SHAPE, dtype=torch.long)), seeds_of(0, 1, 1))


def test_wrong_arguments_are_named() -> None:
    given = density(tasks=2)
    with pytest.raises(ValueError, match=r"give integers, \(samples, 2\)"):
        complete(given, seeds_of(0, 3, 1))
    with pytest.raises(ValueError, match="images_at_once=0"):
        complete(given, seeds_of(0, 3, 2), images_at_once=0)
    with pytest.raises(ValueError, match="temperature=0"):
        complete(given, seeds_of(0, 3, 2), temperature=0)
    with pytest.raises(ValueError, match="seed=-1"):
        seeds_of(-1, 3, 2)
    assert complete(given, seeds_of(0, 0, 2)).shape == (0, 2, *SHAPE)

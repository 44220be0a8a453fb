"""Ensembles: the mean of conditionals, of copies of trained models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from metadensity.adaptation import InnerLoop, adapt
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.models import (
    MODELS,
    AlignedPixelCNN,
    AttentionPixelCNN,
    ConditionalPixelCNN,
    EnsemblePixelCNN,
    FewShotModel,
    UnconditionalPixelCNN,
)
from metadensity.testing.subjects import random_images, randomise

EVENT = (1, 5, 4)
SIZES: dict[str, Any] = {"layers": 3, "planes": 6, "penultimate": 8, "attention": "dot"}

DEFAULTS = {"combine": "mean", "weights": "equal", "anchors": [0, 1, 2, 4, 8], "strength": 16.0}


def members(count: int = 3) -> list[AttentionPixelCNN]:
    nets = [AttentionPixelCNN(EVENT, 2, **SIZES) for _ in range(count)]
    for seed, net in enumerate(nets):
        randomise(net, seed)
    return nets


@pytest.mark.parametrize("shots", [0, 2])
def test_each_pixel_is_from_the_mean_of_the_members(shots: int) -> None:
    nets, support, images = members(), *(random_images(n, 2, *EVENT, levels=2, seed=n) for n in (shots, 4))
    density = EnsemblePixelCNN.of(nets)(support)
    terms = torch.stack([net(support).conditional_log_probs(images) for net in nets])
    torch.testing.assert_close(density.conditional_log_probs(images), terms.exp().mean(0).log())
    logits = density.logits(images)
    torch.testing.assert_close(
        logits.log_softmax(2).gather(2, images.unsqueeze(2)).squeeze(2), density.conditional_log_probs(images)
    )
    whole = terms.flatten(3).sum(-1).logsumexp(0) - math.log(len(nets))  # the mixture of images is something else
    assert (density.log_prob(images) - whole).abs().min() > 1e-3


def test_one_member_is_the_net_itself() -> None:
    (net,), support = members(1), random_images(2, 2, *EVENT, levels=2, seed=0)
    one, same = net(support), EnsemblePixelCNN.of([net])(support)
    chances = torch.rand(3, 2, *EVENT, generator=torch.Generator().manual_seed(0))
    images = one.sample_from_uniforms(chances)
    assert torch.equal(same.sample_from_uniforms(chances), images)
    torch.testing.assert_close(same.log_prob(images), one.log_prob(images))


def test_the_weights_are_copies() -> None:
    nets, support = members(2), random_images(2, 2, *EVENT, levels=2, seed=0)
    ensemble, images = EnsemblePixelCNN.of(nets), random_images(3, 2, *EVENT, levels=2, seed=1)
    before = ensemble(support).log_prob(images)
    randomise(nets[0], 7)
    assert torch.equal(ensemble(support).log_prob(images), before)


def test_adapted_it_is_a_density_still() -> None:
    """Each task's own parameters, of all members; the probabilities of all images sum to one."""
    event = (1, 2, 3)
    nets = [AttentionPixelCNN(event, 2, **SIZES) for _ in range(2)]
    for seed, net in enumerate(nets):
        randomise(net, seed)
    ensemble, support = EnsemblePixelCNN.of(nets), random_images(2, 2, *event, levels=2, seed=0)
    density = adapt(ensemble, support, InnerLoop(step_size=0.1))
    images = (torch.arange(64)[:, None] >> torch.arange(6) & 1).view(64, 1, *event).expand(-1, 2, *event)
    found = density.log_prob(images)
    torch.testing.assert_close(found.logsumexp(0), torch.zeros(2), rtol=0, atol=1e-4)
    assert (found - ensemble(support).log_prob(images)).abs().max() > 1e-2
    chances = torch.rand(5, 2, *event, generator=torch.Generator().manual_seed(0))
    assert isinstance(density, RasterDensity)
    assert torch.equal(density.sample_from_uniforms(chances), density.sample_from_uniforms(chances, naive=True))


def test_attention_is_the_mean_of_the_members() -> None:
    nets, support, images = members(), *(random_images(n, 2, *EVENT, levels=2, seed=n) for n in (2, 3))
    density = EnsemblePixelCNN.of(nets)(support)
    assert density.has_attention
    weights = density.attention_weights(images)
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights.sum(2)))
    torch.testing.assert_close(weights, sum(net(support).attention_weights(images) for net in nets) / len(nets))


@pytest.mark.parametrize("kind", [UnconditionalPixelCNN, ConditionalPixelCNN, AlignedPixelCNN])
def test_members_of_any_kind(kind: type[FewShotModel], tmp_path: Path) -> None:
    sizes = {"layers": 3, "planes": 6, "penultimate": 8}
    nets, support, images = [], *(random_images(n, 2, *EVENT, levels=2, seed=n) for n in (2, 4))
    for seed in range(2):
        nets.append(kind(EVENT, 2, **sizes))
        randomise(nets[-1], seed)
    ensemble = EnsemblePixelCNN.of(nets)
    name = next(name for name, listed in MODELS.items() if listed is kind)
    assert ensemble.config == {**nets[0].config, "members": 2, "member": name, **DEFAULTS}
    terms = torch.stack([net(support).conditional_log_probs(images) for net in nets])
    torch.testing.assert_close(ensemble(support).conditional_log_probs(images), terms.exp().mean(0).log())
    chances = torch.rand(5, 2, *EVENT, generator=torch.Generator().manual_seed(0))
    density = ensemble(support)
    assert torch.equal(density.sample_from_uniforms(chances), density.sample_from_uniforms(chances, naive=True))  # type: ignore[attr-defined, call-arg]
    metadensity.save(ensemble, tmp_path / "ensemble")
    loaded = metadensity.load(tmp_path / "ensemble")
    assert loaded.config == ensemble.config
    assert torch.equal(loaded(support).log_prob(images), density.log_prob(images))


def test_what_it_takes_is_what_its_members_take() -> None:
    assert EnsemblePixelCNN(EVENT, 2, member="aligned", layers=2, map_features=3).config["map_features"] == 3
    assert EnsemblePixelCNN(EVENT, 2, member="aligned", layers=2).config["attention"] == "dot"  # the member's default
    with pytest.raises(TypeError, match="EnsemblePixelCNN: got an unexpected keyword argument 'map_features'"):
        EnsemblePixelCNN(EVENT, 2, map_features=3)


def test_models_that_make_no_ensemble() -> None:
    with pytest.raises(ValueError, match="models is empty; give the trained models"):
        EnsemblePixelCNN.of([])
    smaller = ConditionalPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4)
    with pytest.raises(ValueError, match=r"models are of images \(1, 5, 4\) of 2 levels and \(1, 4, 4\) of 2"):
        EnsemblePixelCNN.of([*members(1), smaller])
    with pytest.raises(ValueError, match="member='maml'; choose a model with one PixelCNN"):
        EnsemblePixelCNN(EVENT, 2, member="maml", layers=2, planes=4, penultimate=4)
    with pytest.raises(ValueError, match=r"member='ensemble'; choose one of independent, .*aligned"):
        EnsemblePixelCNN(EVENT, 2, member="ensemble")
    with pytest.raises(ValueError, match="members is empty; give the models"):
        EnsemblePixelCNN(EVENT, 2, members=[])
    with pytest.raises(ValueError, match=r"members has \{'name': 'nothing'\}; give each as a mapping with its name"):
        EnsemblePixelCNN(EVENT, 2, members=[{"name": "nothing"}])
    for wrong, message in (
        ({"combine": "sum"}, "combine='sum'; choose one of mean, mixture, product"),
        ({"weights": "best"}, "weights='best'; choose one of equal, fitted, leave_one_out, or give a list"),
        ({"weights": [1.0]}, r"weights=\[1.0\]; give 2 positive numbers"),
        ({"anchors": [2, 1]}, r"anchors=\[2, 1\]; give numbers of shots, ascending"),
        ({"strength": 0.0}, "strength=0.0; give a positive number of supports"),
    ):
        with pytest.raises(ValueError, match=message):
            EnsemblePixelCNN(EVENT, 2, **wrong)
    with pytest.raises(ValueError, match="members=0; it must be a whole number of at least 1"):
        EnsemblePixelCNN(EVENT, 2, members=0)

"""Prototypes: an exact posterior where they can be one, two ways to the same reads, and how they begin."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metadensity
from metadensity.models import AttentionPixelCNN, EnsemblePixelCNN
from metadensity.nn.prototypes import Prototypes
from metadensity.training import MetaTrainer, TrainingConfig
from tests.metadensity.toys import Patterns

SHAPES = [(1, 6), (2, 3, 2), (1, 2, 2, 2)]


def drawn(*shape: int, levels: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def prototypes(shape: tuple[int, ...] = (1, 4, 4), levels: int = 2, count: int = 5, context: int = 3) -> Prototypes:
    torch.manual_seed(0)
    return Prototypes(shape, levels, count, 6, context=context).double()


def network(**options: int) -> AttentionPixelCNN:
    return AttentionPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4, **options)


def test_half_the_log_odds_of_pixels_give_the_posterior_of_a_mixture() -> None:
    """Of products of Bernoullis with unequal weights, against Bayes' rule pixel by pixel, for all images of 2x2."""
    memory = prototypes((1, 2, 2), count=3, context=0)
    chances = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    with torch.no_grad():
        memory.images.copy_(chances.logit().view_as(memory.images) / 2)
        memory.to_features.weight.fill_(memory.contrast)
    images = torch.tensor(list(itertools.product([0, 1], repeat=4)))
    # A place's chances differ from exp(x * half the log-odds) by a factor that prototypes do not share; with the past
    # it grows, so the prior is set for one place at a time.
    factor = (chances * (1 - chances)).sqrt().log()
    for t in range(4):
        likelihood = torch.where(images[:, None, :t] == 1, chances[:, :t], 1 - chances[:, :t]).prod(-1)
        posterior = prior * likelihood / (prior * likelihood).sum(-1, keepdim=True)
        expected = posterior @ memory.images.flatten(1)[:, t]
        scores = (prior.log() + factor[:, :t].sum(-1)).unsqueeze(0)
        found = memory(images.view(-1, 1, 2, 2), scores)[:, 0].flatten(1)[:, t]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_place_at_a_time_reads_the_same(shape: tuple[int, ...]) -> None:
    memory, images = prototypes(shape, levels=3), drawn(6, *shape, levels=3)
    prior = memory.logits_before(2, torch.randn(2, 3, dtype=torch.float64))
    at_once, scores = memory(images, prior), prior.repeat(3, 1)
    assert at_once.shape == (6, 6, *shape[1:])
    for place in itertools.product(*map(range, shape[1:])):
        index = (slice(None), slice(None), *place)
        torch.testing.assert_close(memory.features_at(scores, place), at_once[index])
        scores = scores + memory.scores(images[index], place)


def test_supports_are_told_apart_in_any_order_and_none_adds_nothing() -> None:
    memory, support = prototypes(), drawn(3, 2, 1, 4, 4)
    with torch.no_grad():
        found = memory.encode_support(support)
        assert found.shape == (2, 3)
        torch.testing.assert_close(memory.encode_support(support.flip(0)), found)
        assert not torch.allclose(memory.encode_support(support.flip(1)), found)
        assert not memory.encode_support(support[:0]).any()


def test_without_a_task_vector_the_prior_is_one_for_all() -> None:
    memory = prototypes(context=0)
    assert memory.classes is None
    assert memory.logits_before(2, None).shape == (2, 5)


def filled(model: torch.nn.Module) -> list[Prototypes]:
    return [part for part in model.modules() if isinstance(part, Prototypes) and bool(part.filled)]


def test_training_begins_with_queries_of_its_first_episodes() -> None:
    source = Patterns()
    run = MetaTrainer(network(prototypes=20), source, None, TrainingConfig(steps=3, tasks=4, queries=2, shots=(1,)))
    (memory,) = filled(run.model)
    queries = torch.cat([source.episode(i, 4, 0, 2).query.flatten(0, 1) for i in range(3)])[:20]
    assert torch.equal(memory.images > 0, queries > 0)
    torch.testing.assert_close(memory.images.abs(), torch.ones_like(memory.images))  # 4 / sqrt(16)
    (averaged,) = filled(run.averaged_model)
    assert torch.equal(averaged.images, memory.images)


def test_prototypes_that_have_learned_are_kept(tmp_path: Path) -> None:
    """Weights that were trained, and saved, are not begun again by another training."""
    source, config = Patterns(), TrainingConfig(steps=3, tasks=4, queries=2, shots=(1,))
    metadensity.save(MetaTrainer(network(prototypes=5), source, None, config).run(), tmp_path / "model")
    loaded = metadensity.load(tmp_path / "model")
    before = filled(loaded)[0].images.clone()
    again = MetaTrainer(loaded, Patterns(seed=1), None, config)
    assert torch.equal(filled(again.model)[0].images, before)


def test_all_members_of_an_ensemble_are_filled() -> None:
    model = EnsemblePixelCNN((1, 4, 4), 2, members=2, layers=2, planes=4, penultimate=4, prototypes=5)
    assert not filled(model)
    run = MetaTrainer(model, Patterns(), None, TrainingConfig(steps=1, tasks=4, shots=(1,)))
    assert len(filled(run.model)) == 2


def test_they_are_filled_with_as_many_images_of_their_shape() -> None:
    memory = prototypes()
    with pytest.raises(ValueError, match=r"images has shape \(1, 1, 4, 4\); these prototypes take \(5, 1, 4, 4\)"):
        memory.initialise_from(drawn(1, 1, 4, 4))
    assert not memory.filled

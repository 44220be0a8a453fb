"""Weights of ensembles: the best for validation episodes by the number of shots, and for each task by leave-one-out."""

from __future__ import annotations

import pytest
import torch

from metadensity.episode import Episode
from metadensity.models import MODELS, EnsemblePixelCNN
from metadensity.testing.subjects import random_images, randomise

EVENT = (1, 3, 3)


def made(combine: str, weights: str, **settings: object) -> EnsemblePixelCNN:
    nets = [MODELS[name](EVENT, 2) for name in ("support_mixture", "kernel_density", "ngram")]
    for seed, net in enumerate(nets):
        randomise(net, seed)
    return EnsemblePixelCNN.of(nets, combine, weights, **settings)  # type: ignore[arg-type]


def episode(shots: int, tasks: int = 6) -> Episode:
    """Images of the first pattern of each task with a pixel in ten flipped."""
    pattern = random_images(1, tasks, *EVENT, levels=2, seed=5)
    flipped = torch.rand(shots + 8, tasks, *EVENT, generator=torch.Generator().manual_seed(shots)) < 0.1
    images = torch.where(flipped, 1 - pattern, pattern)
    return Episode(images[:shots], images[shots:])


@pytest.mark.parametrize("combine", ["mean", "mixture", "product"])
def test_fitted_weights_are_better_than_equal_ones_and_than_those_beside_them(combine: str) -> None:
    model, given = made(combine, "fitted", anchors=[2, 4]), [episode(2), episode(4)]
    before = [model(each.support).log_prob(each.query).mean() for each in given]
    found = model.fit_weights(given)
    assert list(found) == [2, 4]
    after = [model(each.support).log_prob(each.query).mean() for each in given]
    assert all(new > old + 0.01 for new, old in zip(after, before, strict=True))
    if combine != "product":
        assert sum(found[2]) == pytest.approx(1)
    for direction in torch.eye(3):
        with torch.no_grad():
            model.log_weights[0] += 0.3 * direction
            moved = model(given[0].support).log_prob(given[0].query).mean()
            model.log_weights[0] -= 0.3 * direction
        assert moved < after[0] + 0.01


@pytest.mark.parametrize("combine", ["mean", "mixture", "product"])
def test_leave_one_out_follows_each_task_and_falls_back_where_nothing_is_left(combine: str) -> None:
    model, fitted = made(combine, "leave_one_out", strength=1.0), made(combine, "fitted")
    for shots in (0, 1):
        support, query = episode(shots).support, episode(shots).query
        assert torch.equal(model(support).log_prob(query), fitted(support).log_prob(query))
    given = episode(4)
    weights = model._weights(given.support, None)
    assert weights is not None
    assert weights.shape == (6, 3)
    alone = model._weights(given.support[:, [2]], None)
    torch.testing.assert_close(alone, weights[[2]])
    evidence = model.left_out(given.support)
    start = fitted.weights_at(4)
    assert start is not None
    assert (evidence._look(weights.double())[0] > evidence._look(start.double().expand(6, -1))[0]).all()


def test_between_anchors_weights_are_interpolated_and_misuse_is_said() -> None:
    model = made("mixture", "fitted", anchors=[0, 3])
    with torch.no_grad():
        model.log_weights[1] = torch.tensor([0.0, -1.0, -2.0])
    at = [model.weights_at(shots) for shots in (0, 1, 3, 8)]
    middle = torch.lerp(model.log_weights[0], model.log_weights[1], 0.5).log_softmax(-1)
    torch.testing.assert_close(at[1], middle)
    torch.testing.assert_close(at[3], at[2])
    with pytest.raises(ValueError, match=r"There are no episodes with \[3\] supports"):
        model.fit_weights([episode(0)])
    with pytest.raises(ValueError, match=r"An episode has 2 supports; the anchors are \[0, 3\]"):
        model.fit_weights([episode(2)])
    with pytest.raises(ValueError, match="weights='equal'; build the ensemble with"):
        made("mean", "equal").fit_weights([episode(2)])

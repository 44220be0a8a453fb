"""What is said of the inner loop, against numbers found another way; and its picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from experiments.figures.inner_loop import inner_curve
from experiments.figures.shot_curves import save_figure
from metadensity import Episode
from metadensity.adaptation import InnerLoop, inner_metrics, inner_steps, support_nll
from metadensity.models import MAMLPixelCNN, UnconditionalPixelCNN
from tests.metadensity.toys import Patterns


def maml(**options: object) -> MAMLPixelCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAMLPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4, **options).double()  # type: ignore[arg-type]


def test_each_number_is_what_it_says() -> None:
    """The likelihoods are those of models with so many steps, the gradient that of autograd."""
    model, episode = maml(step_size=0.5), Patterns().episode(0, tasks=3, shots=3, queries=2)
    seen = inner_steps(model, episode, InnerLoop(steps=2, step_size=0.5))
    assert [step.step for step in seen] == [0, 1, 2]
    for step in seen:
        model.loop = dataclasses.replace(model.loop, steps=step.step)
        query = -model(episode.support).log_prob(episode.query).mean() / 16
        assert step.query_nll == pytest.approx(query.item(), abs=1e-10)
    losses = [support_nll(model.base, episode.support[:, [task]]) for task in range(3)]
    assert seen[0].support_nll == pytest.approx(sum(loss.item() for loss in losses) / 3, abs=1e-10)
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.base.parameters()))]).norm().item()
        for loss in losses
    ]
    assert seen[1].gradient_norm == pytest.approx(sum(norms) / 3, rel=1e-8)
    assert seen[1].update_norm == pytest.approx(0.5 * seen[1].gradient_norm, rel=1e-8)
    assert seen[1].step_size == 0.5
    assert seen[0].gradient_norm == seen[0].update_norm == seen[0].overshoot == 0


def test_learned_step_sizes_are_seen() -> None:
    model, episode = maml(learn_step_sizes=True, step_size=0.25), Patterns().episode(0, tasks=2, shots=2, queries=2)
    plain = inner_steps(maml(step_size=0.25), episode)
    assert inner_steps(model, episode)[1].gradient_norm == pytest.approx(plain[1].gradient_norm, rel=1e-6)
    with torch.no_grad():
        for rate in model.rates:
            rate.mul_(2)
    assert inner_steps(model, episode)[1].step_size == pytest.approx(0.5)
    assert inner_steps(model, episode)[1].update_norm == pytest.approx(2 * plain[1].update_norm, rel=1e-6)


def test_overshoot_tells_steps_that_are_too_long() -> None:
    episode = Patterns().episode(0, tasks=6, shots=3, queries=2)
    assert inner_steps(maml(), episode, InnerLoop(step_size=0.01))[1].overshoot == 0
    assert inner_steps(maml(), episode, InnerLoop(step_size=1e3))[1].overshoot == 1


def test_metrics_and_picture(tmp_path: Path) -> None:
    seen = inner_steps(maml(), Patterns().episode(0, tasks=2, shots=2, queries=2), InnerLoop(steps=3))
    metrics = inner_metrics(seen)
    assert metrics["inner/query_nll/step_3"] == seen[3].query_nll
    assert len(metrics) == 4 * 6
    assert all(type(value) is float for value in metrics.values())
    figure = inner_curve(seen, "three steps")
    lines = {line.get_label(): line.get_ydata() for axes in figure.axes for line in axes.lines}
    assert list(lines["query"]) == [step.query_nll for step in seen]
    assert list(lines["gradient norm"]) == [step.gradient_norm for step in seen[1:]]
    assert save_figure(figure, tmp_path / "inner.png").stat().st_size > 1000


def test_an_episode_with_nothing_to_see() -> None:
    episode = Patterns().episode(0, tasks=2, shots=2, queries=2)
    with pytest.raises(ValueError, match="2 tasks of 0 shots and 2 queries; the inner loop is shown on at least one"):
        inner_steps(maml(), episode.with_shots(0))


def test_sequences_of_different_lengths_are_refused() -> None:
    """The inner loop would take padding for content."""
    model = UnconditionalPixelCNN((1, 8), 2, layers=2, planes=4, penultimate=4)
    pixels = torch.zeros(2, 1, 1, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="The episode has lengths; the inner loop reads images of one size"):
        inner_steps(model, Episode(pixels, pixels, query_lengths=torch.ones(2, 1).long()))

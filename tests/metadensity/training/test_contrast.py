"""Contrast in training: rivals and posteriors against a slow twin, what a step minimises, resuming, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metadensity import Episode, FewShotModel
from metadensity.models import WaveNet
from metadensity.training import MetaTrainer, TrainingConfig
from metadensity.training.contrast import contrast_of, contrast_reference, scored_against_rivals
from tests.contracts.latent import LatentModel
from tests.metadensity.toys import Patterns, Recorder, small_network, trainer


def gradient(model: FewShotModel) -> torch.Tensor:
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(parts).double()


def small_wavenet() -> WaveNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WaveNet((1, 12), 8, layers=3, planes=4, penultimate=4, dilations=(1, 2), patches=2, attention="dot")
        torch.nn.init.normal_(model.encoder.null, std=0.1)
    return model


def of_lengths() -> Episode:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randint(8, (5, 6, 1, 12), generator=generator).to(torch.uint8)
    lengths = torch.randint(1, 13, (5, 6), generator=generator)
    classes = torch.tensor([0, 1, 0, 2, 2, 1])
    return Episode(draw[:3], draw[3:], classes, support_lengths=lengths[:3], query_lengths=lengths[3:])


@pytest.mark.parametrize("rivals", [1, 4, 9])
@pytest.mark.parametrize("kind", ["images", "no classes known", "lengths"])
def test_values_and_gradients_are_those_of_the_slow_twin(kind: str, rivals: int) -> None:
    if kind == "lengths":
        model, episode = small_wavenet(), of_lengths()
    else:
        model, episode = small_network(), Patterns(classes=4).episode(0, 6, 3, 2)
        episode = replace(episode, class_ids=None) if kind == "no classes known" else episode
    found = contrast_of(*scored_against_rivals(model, episode, rivals), temperature=2.0)
    found.backward()
    fast = gradient(model)
    model.zero_grad()
    slow = contrast_reference(model, episode, rivals, temperature=2.0)
    slow.backward()
    assert found.item() == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(fast, gradient(model), rtol=1e-3, atol=1e-6)
    assert fast.abs().max() > 0


def test_a_task_of_the_same_class_is_no_rival() -> None:
    episode = Patterns(classes=4).episode(0, 4, 2, 1)
    episode = replace(episode, class_ids=torch.tensor([7, 7, 7, 7]))
    own, others, there = scored_against_rivals(small_network(), episode, 3)
    assert others.shape == (3, 1, 4)
    assert not there.any()
    assert contrast_of(own, others, there).isnan()


def test_rivals_are_of_the_block_and_blocks_go_on_where_tasks_are_withheld() -> None:
    """Six tasks in blocks of three, the first of them withheld: the second and third have each other alone."""
    episode = replace(Patterns().episode(0, 6, 2, 1), class_ids=None)
    model = small_network()
    own, others, there = scored_against_rivals(model, episode.take_tasks(slice(1, None)), 2, first=1)
    assert there.tolist() == [[True] * 5, [False, False, True, True, True]]

    @torch.no_grad()
    def given(task: int, query: int) -> float:
        value = episode.query[:, query : query + 1]
        return float(model(episode.support[:, task : task + 1]).log_prob(value))

    assert own[0].tolist() == pytest.approx([given(task, task) for task in range(1, 6)], rel=1e-5)
    assert others[0, 0, :2].tolist() == pytest.approx([given(2, 1), given(1, 2)], rel=1e-5)
    assert sorted(others[:, 0, 2].tolist()) == pytest.approx(sorted([given(4, 3), given(5, 3)]), rel=1e-5)


def test_a_step_minimises_likelihood_and_contrast_and_says_both() -> None:
    settings = {"shots": (2,), "contrast": 0.7, "rivals": 1, "contrast_temperature": 3.0, "clip": 0.0}
    run = trainer(**settings)
    episode = run.train.episode(0, 4, 2, 2)
    model = small_network()
    model.initialise(Patterns(), 4, 2)
    nats = model.loss(episode.support, episode.query).sum() / episode.query.numel()
    contrast = contrast_reference(model, episode, 1, 3.0)
    (nats + 0.7 * contrast).backward()
    loss, norm = run.update()
    assert loss == pytest.approx(nats.item(), rel=1e-5)
    assert run.contrasts == pytest.approx([contrast.item()], rel=1e-5)
    assert norm == pytest.approx(gradient(model).norm().item(), rel=1e-4)


def test_what_is_logged_keeps_the_two_apart_and_the_best_is_of_their_sum() -> None:
    recorder = Recorder()
    run = trainer(contrast=0.5, rivals=3, shots=(0, 1, 3), withheld=0.25)
    run.run(recorder)
    plain, contrast = dict(recorder.series("train/nats_per_dim")), dict(recorder.series("train/contrast"))
    assert list(plain) == [1, 2, 3, 4, 5, 6]
    assert list(contrast) == [step for step in plain if run.shots_of(step - 1)]
    ((_, first), (_, last)) = recorder.series("validation/contrast")
    for number in (1, 3):
        assert len(recorder.series(f"validation/contrast_{number}_shots")) == 2
    assert not recorder.series("validation/contrast_0_shots")
    assert 0 < first < 2
    cautious = [value for _, value in recorder.series("validation/cautious")]
    assert run.best == min(cautious[0] + 0.5 * first, cautious[1] + 0.5 * last)
    values = run.validate()
    episodes = [Patterns(seed=1).episode(i, 4, 3, 2) for i in range(2)]
    slow = [contrast_reference(run.averaged_model, each.with_shots(1), 3).item() for each in episodes]
    assert values["validation/contrast_1_shots"] == pytest.approx(sum(slow) / 2, rel=1e-5)


def test_it_learns_to_tell_classes_apart() -> None:
    """Where the likelihood hardly pays for it: few steps, few shots."""
    found = {}
    for contrast in (0.0, 2.0):
        config = {"steps": 60, "tasks": 16, "shots": (2,), "warmup": 5, "learning_rate": 1e-2, "contrast": contrast}
        run = trainer(small_network(planes=6), **config, validate_every=60)
        run.run()
        episode = Patterns().episode(10**6, 32, 2, 2)
        found[contrast] = contrast_of(*scored_against_rivals(run.averaged_model, episode, 3)).item()
    assert found[2.0] < found[0.0] - 0.05, found


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bfloat16"}, {"optimizer": "muon", "withheld": 0.25, "rivals": 3}], ids=str
)
def test_a_resumed_run_agrees_to_the_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {"contrast": 0.5, "rivals": 2, "log_every": 2, "shots": (1, 3), **settings}
    straight, first, second = Recorder(), Recorder(stop_at=3), Recorder()
    through = trainer(**settings)
    through.run(straight)
    stopped = trainer(**settings)
    stopped.run(first)
    assert len(stopped.contrasts) == 1  # of step 3, which no line has yet
    stopped.save_state(tmp_path / "state")
    again = trainer(**settings)
    again.resume(tmp_path / "state")
    again.run(second)
    mine, theirs = dict(again.model.named_parameters()), dict(through.model.named_parameters())
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert first.series("train/contrast") + second.series("train/contrast") == straight.series("train/contrast")
    assert again.best == through.best


def test_without_contrast_a_step_is_that_of_the_likelihood_to_the_bit() -> None:
    run = trainer(contrast=0.0, rivals=3, steps=2, shots=(2,), withheld=0.25)
    with torch.random.fork_rng(devices=[]):
        by_hand = trainer(steps=2, shots=(2,), withheld=0.25)
    for step in range(2):
        episode = by_hand.train.episode(step, 4, 2, 2)
        model = by_hand.model.train()
        for group in by_hand.optimizer.param_groups:
            group["lr"] = by_hand.config.learning_rate_at(step)
        by_hand.optimizer.zero_grad()
        rest = episode.take_tasks(slice(1, None))
        total = model.loss(rest.support, rest.query).sum()
        total = total + model.loss(episode.support[:0, :1], episode.query[:, :1]).sum()
        (total / episode.query.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        by_hand.optimizer.step()
        run.update()
    pairs = zip(run.model.parameters(), by_hand.model.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert not run.contrasts
    assert "contrasts" not in run.state()[1]
    assert not any("contrast" in name for name in run.validate())


def test_sequences_with_lengths_are_contrasted_on_windows() -> None:
    @dataclass(frozen=True)
    class Source:
        event_shape: tuple[int, ...] = (1, 12)
        levels: int = 8

        def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
            return of_lengths().take_tasks(slice(tasks))

    config = TrainingConfig(steps=2, tasks=6, queries=2, shots=(3,), window=5, contrast=0.5, rivals=2, warmup=0)
    run = MetaTrainer(small_wavenet(), Source(), None, config)
    before = [p.detach().clone() for p in run.model.parameters()]
    run.update()
    (value,) = run.contrasts
    assert 0 < value < 5
    assert any(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"contrast": -1.0}, r"contrast=-1\.0; its weight must be a number of 0 or more"),
        ({"contrast": 1.0, "rivals": 0}, "rivals=0"),
        ({"contrast": 1.0, "rivals": 16}, "rivals=16 with tasks=16; rivals are other tasks of the batch, so there are"),
        ({"contrast": 1.0, "shots": (0,)}, "without supports all tasks have one density"),
        ({"contrast": 1.0, "withheld": 0.95}, "leaves no query a rival with supports"),
        ({"contrast": 1.0, "contrast_temperature": 0.0}, r"contrast_temperature=0\.0; it must be a positive number"),
        ({"contrast": 1.0, "parts": 2}, r"contrast=1\.0 with parts=2; rivals are of the whole batch"),
        ({"contrast": 1.0, "graphs": True, "device": "cuda"}, "graphs=True with contrast, which is not recorded"),
    ],
)
def test_settings_without_rivals_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingConfig(**settings)


def test_sources_without_rivals_and_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="has 1 class, and a rival is of another"):
        MetaTrainer(small_network(), Patterns(classes=1), None, TrainingConfig(contrast=1.0))
    config = TrainingConfig(contrast=1.0, rivals_within_group=True)
    with pytest.raises(ValueError, match="Patterns, split unnamed, cannot draw the classes of one group"):
        MetaTrainer(small_network(), Patterns(), None, config)
    with pytest.raises(ValueError, match="a bound is off by another amount for each class"):
        trainer(LatentModel((1, 4, 4), 2), contrast=1.0, shots=(1,), channels_last=False).update()

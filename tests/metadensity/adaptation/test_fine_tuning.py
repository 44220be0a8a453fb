"""Fine-tuning against a plain loop over tasks, its early stopping, and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity import Episode, FewShotModel, evaluate
from metadensity.adaptation import AdaptedPixelCNNDensity, support_nll
from metadensity.adaptation.fine_tuning import CONDITIONING, FineTuned, FineTuning, best_steps, fine_tune
from metadensity.models import MODELS, WaveNet
from tests.metadensity.toys import Patterns

EVENT = (1, 4, 4)


def build(name: str = "conditional", dtype: torch.dtype = torch.float64) -> FewShotModel:
    options: dict[str, Any] = {} if name.startswith("support") else {"layers": 2, "planes": 4, "penultimate": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name](EVENT, 2, **options).to(dtype)


def by_loop(model: FewShotModel, support: Tensor, steps: int, rate: float) -> FewShotModel:
    """A copy of the model after Adam on one task's support."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        support_nll(model, support).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(("way", "chunk"), [("loop", None), ("vmap", None), ("vmap", 2)])
@pytest.mark.parametrize("name", ["conditional", "attention", "support_mean"])
def test_it_is_adam_on_each_task(name: str, way: str, chunk: int | None) -> None:
    model, episode = build(name), Patterns().episode(0, tasks=3, shots=3, queries=4)
    settings = FineTuning(steps=5, learning_rate=1e-2, early_stopping=False, way=way, chunk=chunk)
    before = copy.deepcopy(model.state_dict())
    found = fine_tune(model, episode.support, settings).log_prob(episode.query)
    assert not found.requires_grad
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    for task in range(3):
        tuned = by_loop(model, episode.support[:, [task]], 5, 1e-2)
        expected = tuned(episode.support[:, [task]]).log_prob(episode.query[:, [task]])[:, 0]
        torch.testing.assert_close(found[:, task], expected.detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shots", [2, 3, 4, 6, 9])
def test_the_number_of_steps_is_the_best_on_what_is_held_out(shots: int) -> None:
    """Leave-one-out up to 4 supports, the last quarter of more; found again by trying every number of steps."""
    model, episode = build(), Patterns(noise=0.3).episode(0, tasks=2, shots=shots, queries=1)
    settings = FineTuning(steps=8, learning_rate=5e-2, patience=8)
    found = best_steps(model, episode.support, settings)
    held = [[one] for one in range(shots)] if shots <= 4 else [list(range(shots - shots // 4, shots))]
    for task in range(2):
        support = episode.support[:, [task]]
        curve = []
        for steps in range(9):
            scores = []
            for out in held:
                train = support[[i for i in range(shots) if i not in out]]
                scores.append(float(by_loop(model, train, steps, 5e-2)(train).log_prob(support[out]).detach().mean()))
            curve.append(-sum(scores) / len(scores))
        assert found[task] == min(range(9), key=curve.__getitem__)


def test_patience_ends_it_and_what_follows_is_not_seen() -> None:
    """Random supports share nothing, so fitting them soon stops helping; the best so far is kept."""
    support = torch.randint(2, (4, 3, *EVENT), generator=torch.Generator().manual_seed(0))
    model = build()
    long = FineTuning(steps=40, learning_rate=5e-2, patience=40)
    short = FineTuning(steps=40, learning_rate=5e-2, patience=5)
    assert torch.equal(best_steps(model, support, long), best_steps(model, support, short))
    assert best_steps(model, support, long).max() < 30


def test_a_single_support_takes_no_step_and_none_is_the_prior() -> None:
    model, episode = build(), Patterns().episode(0, tasks=3, shots=1, queries=2)
    for support in (episode.support, episode.support[:0]):
        expected = model(support).log_prob(episode.query)
        torch.testing.assert_close(fine_tune(model, support).log_prob(episode.query), expected.detach())
    moved = fine_tune(model, episode.support, FineTuning(early_stopping=False)).log_prob(episode.query)
    assert (moved - model(episode.support).log_prob(episode.query)).abs().max() > 1e-3


def test_it_helps_where_there_is_something_to_learn() -> None:
    model, episode = build("unconditional"), Patterns().episode(0, tasks=8, shots=8, queries=8)
    before = model(episode.support).log_prob(episode.query).mean()
    after = fine_tune(model, episode.support, FineTuning(learning_rate=3e-2)).log_prob(episode.query).mean()
    assert after > before + 1


@pytest.mark.parametrize("name", ["conditional", "attention"])
def test_the_conditioning_alone(name: str) -> None:
    model, episode = build(name), Patterns().episode(0, tasks=2, shots=4, queries=2)
    settings = FineTuning(steps=3, tuned_names=CONDITIONING, early_stopping=False)
    density = fine_tune(model, episode.support, settings)
    assert isinstance(density, AdaptedPixelCNNDensity)
    names = {name for name, _ in model.named_parameters()}
    untouched = names - set(density.parameters)
    assert {name.split(".")[0] for name in density.parameters} >= {"encoder", "network"}
    assert untouched
    assert not any(part in name for name in untouched for part in ("encoder", "patches", "contexts", "attention"))
    assert all("convs" not in name or "encoder" in name for name in density.parameters)
    with pytest.raises(ValueError, match="is found in the name of no parameter of UnconditionalPixelCNN"):
        fine_tune(build("unconditional"), episode.support, settings)


def test_tasks_do_not_see_one_another() -> None:
    model, episode = build(), Patterns(noise=0.3).episode(0, tasks=4, shots=3, queries=2)
    settings = FineTuning(steps=10, learning_rate=5e-2)
    together = fine_tune(model, episode.support, settings).log_prob(episode.query)
    for i in range(4):
        alone = fine_tune(model, episode.support[:, [i]], settings).log_prob(episode.query[:, [i]])
        torch.testing.assert_close(together[:, [i]], alone, rtol=0, atol=1e-9)


def test_samplers_agree() -> None:
    model, episode = build(), Patterns().episode(0, tasks=2, shots=4, queries=1)
    density = fine_tune(model, episode.support, FineTuning(steps=3, learning_rate=5e-2))
    assert isinstance(density, AdaptedPixelCNNDensity)
    uniforms = torch.rand(5, 2, *EVENT, generator=torch.Generator().manual_seed(0))
    assert torch.equal(density.sample_from_uniforms(uniforms), density.sample_from_uniforms(uniforms, naive=True))


def test_settings_that_are_none() -> None:
    for name in ("steps", "leave_one_out_up_to", "patience"):
        with pytest.raises(ValueError, match=f"{name}=0; it must be a whole number of at least 1"):
            FineTuning(**{name: 0})
    with pytest.raises(ValueError, match=r"learning_rate=0\.0; it must be a positive number"):
        FineTuning(learning_rate=0.0)
    with pytest.raises(ValueError, match="support has shape"):
        fine_tune(build(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


def test_a_model_that_is_fine_tuned_where_it_is_used() -> None:
    model, episode = build(), Patterns().episode(0, tasks=3, shots=3, queries=4)
    settings = FineTuning(steps=5, learning_rate=1e-2)
    expected = fine_tune(model, episode.support, settings).log_prob(episode.query)
    found = evaluate(FineTuned(model, settings), [episode])
    assert found.rows[0].nats_per_image == pytest.approx(-float(expected.mean()))
    plain = evaluate(model, [episode])
    assert found.rows[0].nats_per_image != pytest.approx(plain.rows[0].nats_per_image)
    with pytest.raises(ValueError, match="nonsense"):
        FineTuned(model, FineTuning(tuned_names="nonsense"))


LENGTHS = torch.tensor([[9, 3], [0, 12], [7, 5]])


def of_lengths() -> tuple[FewShotModel, Tensor, Tensor]:
    """A WaveNet, three supports of two tasks, and queries."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WaveNet((1, 12), 4, layers=3, planes=4, penultimate=4, dilations=(1, 2)).double()
        support, query = torch.randint(4, (3, 2, 1, 12)), torch.randint(4, (2, 2, 1, 12))
    return model, support, query


@pytest.mark.parametrize("way", ["loop", "vmap"])
def test_of_sequences_the_real_places_are_learned(way: str) -> None:
    """Adam on nats a real place of each support given the others, written out; the padding may be anything."""
    model, support, query = of_lengths()
    settings = FineTuning(steps=3, learning_rate=1e-2, early_stopping=False, way=way)
    found = fine_tune(model, support, settings, LENGTHS).log_prob(query)
    for task in range(2):
        own, of_task, known = copy.deepcopy(model), support[:, [task]], LENGTHS[:, [task]]
        optimizer = torch.optim.Adam(own.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            nats = torch.zeros((), dtype=torch.float64)
            for one in range(3):
                rest = [i for i in range(3) if i != one]
                nats = nats - own(of_task[rest], known[rest]).prefix_log_prob(of_task[one], known[one]).sum()
            (nats / known.sum()).backward()
            optimizer.step()
        expected = own(of_task, known).log_prob(query[:, [task]]).detach()[:, 0]
        torch.testing.assert_close(found[:, task], expected, rtol=0, atol=1e-6)  # Adam enlarges what rounding leaves
    whole = fine_tune(model, support, settings).log_prob(query)
    assert (found - whole).abs().max() > 1e-3, "lengths do nothing"
    full = fine_tune(model, support, settings, torch.full_like(LENGTHS, 12)).log_prob(query)
    torch.testing.assert_close(full, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("leave_one_out_up_to", [4, 2])
def test_padding_changes_nothing(leave_one_out_up_to: int) -> None:
    """Neither the steps that are taken, nor what comes of them; nor where a model is fine-tuned as it is used."""
    model, support, query = of_lengths()
    other = torch.where(torch.arange(12) < LENGTHS[..., None, None], support, 3 - support)
    settings = FineTuning(steps=6, learning_rate=5e-2, leave_one_out_up_to=leave_one_out_up_to)
    steps = best_steps(model, support, settings, LENGTHS)
    assert torch.equal(steps, best_steps(model, other, settings, LENGTHS))
    found = fine_tune(model, support, settings, LENGTHS).log_prob(query)
    assert torch.equal(found, fine_tune(model, other, settings, LENGTHS).log_prob(query))
    episode = Episode(other, query, support_lengths=LENGTHS)
    rows = evaluate(FineTuned(model, settings), [episode], duplicates="allow").rows
    assert rows[0].nats_per_image == pytest.approx(-float(found.mean()))
    none = fine_tune(model, support[:0], settings, LENGTHS[:0]).log_prob(query)
    torch.testing.assert_close(none, model(support[:0]).log_prob(query).detach())
    with pytest.raises(ValueError, match=r"lengths has shape \(2, 2\); one length a sequence is \(3, 2\)"):
        fine_tune(model, support, settings, LENGTHS[:2])
    with pytest.raises(ValueError, match="reads supports of one size and was given lengths"):
        fine_tune(MODELS["unconditional"]((1, 12), 4, layers=2, planes=4), support, settings, LENGTHS)

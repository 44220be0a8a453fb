"""MAML, FOMAML, Meta-SGD and Reptile against learn2learn and against what their papers say; models that adapt train."""

from __future__ import annotations

import gc
import resource
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity import FewShotModel
from metadensity.adaptation import InnerLoop, adapted_parameters, support_nll
from metadensity.models import MODELS, MAMLPixelCNN, UnconditionalPixelCNN
from tasks.interop.imports import import_learn2learn
from tests.metadensity.toys import Patterns, trainer

EVENT = (1, 4, 4)
SMALL: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}


def maml(dtype: torch.dtype = torch.float64, **options: Any) -> MAMLPixelCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAMLPixelCNN(EVENT, 2, **SMALL, **options).to(dtype)


def nll(model: UnconditionalPixelCNN, value: Tensor) -> Tensor:
    """Mean NLL in nats/dim of ``(samples, tasks, ...)``, in the way a user of learn2learn writes it."""
    return -model(value).log_prob(value).mean() / 16


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("algorithm", ["MAML", "MetaSGD"])
def test_learn2learn_gives_the_same(algorithm: str, steps: int, first_order: bool, way: str) -> None:
    """Adapted parameters and meta-gradient through the real learn2learn, to 1e-6 in float64, tasks one by one."""
    algorithms = import_learn2learn().algorithms
    model = maml(steps=steps, step_size=0.4, first_order=first_order, learn_step_sizes=algorithm == "MetaSGD", way=way)
    episode = Patterns().episode(0, tasks=3, shots=2, queries=2)
    density = model(episode.support)
    loss = -density.log_prob(episode.query).mean() / 16
    ours = torch.autograd.grad(loss, list(model.parameters()))

    theirs = getattr(algorithms, algorithm)(model.base, lr=0.4, first_order=first_order)
    total = torch.zeros((), dtype=torch.float64)
    for task in range(3):
        learner = theirs.clone()
        for _ in range(steps):
            learner.adapt(nll(learner.module, episode.support[:, [task]]))
        for name, tensor in learner.module.named_parameters():
            torch.testing.assert_close(density.parameters[name][task], tensor, rtol=0, atol=1e-6)
        total = total + nll(learner.module, episode.query[:, [task]]) / 3
    torch.testing.assert_close(loss, total, rtol=0, atol=1e-6)
    parameters = [*theirs.module.parameters(), *(theirs.lrs if algorithm == "MetaSGD" else [])]
    expected = torch.autograd.grad(total, parameters)
    assert len(ours) == len(expected)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_learned_step_sizes_start_at_step_size_and_are_used() -> None:
    model, plain = maml(learn_step_sizes=True, step_size=0.3), maml(step_size=0.3)
    episode = Patterns().episode(0, tasks=2, shots=2, queries=2)
    expected = plain(episode.support).log_prob(episode.query)
    torch.testing.assert_close(model(episode.support).log_prob(episode.query), expected, rtol=0, atol=1e-6)
    assert sum(rate.numel() for rate in model.rates) == sum(p.numel() for p in model.base.parameters())
    with torch.no_grad():
        for rate in model.rates:
            rate.zero_()
    prior = model.base(episode.support).log_prob(episode.query)
    torch.testing.assert_close(model(episode.support).log_prob(episode.query), prior, rtol=0, atol=1e-10)
    some = maml(learn_step_sizes=True, adapts=r"\.head\.")
    assert set(some.step_sizes() or {}) == {name for name, _ in some.base.named_parameters() if ".head." in name}


def test_reptile_is_theta_minus_theta_prime() -> None:
    """Whatever the loss, the gradient of what adapts is theta - theta', and that of the rest is the loss's own."""
    model = maml(reptile=True, steps=3, step_size=0.4, adapts=r"\.layers\.")
    episode = Patterns().episode(0, tasks=3, shots=2, queries=2)
    adapted = adapted_parameters(model.base, episode.support, InnerLoop(3, 0.4, adapts=r"\.layers\."))
    start = dict(model.base.named_parameters())
    for factor in (1.0, 5.0):
        model.zero_grad()
        (-factor * model(episode.support).log_prob(episode.query).mean()).backward()
        for name, tensor in start.items():
            if name in adapted:
                torch.testing.assert_close(tensor.grad, tensor - adapted[name].mean(0), rtol=0, atol=1e-12)
                assert tensor.grad is not None
    rest = {name: tensor.grad for name, tensor in start.items() if name not in adapted}
    fomaml = maml(first_order=True, steps=3, step_size=0.4, adapts=r"\.layers\.")
    (-5 * fomaml(episode.support).log_prob(episode.query).mean()).backward()
    for name, tensor in fomaml.base.named_parameters():
        if name in rest:
            torch.testing.assert_close(rest[name], tensor.grad, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="reptile=True gives step sizes no gradient"):
        maml(reptile=True, learn_step_sizes=True)


KINDS = [
    ("maml", {"step_size": 1.0}),
    ("maml", {"first_order": True, "steps": 2}),
    ("maml", {"reptile": True, "steps": 3, "step_size": 0.5}),
    ("maml", {"learn_step_sizes": True}),
    ("meta", {"step_size": 1.0}),
    ("attention_meta", {}),
    ("attention_meta", {"inner": "support", "attention": "dot"}),
]


def build(name: str, **options: Any) -> FewShotModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name](EVENT, 2, **SMALL, **options)


def average(losses: list[float]) -> float:
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_the_trainer_trains_it(name: str, options: dict[str, Any]) -> None:
    """MetaTrainer as it is, validation and averaging included; the loss on fresh episodes falls.

    A learned inner loss has to become one first: in these few steps it gives little.
    """
    run = trainer(build(name, **options), steps=40, tasks=8, learning_rate=3e-2, warmup=1, decay="none", shots=(3,))
    episodes = [Patterns(seed=0).episode(1000 + i, 16, 3, 2) for i in range(4)]

    def score() -> float:
        with torch.no_grad():
            return average([-float(run.model(e.support).log_prob(e.query).mean()) / 16 for e in episodes])

    before = score()
    run.run()
    assert score() < before - (0.003 if name == "meta" else 0.02)
    assert run.validate()["validation/nats_per_dim"] > 0


def test_attention_first() -> None:
    """A trained AttentionPixelCNN's weights are a start for the model that adapts as well."""
    attention, both = build("attention"), build("attention_meta", step_size=1e-12)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.1)
    both.base.load_state_dict(attention.state_dict())
    episode = Patterns().episode(0, tasks=2, shots=2, queries=2)
    expected = attention(episode.support).log_prob(episode.query)
    torch.testing.assert_close(both(episode.support).log_prob(episode.query), expected)


@pytest.mark.parametrize("options", [{"way": "loop"}, {"way": "vmap"}, {"way": "vmap", "rematerialise": True}], ids=str)
def test_memory_is_flat_over_200_steps(options: dict[str, Any]) -> None:
    """No tensor stays behind, and the process grows by less than 8 MiB (each step's graph is about 2 MiB)."""
    run = trainer(build("maml", steps=2, **options), validate=False, steps=230, tasks=4, shots=(2,), log_every=1000)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for _ in range(30):
        run.update()
    tensors, peak = alive(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        run.update()
    assert alive() == tensors
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 8 * 1024  # KiB on Linux


def test_the_inner_loss_is_the_likelihood() -> None:
    model = maml()
    assert model.inner_loss is support_nll

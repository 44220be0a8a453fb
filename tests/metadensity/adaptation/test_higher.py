"""Models within higher, a library of differentiable optimisers: its inner loop gives the gradients of autograd."""

from __future__ import annotations

import higher
import pytest
import torch
from torch import Tensor

from metadensity import FewShotModel
from metadensity.models import MODELS

EVENT = (1, 4, 5)
STEP, STEPS = 0.05, 2


def images(samples: int, seed: int) -> Tensor:
    return torch.randint(3, (samples, 2, *EVENT), generator=torch.Generator().manual_seed(seed))


def meta_gradient(model: FewShotModel, support: Tensor, query: Tensor) -> list[Tensor]:
    """That of the query's loss after gradient descent on the support, by autograd through torch.func alone."""
    start = dict(model.named_parameters())
    now: dict[str, Tensor] = dict(start)
    for _ in range(STEPS):
        loss = -torch.func.functional_call(model, now, (support[:1],)).log_prob(support[1:]).mean()
        gradients = torch.autograd.grad(
            loss, list(now.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        now = {name: now[name] - STEP * gradient for name, gradient in zip(now, gradients, strict=True)}
    outer = -torch.func.functional_call(model, now, (support,)).log_prob(query).mean()
    return list(torch.autograd.grad(outer, list(start.values()), allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("likelihood", ["categorical", "logistic"])
@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention", "aligned"])
def test_an_inner_loop_of_highers(name: str, likelihood: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name](EVENT, 3, layers=2, planes=4, penultimate=4, likelihood=likelihood).double()
    support, query = images(3, seed=1), images(2, seed=2)
    expected = meta_gradient(model, support, query)
    optimizer = torch.optim.SGD(model.parameters(), lr=STEP)
    with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (learner, steps):
        for _ in range(STEPS):
            steps.step(-learner(support[:1]).log_prob(support[1:]).mean())
        (-learner(support).log_prob(query).mean()).backward()
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in model.parameters()]
    assert any(bool(gradient.any()) for gradient in expected)
    for mine, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=0, atol=1e-12)

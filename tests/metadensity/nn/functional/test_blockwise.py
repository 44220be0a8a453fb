"""What works block by block against its plain form: values, gradients, gradients of gradients, vmap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metadensity.nn.functional import blockwise
from metadensity.nn.functional.dot_attention import dot_read, dot_read_plain
from metadensity.nn.functional.prototype_attention import prototype_attention, prototype_attention_plain


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@dataclass(frozen=True)
class Form:
    """A function, its oracle, and shapes of inputs for two tasks; ``varied`` is the input that a batch of calls has."""

    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    varied: int

    def inputs(self) -> list[Tensor]:
        return [drawn(*shape, seed=seed) for seed, shape in enumerate(self.shapes)]


FORMS = {
    "dot": Form(dot_read, dot_read_plain, ((2, 5, 3), (2, 4, 3), (2, 4, 2)), varied=0),
    "recall": Form(prototype_attention, prototype_attention_plain, ((2, 3, 5, 2), (2, 3, 4, 2), (2, 5, 4)), varied=1),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture(params=[1, 20, 60, 1 << 20], ids=lambda block: f"block{block}", autouse=True)
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row at a time, some (two and all in the one form, one and two in the other), or all."""
    monkeypatch.setattr(blockwise, "BLOCK", request.param)


def test_equal_to_the_plain_form(form: Form) -> None:
    inputs = form.inputs()
    expected = form.plain(*inputs)
    torch.testing.assert_close(form.ours(*inputs), expected, rtol=0, atol=1e-14)
    gradient = drawn(*expected.shape, seed=3).detach()
    ours, plain = (torch.autograd.grad(read(*inputs), inputs, gradient) for read in (form.ours, form.plain))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-14)


def test_gradients_of_gradients(form: Form) -> None:
    assert torch.autograd.gradcheck(form.ours, form.inputs())
    assert torch.autograd.gradgradcheck(form.ours, form.inputs())


def test_a_batch_of_calls(form: Form) -> None:
    inputs, at = form.inputs(), form.varied
    many = [torch.stack([x, 2 * x]) if i == at else x for i, x in enumerate(inputs)]
    expected = torch.stack([form.plain(*(x[k] if i == at else x for i, x in enumerate(many))) for k in range(2)])
    dims = tuple(0 if i == at else None for i in range(len(inputs)))
    found = torch.func.vmap(form.ours, in_dims=dims)(*many)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)

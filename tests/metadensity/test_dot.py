"""Dot-product attention block by block against the plain form: values, gradients, gradients of gradients, vmap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import metadensity.nn.dot as dot
from metadensity.nn.dot import dot_read, dot_read_plain


@pytest.fixture(params=[1, 20, 1 << 20], ids=lambda block: f"block{block}")
def inputs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Queries, keys, values of two tasks; a query at a time, some, or all."""
    monkeypatch.setattr(dot, "BLOCK", request.param)
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 5, 3), (2, 4, 3), (2, 4, 2))
    return [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]


def test_equal_to_the_plain_form(inputs: list[Tensor]) -> None:
    torch.testing.assert_close(dot_read(*inputs), dot_read_plain(*inputs), rtol=0, atol=1e-14)
    gradient = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, plain = (torch.autograd.grad(read(*inputs), inputs, gradient) for read in (dot_read, dot_read_plain))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-14)


def test_gradients_of_gradients(inputs: list[Tensor]) -> None:
    assert torch.autograd.gradcheck(dot_read, inputs)
    assert torch.autograd.gradgradcheck(dot_read, inputs)


def test_a_batch_of_calls(inputs: list[Tensor]) -> None:
    query, keys, values = inputs
    queries = torch.stack([query, 2 * query])
    expected = torch.stack([dot_read_plain(each, keys, values) for each in queries])
    found = torch.func.vmap(dot_read, in_dims=(0, None, None))(queries, keys, values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)

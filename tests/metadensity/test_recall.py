"""Recalling images block by block against the plain form: values, gradients, gradients of gradients, vmap."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import metadensity.nn.recall as module
from metadensity.nn.recall import recall, recall_plain


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.fixture(params=[1, 60, 1 << 20], ids=lambda block: f"block{block}")
def inputs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Pixels, images and priors of two groups; an image at a time, some, or all."""
    monkeypatch.setattr(module, "BLOCK", request.param)
    return [drawn(2, 3, 5, 2, seed=0), drawn(2, 3, 4, 2, seed=1), drawn(2, 5, 4, seed=2)]


def test_the_plain_form_by_hand() -> None:
    pixels, images, prior = drawn(1, 4, 3, 2, seed=0), drawn(1, 4, 5, 2, seed=1), drawn(1, 3, 5, seed=2)
    found = recall_plain(pixels, images, prior)[0]
    for image, place in itertools.product(range(3), range(4)):
        fits = (pixels[0, :place, image].unsqueeze(1) * images[0, :place]).sum((0, 2))
        weights = (prior[0, image] + fits).softmax(0)
        torch.testing.assert_close(found[place, image], weights @ images[0, place], rtol=0, atol=1e-14)


def test_equal_to_the_plain_form(inputs: list[Tensor]) -> None:
    torch.testing.assert_close(recall(*inputs), recall_plain(*inputs), rtol=0, atol=1e-14)
    gradient = drawn(2, 3, 5, 2, seed=3).detach()
    ours, plain = (torch.autograd.grad(form(*inputs), inputs, gradient) for form in (recall, recall_plain))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-14)


def test_gradients_of_gradients(inputs: list[Tensor]) -> None:
    assert torch.autograd.gradcheck(recall, inputs)
    assert torch.autograd.gradgradcheck(recall, inputs)


def test_a_batch_of_calls(inputs: list[Tensor]) -> None:
    pixels, images, prior = inputs
    many = torch.stack([images, 2 * images])
    expected = torch.stack([recall_plain(pixels, each, prior) for each in many])
    found = torch.func.vmap(recall, in_dims=(None, 0, None))(pixels, many, prior)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_scores_are_of_the_precision_of_the_pixels_under_autocast() -> None:
    """They are sums over a whole image, of which bfloat16 would keep two digits."""
    inputs = [drawn(1, 400, 3, 1, seed=seed).float() for seed in (0, 1)]
    prior = torch.zeros(1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = recall(*inputs, prior)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, recall_plain(*inputs, prior))

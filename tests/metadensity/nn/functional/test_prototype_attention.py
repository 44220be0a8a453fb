"""Recalling images: the plain form by hand, and its precision; block by block it is in test_blockwise."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from metadensity.nn.functional.prototype_attention import prototype_attention, prototype_attention_plain


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_plain_form_by_hand() -> None:
    pixels, images, prior = drawn(1, 4, 3, 2, seed=0), drawn(1, 4, 5, 2, seed=1), drawn(1, 3, 5, seed=2)
    found = prototype_attention_plain(pixels, images, prior)[0]
    for image, place in itertools.product(range(3), range(4)):
        fits = (pixels[0, :place, image].unsqueeze(1) * images[0, :place]).sum((0, 2))
        weights = (prior[0, image] + fits).softmax(0)
        torch.testing.assert_close(found[place, image], weights @ images[0, place], rtol=0, atol=1e-14)


def test_scores_are_of_the_precision_of_the_pixels_under_autocast() -> None:
    """They are sums over a whole image, of which bfloat16 would keep two digits."""
    inputs = [drawn(1, 400, 3, 1, seed=seed).float() for seed in (0, 1)]
    prior = torch.zeros(1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = prototype_attention(*inputs, prior)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, prototype_attention_plain(*inputs, prior))

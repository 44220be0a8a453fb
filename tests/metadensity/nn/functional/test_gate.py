"""The gate of few passes against the plain one, in both memory formats."""

from __future__ import annotations

import pytest
import torch

from metadensity.nn.functional.gate import gate, gate_plain


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 3, 4), (1, 4, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_equal_to_the_plain_gate(shape: tuple[int, ...], channels_last: bool) -> None:
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if channels_last:  # features fastest in memory
        z = z.movedim(1, -1).contiguous().movedim(-1, 1)
    z.requires_grad_()
    torch.testing.assert_close(gate(z), gate_plain(z), rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(gate, z)
    assert torch.autograd.gradgradcheck(gate, z)
    per_image = torch.func.vmap(torch.func.grad(lambda image: gate(image[None]).sum()))(z.detach())
    (expected,) = torch.autograd.grad(gate_plain(z).sum(), z)
    torch.testing.assert_close(per_image, expected, rtol=0, atol=1e-15)


def test_channels_last_stays_so() -> None:
    z = torch.randn(2, 6, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    gated = gate(z)
    assert gated.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(gated.sum(), z)
    assert gradient.is_contiguous(memory_format=torch.channels_last)

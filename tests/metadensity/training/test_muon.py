"""Muon: what it makes of gradients, and which parameters it leaves to AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metadensity.models import AttentionPixelCNN
from metadensity.training.muon import Muon, orthogonal


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_directions_are_made_equally_long(shape: tuple[int, int]) -> None:
    """Singular vectors stay, singular values come near 1: the iteration's own range is 0.7 to 1.2."""
    u, _, v = torch.linalg.svd(drawn(3, *shape), full_matrices=False)
    values = torch.logspace(0, -1.5, u.shape[-1])
    matrices = u * values @ v
    found = orthogonal(matrices)
    inside = u.mT @ found @ v.mT
    got = inside.diagonal(dim1=-2, dim2=-1)
    assert got.min() > 0.6
    assert got.max() < 1.3
    off = inside - torch.diag_embed(got)
    assert off.abs().max() < 0.05
    assert values.max() / values.min() > 30, "the matrices are orthogonal to begin with"


def test_the_size_of_a_gradient_does_not_matter_and_zeros_stay() -> None:
    matrices = drawn(1, 8, 20)
    torch.testing.assert_close(orthogonal(matrices * 1024), orthogonal(matrices), rtol=0, atol=1e-2)
    assert orthogonal(torch.zeros(1, 8, 20)).abs().max() == 0


def test_a_kernel_is_one_matrix_and_has_the_rms_of_adamw() -> None:
    layer = nn.Conv2d(6, 10, (2, 3))
    before, gradient = layer.weight.detach().clone(), drawn(10, 6, 2, 3)
    layer.weight.grad, layer.bias.grad = gradient.clone(), drawn(10)
    optimizer = Muon(layer.named_parameters(), lr=0.5, weight_decay=0.1)
    optimizer.step()
    change = (before * (1 - 0.5 * 0.1) - layer.weight.detach()) / 0.5
    first = gradient * (0.1 + 0.9 * 0.1)  # a tenth of it, and nine tenths of a momentum of a tenth of it
    expected = orthogonal(first.flatten(1).unsqueeze(0))[0] * 0.2 * 36**0.5
    torch.testing.assert_close(change, expected.view_as(change), rtol=0, atol=2e-2)
    assert change.square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_all_but_the_weights_of_layers_take_the_steps_of_adamw() -> None:
    """Two steps; the weights stay where they are, as they have no gradient."""
    ours, theirs = (nn.ParameterDict({"null": torch.ones(3, 4), "bias": torch.ones(5)}) for _ in range(2))
    optimizers = (
        Muon(ours.named_parameters(), lr=0.1, weight_decay=0.2),
        torch.optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.2),
    )
    for step in range(2):
        for values, optimizer in zip((ours, theirs), optimizers, strict=True):
            values["null"].grad, values["bias"].grad = drawn(3, 4, seed=step), drawn(5, seed=step)
            optimizer.step()
    for name in ours:
        assert not torch.equal(ours[name], torch.ones_like(ours[name]))
        torch.testing.assert_close(ours[name], theirs[name])


def test_which_parameters_are_orthogonalised() -> None:
    model = AttentionPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4, prototypes=6)
    optimizer = Muon(model.named_parameters(), lr=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights, others = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert "encoder.project.weight" in weights
    assert "network.layers.0.convs.0.weight" in weights
    assert {"encoder.null", "network.attention.null_key", "network.penult.bias", "network.prototypes.images"} <= others
    assert not any(name.endswith("weight") for name in others)
    assert weights | others == set(names.values())

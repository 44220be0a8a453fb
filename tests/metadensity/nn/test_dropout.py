"""Dropout: only a loss that draws has it, by a generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metadensity.models import ByteNet
from metadensity.nn.dropout import Dropout, dropping
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS


def make(**options: object) -> ByteNet:
    torch.manual_seed(0)
    sizes = {"layers": 3, "planes": 16, "penultimate": 16, "encoder_layers": 1, "dropout": 0.25, **options}
    return ByteNet(event_shape=(1, 12), levels=3, **sizes)


def episode() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(3, (2, 4, 1, 12), generator=generator) for _ in range(2))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_how_much_is_dropped_and_what_is_left(rate: float) -> None:
    """One draw; the part is six standard deviations wide, so a right one fails twice in 10**9."""
    layer = Dropout(rate)
    ones = torch.ones(1000, 101)  # a number that bytes do not divide
    with dropping(layer, torch.Generator().manual_seed(0)):
        dropped = layer(ones)
    part = round(rate * 256) / 256
    assert torch.unique(dropped).tolist() == pytest.approx([0.0, 1 / (1 - part)])
    assert (dropped == 0).double().mean().item() == pytest.approx(part, abs=6 * (part * (1 - part) / 101_000) ** 0.5)
    assert torch.equal(layer(ones), ones)


def test_a_density_has_none_in_either_mode_and_after_an_error() -> None:
    model, (support, query) = make(), episode()
    plain = make(dropout=0.0)
    plain.load_state_dict(model.state_dict())
    expected = plain(support).log_prob(query)
    assert torch.equal(model.train()(support).log_prob(query), expected)
    with pytest.raises(ValueError, match="levels"):
        model.loss(support, query + 7, torch.Generator())
    assert torch.equal(model.eval()(support).log_prob(query), expected)
    assert torch.equal(model.loss(support, query), -expected)  # nothing to draw from


def test_a_loss_draws_from_its_generator_alone() -> None:
    model, (support, query) = make(), episode()
    before = torch.random.get_rng_state()
    losses = [model.loss(support, query, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.isclose(losses[0], losses[2]).any()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_block_has_it() -> None:
    """The gradient of a block's last layer is zero in the columns of what was dropped in all places."""
    model, (support, query) = make(dropout=0.99, encoder_layers=2), episode()
    rates = [part.steps for part in model.modules() if isinstance(part, Dropout)]
    assert rates == [253] * (3 + 2 + 1)  # blocks of the decoder and of the encoder, and the last layers
    model.loss(support, query, torch.Generator().manual_seed(0)).sum().backward()
    for block in model.network.layers:
        columns = block.up.weight.grad.abs().sum(0)
        assert 0 < (columns == 0).sum() < len(columns)


def test_a_training_that_is_resumed_draws_the_same() -> None:
    def trainer() -> MetaTrainer:
        config = TrainingConfig(steps=4, tasks=2, queries=1, shots=(1,), warmup=1)
        return MetaTrainer(make(), TASKS["chains"](length=12, levels=3), None, config)

    straight, first, second = trainer(), trainer(), trainer()
    straight.run()
    first.update(), first.update()
    second.load_state(*first.state())
    second.run()
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be() -> None:
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"dropout={rate}; give the part of the features to drop"):
            make(dropout=rate)
    config = TrainingConfig(graphs=True, device="cuda")
    with pytest.raises(ValueError, match="graphs=True with dropout, whose draws are not recorded"):
        MetaTrainer(make().to("meta"), TASKS["chains"](length=12, levels=3), None, config)

"""ByteNet: blocks of the paper, strings with an end, one net as two samplers, chains whose optimum is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity import FewShotModel
from metadensity.densities.bytenet import ByteNetDensity
from metadensity.densities.sequence import SequenceDensity
from metadensity.drawing import Draws
from metadensity.models import ByteNet
from metadensity.nn.residual import BLOCKS, MultiplicativeBlock, ReluBlock, Rings, SequenceConv
from metadensity.testing import checks_density
from metadensity.testing.subjects import Case, Subject, random_images, randomise
from metadensity.training import MetaTrainer, TrainingConfig
from tasks.chains import chains
from tests.contracts.subjects import Recipe
from tests.metadensity.densities.test_sequence import END, LEVELS, PLACES, strings

SMALL: dict[str, Any] = {"layers": 5, "planes": 6, "penultimate": 8, "encoder_layers": 2}


def net(places: int, levels: int = 5, **options: Any) -> ByteNet:
    model = ByteNet((1, places), levels, **{**SMALL, **options}).double()
    randomise(model, seed=0)
    return model


def sequences(*shape: int, levels: int = 5, seed: int = 0) -> Tensor:
    return random_images(*shape, levels=levels, seed=seed)


def normalised(x: Tensor, norm: Any) -> Tensor:
    """Layer norm of each place, from its definition."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * norm.weight + norm.bias


def convolved(x: Tensor, conv: SequenceConv) -> Tensor:
    """A masked convolution from its definition: a sum over taps, zeros before the first place."""
    weight = conv.linear.weight.unflatten(1, (conv.taps, -1))
    result = conv.linear.bias.expand(*x.shape[:2], -1).clone()
    for t in range(x.shape[1]):
        for tap in range(conv.taps):
            back = (conv.taps - 1 - tap) * conv.dilation
            if t >= back:
                result[:, t] += x[:, t - back] @ weight[:, tap].T
    return result


def test_blocks_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    relu, multiplicative = (kind(4, 3, 2).double() for kind in (ReluBlock, MultiplicativeBlock))
    for block in (relu, multiplicative):
        randomise(block, 1)
    h = relu.down(normalised(x, relu.norm).relu())
    h = convolved(normalised(h, relu.norms[0]).relu(), relu.convs[0])  # type: ignore[arg-type]
    expected = x + relu.up(normalised(h, relu.norms[1]).relu())
    torch.testing.assert_close(relu(x, []), expected)
    h = multiplicative.down(normalised(x, multiplicative.norm).relu())
    for conv in multiplicative.convs:
        g1, g2, g3, u = convolved(h, conv).chunk(4, -1)  # type: ignore[arg-type]
        h = g1.sigmoid() * (g2.sigmoid() * h + g3.sigmoid() * u.tanh()).tanh()
    torch.testing.assert_close(multiplicative(x, []), x + multiplicative.up(h))


def test_the_field_is_what_the_sizes_say() -> None:
    """30 blocks of the paper's kernel and dilations: 373 places with one convolution in a block."""
    for block, field in (("relu", 1 + 12 * 31), ("multiplicative", 1 + 24 * 31)):
        model = ByteNet((1, 9), 4, layers=30, planes=4, block=block)
        assert [block.convs[0].dilation for block in model.network.layers] == [1, 2, 4, 8, 16] * 6  # type: ignore[index,union-attr]
        convs = [part for part in model.network.modules() if isinstance(part, SequenceConv)]
        assert 1 + sum(conv.reach for conv in convs) == field
        assert all(conv.taps == 3 for conv in convs[1:])


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("options", [{"dilations": (1, 2, 4)}, {"dilations": (3, 2), "layers": 2}, {"first_kernel": 7}])
def test_gradients_reach_the_field_and_no_further(block: str, options: dict[str, Any]) -> None:
    """Dilations that leave gaps among them: the dependency matrix is exactly that of the kernels."""
    case = Case((1, 24), 3, {"planes": 10, "kernel_size": 5, **options})
    subject = Recipe("bytenet", {"block": block}).build(case, torch.float64)
    checks_density.gradients_are_causal(subject)
    if "first_kernel" not in options and options["dilations"] == (3, 2):
        steps_back = 23 - checks_density.field(subject.model.network)[:, 23].nonzero().flatten()  # type: ignore[arg-type]
        expected = (
            {1 + 3 * i + 2 * j for i in range(5) for j in range(5)}
            if block == "multiplicative"
            else {1 + 3 * i + 2 * j for i in range(3) for j in range(3)}
        )
        assert {*steps_back.tolist()} == {back for back in expected if back <= 23}


@pytest.mark.parametrize(("block", "attention"), [("multiplicative", "additive"), ("relu", "dot")])
def test_samplers_agree_on_long_sequences(block: str, attention: str) -> None:
    """Longer than any ring, so that all of them go round, twice the longest; and with some symbols known."""
    model = net(40, layers=3, dilations=(1, 8, 4), block=block, attention=attention)
    density = model(sequences(2, 2, 1, 40))
    assert isinstance(density, ByteNetDensity)
    uniforms = torch.rand(3, 2, 1, 40, generator=torch.Generator().manual_seed(3))
    assert torch.equal(density.sample_from_uniforms(uniforms), density.sample_from_uniforms(uniforms, naive=True))
    known = torch.where(sequences(3, 2, 1, 40, seed=1) > 2, sequences(3, 2, 1, 40, seed=2), -1)
    draws = Draws(uniforms, known, 0.7)
    assert torch.equal(density.drawn(draws), density.drawn(draws, True))


def test_rings_hold_what_the_kernel_looks_at_and_no_more() -> None:
    """One place at a time is all places at once, and what is kept does not grow with the length."""
    conv = SequenceConv(2, 3, 3, 4).double()
    x, rings = torch.randn(5, 40, 2, dtype=torch.float64), Rings(conv)
    found = torch.cat([conv(x[:, [t]], rings) for t in range(40)], 1)
    torch.testing.assert_close(found, conv(x))
    assert [len(kept) for kept in rings._kept.values()] == [9]


def test_a_place_costs_the_same_however_many_there_are() -> None:
    """Each convolution of the decoder is run once a place, on one place; the naive sampler runs it on all of them."""
    model = net(12, attention=None)
    density, runs = model(sequences(1, 1, 1, 12)), []
    for part in model.network.modules():
        if isinstance(part, SequenceConv):
            part.register_forward_pre_hook(lambda _, given: runs.append(given[0].shape[1]))
    density.sample(generator=torch.Generator().manual_seed(0))
    assert runs == [1] * 12 * (1 + 2 * 5)


def test_hooks_act_on_samples_as_on_likelihoods() -> None:
    model = net(12)
    density, uniforms = (
        model(sequences(2, 2, 1, 12)),
        torch.rand(4, 2, 1, 12, generator=torch.Generator().manual_seed(0)),
    )
    assert isinstance(density, ByteNetDensity)
    before = density.sample_from_uniforms(uniforms)
    block: Any = model.network.layers[1]
    for part in (block.convs[0], block.norm, model.network.first.linear, model.network.norm):
        hook = part.register_forward_hook(lambda _, given, out: -3 * out)
        drawn = density.sample_from_uniforms(uniforms)
        assert torch.equal(drawn, density.sample_from_uniforms(uniforms, naive=True))
        assert not torch.equal(drawn, before)
        hook.remove()


def test_weights_do_not_know_the_number_of_places() -> None:
    short, long = net(8), net(20)
    assert short.state_dict().keys() == long.state_dict().keys()
    value, support = sequences(3, 2, 1, 20, seed=1), sequences(0, 2, 1, 20)
    terms = long(support).conditional_log_probs(value)[..., :8]  # type: ignore[attr-defined]
    torch.testing.assert_close(terms, short(support[..., :8]).conditional_log_probs(value[..., :8]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"attention": "dot"}, {"attention": None, "block": "relu"}], ids=str)
@pytest.mark.parametrize("shots", [0, 2])
def test_the_probabilities_of_all_strings_sum_to_one(options: dict[str, Any], shots: int) -> None:
    """31 strings of up to four of two symbols; without the end, what follows it is paid for."""
    model = net(PLACES, LEVELS, end=END, **options)
    support, every = strings()[[3, 9]][:shots].unsqueeze(1), strings().unsqueeze(1)
    density = model(support)
    assert isinstance(density, SequenceDensity)
    assert abs(density.log_prob(every).logsumexp(0).item()) < 1e-12
    arrays = checks_density.all_images((1, PLACES), LEVELS).unsqueeze(1)
    whole = density.log_prob(arrays)
    assert abs(whole.logsumexp(0).item()) < 1e-12
    assert int((whole > -torch.inf).sum()) == len(every) == 31
    assert density.base.log_prob(every).logsumexp(0).item() < -0.1


def test_drawn_strings_follow_it() -> None:
    checks_density.samples_follow(Subject(net(3, LEVELS, end=END, layers=2, attention=None)))


def test_what_is_after_a_string_of_the_support_moves_nothing() -> None:
    model = net(8, end=4)
    support, lengths = sequences(3, 2, 1, 8, levels=4, seed=1), torch.tensor([[8, 0], [3, 7], [1, 5]])
    beyond = torch.arange(8) >= lengths[..., None, None]
    value = torch.where(beyond, 4, sequences(3, 2, 1, 8, levels=4, seed=2))
    expected = model(torch.where(beyond, 4, support)).log_prob(value)
    assert torch.equal(model(support, lengths).log_prob(value), expected)
    assert torch.equal(model(torch.where(beyond, 0, support), lengths).log_prob(value), expected)
    assert not torch.equal(model(support).log_prob(value), expected)
    with pytest.raises(ValueError, match="ByteNet reads supports of one size and was given lengths"):
        net(8)(support, lengths)


def test_attention_tells_where_a_place_looks() -> None:
    model, value = net(7), sequences(3, 2, 1, 7, seed=1)
    weights = model(sequences(4, 2, 1, 7)).attention_weights(value)  # type: ignore[attr-defined]
    assert weights.shape == (3, 2, 4 * 7 + 1, 7)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 2, 7, dtype=torch.float64))
    with pytest.raises(ValueError, match="looks at no supports"):
        net(7, attention=None)(sequences(1, 2, 1, 7)).attention_weights(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "gated"}, "block='gated'; choose 'relu' or 'multiplicative'"),
        ({"attention": "soft"}, "attention='soft'; choose"),
        ({"encoder_layers": 0}, "encoder_layers=0; it must be"),
        ({"end": 5}, r"end=5 and event_shape=\(1, 9\); strings are \(1, places\) .* levels 0 to 4"),
        ({"end": 1, "event_shape": (1, 3, 3)}, r"event_shape=\(1, 3, 3\); strings"),
        ({"end": 1, "event_shape": (2, 9)}, r"event_shape=\(2, 9\); strings"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ByteNet(**{"event_shape": (1, 9), "levels": 5, **SMALL, **options})


def test_it_comes_near_the_optimum_of_chains() -> None:
    """Some seconds of training: of what an untrained net loses to p(x | support) not half is left, and none gained."""
    source, held_out = (chains(split, length=8, levels=2, concentration=0.3) for split in ("train", "test"))
    torch.manual_seed(0)
    model = ByteNet((1, 8), 2, layers=2, planes=8, penultimate=8, encoder_layers=1)

    def gaps(model: FewShotModel) -> list[float]:
        found = []
        for shots in (0, 2):
            episode = held_out.episode(0, 200, shots, 4)
            best = held_out.optimum(episode).log_prob(episode.query)
            found.append((best - model(episode.support).log_prob(episode.query).detach()).mean().item() / 8)
        return found

    before = gaps(model)
    settings = {"steps": 150, "tasks": 32, "queries": 4, "shots": (0, 2), "warmup": 5, "learning_rate": 1e-2}
    after = gaps(MetaTrainer(model, source, None, TrainingConfig(**settings, average=0.0)).run())
    assert all(-0.005 < now < 0.5 * then for now, then in zip(after, before, strict=True)), (before, after)

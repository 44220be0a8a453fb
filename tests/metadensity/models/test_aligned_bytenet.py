"""Aligned ByteNet: one exact density of source and target, unfolded over sources of any length."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.densities.bytenet import ByteNetDensity
from metadensity.densities.completion import complete, observe, seeds_of
from metadensity.densities.sequence import SequenceDensity
from metadensity.drawing import Draws
from metadensity.models import AlignedByteNet
from metadensity.networks.aligned_bytenet import AlignedByteNetNetwork
from metadensity.nn.residual import SequenceConv
from metadensity.testing import checks_density
from metadensity.testing.checks_density import _give_slopes
from metadensity.testing.subjects import Subject, randomise
from metadensity.training import MetaTrainer, TrainingConfig
from tasks.transduction import transduction

SMALL: dict[str, Any] = {"layers": 3, "planes": 6, "penultimate": 8, "encoder_layers": 2, "source_layers": 2}
SEPARATOR, END, LEVELS = 2, 3, 4


def net(places: int, **options: Any) -> AlignedByteNet:
    model = AlignedByteNet((1, places), LEVELS, **{**SMALL, "separator": SEPARATOR, "end": END, **options}).double()
    randomise(model, seed=0)
    return model


def pair(source: list[int], target: list[int], places: int) -> Tensor:
    """A string, filled up with ends, ``(1, places)``."""
    string = [*source, SEPARATOR, *target]
    return torch.tensor([string + [END] * (places - len(string))])


def supports(places: int) -> Tensor:
    """Two of two tasks, of several lengths."""
    pairs = [pair([0, 1], [1], places), pair([1], [0, 0], places), pair([], [1, 1], places), pair([1, 1], [], places)]
    return torch.stack(pairs).view(2, 2, 1, places)


@pytest.mark.parametrize(
    "options",
    [{}, {"attention": None, "block": "multiplicative"}, {"unfold": (1, 4)}, {"unfold": (0.5, 0)}],
    ids=str,
)
@pytest.mark.parametrize("shots", [0, 2])
def test_the_probabilities_of_all_strings_sum_to_one(options: dict[str, Any], shots: int) -> None:
    """All arrays of five places: those that go on after an end have none; targets sum to one given each source."""
    model = net(5, **options)
    density = model(supports(5)[:shots])
    arrays = checks_density.all_images((1, 5), LEVELS).unsqueeze(1).expand(-1, 2, 1, 5)
    found = density.log_prob(arrays)
    assert isinstance(density, SequenceDensity)
    assert found.logsumexp(0).abs().max() < 1e-12
    for source in ([], [1], [0, 1]):
        begins = (arrays[:, 0, 0, : len(source) + 1] == torch.tensor([*source, SEPARATOR])).all(1)
        lengths = torch.full((int(begins.sum()), 2), len(source) + 1)
        assert density.rest_log_prob(arrays[begins], lengths).logsumexp(0).abs().max() < 1e-12


@pytest.mark.parametrize(
    "options", [{}, {"unfold": (1, 0)}, {"attention": "additive", "block": "multiplicative", "unfold": (1.5, 3)}]
)
def test_samplers_agree(options: dict[str, Any]) -> None:
    """Sequences whose separators come early, late and never, longer than any ring; and with some symbols known."""
    model = net(40, dilations=(1, 8, 4), **options)
    density = model(supports(40)).base  # type: ignore[attr-defined]
    assert isinstance(density, ByteNetDensity)
    uniforms = torch.rand(6, 2, 1, 40, generator=torch.Generator().manual_seed(3))
    known = torch.full(uniforms.shape, -1)
    for row, place in enumerate((0, 1, 7, 30, 39)):  # where the first separator is; of the last row there is none
        known[row, ..., :place], known[row, ..., place] = 1, SEPARATOR
    known[5] = torch.where(uniforms[5] < 0.5, 0, 1)
    for given in (None, known):
        draws = Draws(uniforms, given)
        fast, slow = density.drawn(draws), density.drawn(draws, True)
        assert torch.equal(fast, slow)
        assert len(fast.unique()) > 2
    ended = model(supports(40))
    assert isinstance(ended, SequenceDensity)
    drawn = ended.sample((20,), torch.Generator().manual_seed(0))
    assert ended.log_prob(drawn).isfinite().all()


def test_drawn_strings_follow_it() -> None:
    checks_density.samples_follow(Subject(net(3, layers=2, attention=None)))


def dependence(model: AlignedByteNet, string: Tensor) -> Tensor:
    """Gradients of each place's term in each place's symbol, ``(u, t)``, of a string ``(1, places)``; of three nets."""
    hook, places = model.network.input.register_forward_hook(_give_slopes), string.shape[-1]
    found = torch.zeros(places, places, dtype=torch.float64)
    for seed in range(3):
        randomise(model, seed)
        density = model(supports(places)[:, :1]).base  # type: ignore[attr-defined]
        leaf = string.double().repeat(places, 1, 1).requires_grad_()
        terms = density._logits(leaf).log_softmax(1).gather(1, string.expand(places, 1, 1, places))
        terms.view(places, places).diagonal().sum().backward()
        assert leaf.grad is not None
        found += leaf.grad[:, 0].T.abs()
    hook.remove()
    return found


def test_a_target_sees_all_of_its_source_and_nothing_later() -> None:
    """From its first place on, whatever the length of the source; and its own earlier places."""
    for source, target in (([0, 1, 1, 0, 1], [1, 0, 1]), ([1], [0, 1, 0, 0, 1]), ([0, 1, 0], [1, 1, 0])):
        found = dependence(net(12, encoder_layers=3, dilations=(1, 2, 4)), pair(source, target, 12))
        n = len(source)
        assert found.tril().max() == 0, "a place sees itself, or a later one"
        assert (found[:n, n + 1 :] > 0).all(), "a place of the target does not see all of the source"
        own = found[n + 1 :, n + 1 :]
        assert (own[torch.triu(torch.ones_like(own), 1).bool()] > 0).all()
        assert (found[n] == 0).all(), "where the separator stands is known; it is no symbol of either part"
        assert (found[:n, :n][torch.triu(torch.ones(n, n), 1).bool()] > 0).all()


def test_a_source_that_is_encoded_with_its_target_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    model = net(12)
    whole = model.network.encoder.forward
    monkeypatch.setattr(
        model.network.encoder, "forward", lambda symbols, lengths, longest: whole(symbols, lengths + 4, longest + 4)
    )
    assert dependence(model, pair([1], [1, 0, 1, 0, 0], 12)).tril().max() > 0


def test_columns_are_a_s_and_b() -> None:
    """Rounded up, no fewer than the source has places, and free of what rounding leaves of a decimal number."""
    for unfold, expected in (
        ((1.2, 0), {0: 0, 1: 2, 4: 5, 5: 6, 10: 12, 15: 18}),
        ((1, 0), {0: 0, 7: 7}),
        ((1.1, 0), {10: 11, 20: 22, 30: 33}),
        ((1, 2.5), {0: 3, 4: 7}),
        ((0.5, 1), {1: 2, 2: 2, 8: 8}),
    ):
        encoder = net(9, unfold=unfold).network.encoder
        assert {length: encoder.unfolded(length) for length in expected} == expected


@pytest.mark.parametrize("unfold", [(1.0, 0.0), (1.2, 0.0), (1.0, 2.0)])
def test_dynamic_unfolding(unfold: tuple[float, float]) -> None:
    """Targets shorter than, as long as and longer than a |s| + b, each computed by itself and from the definition:

    the source encoded in just so many columns, zeros after them, the decoder on its own places. In one batch, with
    others of other lengths, they come out the same.
    """
    places = 16
    model = net(places, unfold=unfold)
    network, given = model.network, supports(places)[:, :1]
    density = model(given).base  # type: ignore[attr-defined]
    sources = [[0, 1, 1, 0, 1], [1], [], [0, 0, 1]]
    strings, expected = [], []
    for source, length in itertools.product(sources, (0, 2, 5, 6, 9)):
        target = [(place * place + len(source)) % 2 for place in range(length)]
        string = pair(source, target, places)
        symbols = F.one_hot(string[0], LEVELS).double()
        columns = math.ceil(max(len(source), unfold[0] * len(source) + unfold[1]) - 1e-9)
        x = F.pad(symbols[: len(source)], [0, 0, 0, columns - len(source)])
        x = network.encoder.embed(x.unsqueeze(0))
        for block in network.encoder.layers:
            x = block(x, [])
        stood_on = F.pad(network.encoder.columns(network.encoder.norm(x)), [0, 0, 0, places])
        mine = symbols[len(source) + 1 :].unsqueeze(0)
        before = F.pad(mine, [0, 0, 1, -1])
        _, condition = network._conditions(density.condition)
        features = network.target.features_after(before, condition, columns=stood_on[:, : mine.shape[1]])
        terms = network.head.log_prob(features.mT, string[None, :, len(source) + 1 :])
        strings.append(string)
        expected.append(terms.sum())
    together = torch.stack(strings).unsqueeze(1)
    lengths = torch.tensor([len(source) + 1 for source in sources for _ in range(5)]).unsqueeze(1)
    found = density.rest_log_prob(together, lengths)
    torch.testing.assert_close(found[:, 0], torch.stack(expected), rtol=0, atol=1e-9)
    assert len(found.unique()) == len(found)


def test_it_runs_until_it_ends_beyond_its_columns() -> None:
    """Given one symbol of source, two columns: targets of every length are drawn, as probable as they are drawn."""
    model = net(9, attention=None)
    string = pair([1], [], 9).view(1, 1, 1, 9)
    known = observe(string, torch.arange(9) < 2)
    drawn = complete(model(string[:0]), seeds_of(0, 2000, 1), known)
    assert (drawn[..., :2] == torch.tensor([1, SEPARATOR])).all()
    ends = (drawn[:, 0, 0] == END).int()
    targets = torch.where(ends.any(1), ends.argmax(1), 9) - 2
    assert {0, 1, 2, 3, 4, 5} <= {*targets.tolist()}
    one = drawn[(targets == 0).nonzero()[0, 0]]
    share = float(model(string[:0]).rest_log_prob(one, torch.full((1,), 2)).detach().exp())  # type: ignore[attr-defined]
    assert abs(float((targets == 0).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 2000)


def test_weights_do_not_know_the_number_of_places() -> None:
    """Neither do likelihoods: strings that fit into ten places cost as much in twenty, but for the end of the long."""
    short, long = net(10, attention=None), net(20, attention=None)
    assert short.state_dict().keys() == long.state_dict().keys()
    strings = [pair(*parts, places=20) for parts in (([0, 1, 1], [1, 0]), ([], [1, 1]), ([1] * 4, [0] * 3))]
    value, support = torch.stack(strings).unsqueeze(1), supports(20)[:, :1]
    whole = long(support).conditional_log_probs(value)[..., :10]  # type: ignore[attr-defined]
    part = short(support[..., :10]).conditional_log_probs(value[..., :10])  # type: ignore[attr-defined]
    torch.testing.assert_close(whole, part)


def test_tasks_and_strings_do_not_see_one_another() -> None:
    """Sources of several lengths in one batch are padded to the longest, which moves none of them."""
    model, support = net(12), supports(12)
    strings = [pair([0, 1, 1, 0, 1], [1], 12), pair([1], [0, 0, 0], 12), pair([], [1], 12), torch.ones(1, 12).long()]
    value = torch.stack(strings).unsqueeze(1).expand(-1, 2, 1, 12)
    together = model(support).log_prob(value)
    for task, row in itertools.product(range(2), range(4)):
        alone = model(support[:, [task]]).log_prob(value[row, [task]])
        torch.testing.assert_close(together[row, [task]], alone, rtol=0, atol=1e-10)


def test_supports_are_read_as_pairs() -> None:
    """What a source has beside its target counts, not how often it has it; after a string of the support, nothing."""
    model, value = net(8), torch.stack([pair([0, 1], [1, 0], 8)]).unsqueeze(1)
    same = model(torch.stack([pair([0, 1], [0, 1], 8)]).unsqueeze(1)).log_prob(value)
    crossed = model(torch.stack([pair([0, 1], [1, 0], 8)]).unsqueeze(1)).log_prob(value)
    assert (same - crossed).abs().max() > 1e-6
    support, lengths = supports(8), torch.tensor([[5, 0], [3, 7]])
    beyond = torch.arange(8) >= lengths[..., None, None]
    value = value.expand(1, 2, 1, 8)
    expected = model(torch.where(beyond, END, support)).log_prob(value)
    for level in range(LEVELS):
        assert torch.equal(model(torch.where(beyond, level, support), lengths).log_prob(value), expected)
    with pytest.raises(ValueError, match="AlignedByteNet reads supports of one size and was given lengths"):
        net(8, end=None)(support, lengths)


def test_targets_alone_look_at_supports() -> None:
    model = net(8)
    value = torch.stack([pair([0, 1, 1], [1, 0], 8), pair([1], [1, 1], 8)]).unsqueeze(1).expand(2, 2, 1, 8)
    weights = model(supports(8)).attention_weights(value)  # type: ignore[attr-defined]
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 2, 8, dtype=torch.float64))
    assert (weights[0, :, -1, :4] == 1).all()
    assert (weights[0, :, -1, 4:] < 1).all()
    assert (weights[1, :, -1, 2:] < 1).all()
    with pytest.raises(ValueError, match="looks at no supports"):
        net(8, attention=None)(supports(8)).attention_weights(value)  # type: ignore[attr-defined]


def test_a_place_costs_the_same_however_many_there_are() -> None:
    """While it draws, each decoder is run on one place at a time, and a source is encoded once."""
    model = net(12, attention=None)
    runs: dict[str, list[int]] = {"source": [], "target": [], "encoder": []}
    for name, seen in runs.items():
        for part in getattr(model.network, name).modules():
            if isinstance(part, SequenceConv):
                part.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].shape[1]))  # type: ignore[misc]
    density = model(supports(12)[:0, :1])
    known = observe(pair([1, 0, 1], [], 12).view(1, 1, 1, 12), torch.arange(12) < 4)
    density.sample_from_uniforms(torch.rand(1, 1, 1, 12), known=known)  # type: ignore[attr-defined]
    assert runs["source"] == [1] * 4 * (1 + 2)
    assert runs["target"] == [1] * 8 * (1 + 3)
    assert runs["encoder"] == [4] * 2


def test_levels_are_counted_from_the_end_too() -> None:
    model = AlignedByteNet((1, 9), 7, **SMALL, separator=-2, end=-1)
    assert (model.config["separator"], model.config["end"], model.config["unfold"]) == (5, 6, [1.2, 0.0])
    assert isinstance(model.network, AlignedByteNetNetwork)
    assert AlignedByteNet(**model.config).config == model.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": 4}, r"separator=4 and end=3 with event_shape=\(1, 9\); strings are \(1, places\)"),
        ({"event_shape": (1, 1)}, r"event_shape=\(1, 1\); a separator and a target take two places"),
        ({"end": -5}, r"end=-5 .* both are levels, 0 to 3, or -1, the last one, to -4"),
        ({"event_shape": (2, 9)}, r"event_shape=\(2, 9\); strings .* Give separator=None and end=None"),
        ({"event_shape": (1, 3, 3)}, r"event_shape=\(1, 3, 3\)"),
        ({"separator": 3}, r"separator=3 is the end as well; give each a level of its own"),
        ({"unfold": (1.2,)}, r"unfold=\(1\.2,\); give a and b of a \|s\| \+ b, two numbers of at least 0"),
        ({"unfold": (-1, 0)}, r"unfold=\(-1, 0\)"),
        ({"unfold": "ab"}, r"unfold='ab'"),
        ({"source_layers": 0}, r"source_layers=0; it must be"),
        ({"block": "gated"}, r"block='gated'; choose"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignedByteNet(
            **{"event_shape": (1, 9), "levels": LEVELS, **SMALL, "separator": SEPARATOR, "end": END, **options}
        )


def test_it_learns_to_copy_and_to_read_a_rule_from_supports() -> None:
    """Some seconds of training: of what an untrained net loses to p(target | source) not half is left, none gained."""
    source, held_out = (transduction(split, rule="substitution", symbols=3, longest=3) for split in ("train", "test"))
    torch.manual_seed(0)
    model = AlignedByteNet(source.event_shape, source.levels, **{**SMALL, "planes": 12}, separator=-2, end=-1)
    settings = {"steps": 100, "tasks": 32, "queries": 2, "shots": (0, 4), "warmup": 5, "optimizer": "muon"}

    def gaps() -> list[float]:
        found = []
        for shots in (0, 4):
            episode = held_out.episode(0, 200, shots, 4)
            given = held_out.given(episode.query)
            densities = (held_out.optimum(episode), model(episode.support))
            best, own = (each.rest_log_prob(episode.query, given).detach() for each in densities)  # type: ignore[attr-defined]
            found.append((best - own).mean().item())
        return found

    before = gaps()
    MetaTrainer(model, source, None, TrainingConfig(**settings, learning_rate=1e-2, average=0.0)).run()  # type: ignore[arg-type]
    after = gaps()
    assert all(-0.01 < now < 0.5 * then for now, then in zip(after, before, strict=True)), (before, after)


def test_a_support_without_a_separator_moves_no_other_task() -> None:
    """Nor does one move by how many columns there are, as attention looks at those without a symbol too."""
    model = AlignedByteNet((1, 9), LEVELS, **SMALL, attention="dot", separator=SEPARATOR, end=END).double().eval()
    randomise(model, 0)
    support = torch.zeros(2, 2, 1, 9, dtype=torch.int64)
    support[..., 3], support[..., 7:] = SEPARATOR, END
    query = support[:1].clone()
    with torch.no_grad():
        before = model(support).log_prob(query)
        support[:, 1] = 0
        after = model(support).log_prob(query)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])

"""Transduction: the optimum is the posterior predictive of the very strings that are drawn."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metadensity import Density, Episode
from metadensity.coding import decode, encode
from metadensity.densities.completion import complete, observe, seeds_of
from metadensity.evaluation.intervals import clustered_mean
from metadensity.testing.checks_density import all_images, goodness_of_fit, table
from tasks import SPLITS, TASKS, TransductionTasks
from tasks.testing import counts_are_refused

RULES = ("copy", "reverse", "shift", "substitution")
TINY: dict[str, Any] = {"symbols": 2, "shortest": 1, "longest": 2}
FALSE_ALARM = 1e-4  # of each chi-square test, if its seed were drawn anew; the seeds are fixed


def make(**options: Any) -> TransductionTasks:
    task = TASKS["transduction"](**options)
    assert isinstance(task, TransductionTasks)
    return task


def hypotheses(rule: str, symbols: int) -> list[tuple[int, ...]]:
    """What may become of each symbol: all tables that a task may draw, equally likely."""
    if rule == "substitution":
        return list(itertools.product(range(symbols), repeat=symbols))
    shifts = range(symbols) if rule == "shift" else [0]
    return [tuple((symbol + by) % symbols for symbol in range(symbols)) for by in shifts]


def by_definition(task: TransductionTasks, tables: list[tuple[int, ...]], string: list[int]) -> np.ndarray:
    """p(string | table), ``(tables,)``, symbol by symbol as the page has it; 0 for what is no pair of strings."""
    recipe = task.transduction
    none = np.zeros(len(tables))
    if recipe.separator not in string or recipe.end not in string:
        return none
    source = string[: string.index(recipe.separator)]
    target = string[len(source) + 1 : string.index(recipe.end)]
    rest = string[string.index(recipe.end) :]
    fits = recipe.shortest <= len(source) <= recipe.longest and len(target) == len(source)
    if not fits or max(source + target) >= recipe.symbols or set(rest) != {recipe.end}:
        return none
    p = np.full(len(tables), recipe.symbols ** -len(source) / (recipe.longest - recipe.shortest + 1))
    read = source[::-1] if recipe.rule == "reverse" else source
    for number, table_ in enumerate(tables):
        for a, b in zip(read, target, strict=True):
            p[number] *= 1 - recipe.noise if table_[a] == b else recipe.noise / (recipe.symbols - 1)
    return p


@pytest.mark.parametrize("noise", [0.2, 0.0])
@pytest.mark.parametrize("rule", RULES)
def test_it_is_bayes_rule_over_all_rules(rule: str, noise: float) -> None:
    """p(query, supports) / p(supports), each a sum over all tables; its sum over all arrays is one."""
    task = make(rule=rule, noise=noise, **TINY)
    tables = hypotheses(rule, 2)
    arrays = all_images(task.event_shape, task.levels)
    for shots in (0, 3):
        episode = task.episode(2, tasks=2, shots=shots, queries=1)
        found = table(task.optimum(episode))
        assert found.logsumexp(0).abs().max() < 1e-12
        for number in range(2):
            belief = np.ones(len(tables))
            for shot in episode.support[:, number, 0].tolist():
                belief = belief * by_definition(task, tables, shot)
            belief /= belief.sum()
            for row, array in enumerate(arrays[:, 0].tolist()):
                expected = float(by_definition(task, tables, array) @ belief)
                assert math.exp(found[row, number]) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("rule", RULES)
def test_its_terms_are_the_conditionals(rule: str) -> None:
    task = make(rule=rule, **TINY)
    density = task.optimum(task.episode(1, tasks=3, shots=2, queries=1))
    log_probs, arrays = table(density), all_images(task.event_shape, task.levels)
    value = task.episode(7, tasks=1, shots=0, queries=1).query[0].expand(3, -1, -1)
    same = [(arrays[:, 0, :n] == value[0, 0, :n]).all(1) for n in range(value.shape[-1] + 1)]
    prefix = torch.stack([log_probs[rows].logsumexp(0) for rows in same])
    terms = density.conditional_log_probs(value)[:, 0].T
    torch.testing.assert_close(terms, prefix.diff(dim=0), rtol=0, atol=1e-12)
    given = task.given(value)
    whole = density.prefix_log_prob(value, given) + density.rest_log_prob(value, given)
    torch.testing.assert_close(whole, density.log_prob(value), rtol=0, atol=1e-12)
    expected = log_probs[same[-1]][0] - prefix[int(given[0])]
    torch.testing.assert_close(density.rest_log_prob(value, given), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_episodes_are_drawn_from_it(rule: str) -> None:
    """Chi-square of second strings given first ones, over 20,000 tasks: as many as the optimum expects of each."""
    task = make(rule=rule, noise=0.3, **TINY)
    counts: dict[tuple[int, ...], int] = {}
    expected: dict[tuple[int, ...], float] = {}
    strings = [array.tolist() for array in all_images(task.event_shape, task.levels)[:, 0]]
    tables = hypotheses(rule, 2)
    joint = {tuple(one): by_definition(task, tables, one) for one in strings}
    possible = {string: p for string, p in joint.items() if p.any()}
    for first, second in itertools.product(possible, repeat=2):
        expected[first + second] = 20_000 * float((possible[first] * possible[second]).mean())
        counts[first + second] = 0
    for index in range(20):
        episode = task.episode(index, tasks=1000, shots=1, queries=1)
        for pair in torch.cat([episode.support[0, :, 0], episode.query[0, :, 0]], 1).tolist():
            counts[tuple(pair)] += 1
    assert goodness_of_fit(np.array([*counts.values()]), np.array([*expected.values()])) > FALSE_ALARM


def test_samples_follow_and_codes_come_back() -> None:
    task = make(rule="shift", noise=0.3, **TINY)
    episode = task.episode(0, tasks=2, shots=1, queries=1)
    density = task.optimum(episode)
    drawn = density.sample((10_000,), torch.Generator().manual_seed(0))
    codes = drawn.flatten(2) @ task.levels ** torch.arange(task.event_shape[-1])
    p = table(density).exp().numpy()
    for number in range(2):
        counts = np.bincount(codes[:, number].numpy(), minlength=len(p))
        assert not counts[p[:, number] == 0].any()
        assert goodness_of_fit(counts, p[:, number] * 10_000) > FALSE_ALARM
    assert torch.equal(decode(task.optimum(episode), encode(density, drawn[:50]), (50,)), drawn[:50])


def test_a_target_is_completed_from_its_source() -> None:
    task = make(rule="reverse", noise=0.0)
    query = task.episode(4, tasks=8, shots=0, queries=3)
    known = observe(query.query, torch.arange(task.event_shape[-1]) < task.given(query.query)[..., None, None])
    drawn = complete(task.optimum(query), seeds_of(0, 3, 8), known)
    assert torch.equal(drawn, query.query.long())


@pytest.mark.parametrize("noise", [0.1, 0.0])
@pytest.mark.parametrize("rule", ["copy", "reverse"])
def test_the_optimum_is_what_one_computes_by_hand(rule: str, noise: float) -> None:
    """ln of the lengths and of the symbols for a source; the entropy of the noise for each symbol of a target."""
    task = make(rule=rule, noise=noise)
    episode = task.episode(0, tasks=4000, shots=0, queries=1)
    density, given = task.optimum(episode), task.given(episode.query)
    length = (given - 1).double()
    source = -density.prefix_log_prob(episode.query, given)
    torch.testing.assert_close(source, math.log(8) + length * math.log(8))
    target = -density.rest_log_prob(episode.query, given)[0].numpy()
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1 / 7) if noise else 0.0
    mean, (low, high) = clustered_mean(target, np.arange(len(target)))
    assert low <= 4.5 * entropy <= high or mean == entropy == 0


def test_supports_tell_the_rule() -> None:
    """Given enough of them a target costs as much as where the rule is known: of shifts soon, of tables later."""
    known = make(rule="copy").optimum(make(rule="copy").episode(0, 1, 0, 1))
    assert known.evidence.shape == (1, 1, 1)
    nats = {}
    for rule in ("shift", "substitution"):
        task = make(rule=rule)
        full = task.episode(0, tasks=500, shots=64, queries=2)
        for shots in (0, 1, 8, 64):
            density = task.optimum(full.with_shots(shots))
            nats[rule, shots] = -float(density.rest_log_prob(full.query, task.given(full.query)).mean())
    entropy = 4.5 * (-0.9 * math.log(0.9) - 0.1 * math.log(0.1 / 7))
    for rule in ("shift", "substitution"):
        assert nats[rule, 0] > nats[rule, 1] > nats[rule, 8] > nats[rule, 64] - 0.05
        assert nats[rule, 64] == pytest.approx(entropy, abs=0.2)
    assert nats["shift", 8] < nats["substitution", 8] - 0.1


def test_episodes_are_a_pure_function_of_seed_split_and_index() -> None:
    task, state = make(seed=3, rule="shift"), torch.get_rng_state()
    full = task.episode(7, tasks=6, shots=5, queries=3)
    assert (full.support.shape, full.query.shape, full.query.dtype) == ((5, 6, 1, 18), (3, 6, 1, 18), torch.uint8)
    assert torch.equal(state, torch.get_rng_state())
    for shots, tasks in ((0, 6), (2, 6), (5, 1), (3, 4)):
        part = make(seed=3, rule="shift").episode(7, tasks=tasks, shots=shots, queries=3)
        assert torch.equal(part.query, full.query[:, :tasks])
        assert torch.equal(part.support, full.support[:shots, :tasks])
        for name in ("support_ids", "query_ids", "query_lengths"):
            mine, whole = getattr(part, name), getattr(full, name)
            assert torch.equal(mine, whole[: len(mine), :tasks])
    for other in (make(seed=4, rule="shift"), make(seed=3, rule="shift", split="test")):
        assert not torch.equal(other.episode(7, 6, 5, 3).query, full.query)
    assert not torch.equal(task.episode(8, 6, 5, 3).query, full.query)


@pytest.mark.parametrize("rule", RULES)
def test_strings_are_source_separator_target_end(rule: str) -> None:
    task = make(rule=rule, noise=0.0, shortest=2, longest=5, symbols=7)
    episode = task.episode(0, tasks=50, shots=3, queries=2)
    assert episode.query_lengths is not None
    assert episode.support_lengths is None, "strings end by themselves"
    found: set[int] = set()
    for number in range(50):
        tables = {}
        for string in [*episode.query[:, number, 0].tolist(), *episode.support[:, number, 0].tolist()]:
            source, target = string[: string.index(7)], string[string.index(7) + 1 : string.index(8)]
            found.add(len(source))
            assert len(source) == len(target)
            assert set(string[string.index(8) :]) == {8}
            for a, b in zip(source[::-1] if rule == "reverse" else source, target, strict=True):
                assert tables.setdefault(a, b) == b, "one rule for all strings of a task"
        if rule == "shift":
            assert len({(b - a) % 7 for a, b in tables.items()}) == 1
        elif rule != "substitution":
            assert all(a == b for a, b in tables.items())
        for query, length in zip(episode.query[:, number, 0].tolist(), episode.query_lengths[:, number], strict=True):
            assert query.index(8) + 1 == int(length)
    assert found == {2, 3, 4, 5}


def test_it_is_what_it_says() -> None:
    task = make(split="validation+train")
    assert isinstance(task.optimum(task.episode(0, 1, 1, 1)), Density)
    assert (task.name, task.split, task.event_shape, task.levels) == ("transduction", "train+validation", (1, 18), 10)
    assert (task.separator, task.end) == (8, 9)
    assert json.loads(json.dumps(task.recipe)) == task.recipe
    assert len({make(split=split).fingerprint for split in SPLITS}) == 1
    for options in ({"rule": "reverse"}, {"symbols": 5}, {"shortest": 2}, {"longest": 9}, {"noise": 0.2}):
        assert make(**options).fingerprint != task.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "rotate"}, r"rule='rotate'; give one of copy, reverse, shift, substitution"),
        ({"symbols": 1}, r"symbols=1; give at least 2"),
        ({"symbols": 255}, r"symbols=255; with a separator and an end there are 256 levels, so give at most 254"),
        ({"shortest": 0}, r"shortest=0; give at least 1"),
        ({"shortest": 4, "longest": 3}, r"longest=3; give at least 4"),
        ({"noise": 1.0}, r"noise=1\.0; give the probability of another symbol in the target, from 0 to below 1"),
        ({"noise": math.nan}, r"noise=nan"),
        ({"seed": -1}, r"seed=-1; give an integer from 0"),
        ({"split": "dev"}, r"split='dev' is not a split of transduction"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_bad_calls_are_named() -> None:
    task = make()
    counts_are_refused(lambda split: task)
    episode = task.episode(0, 1, 1, 1)
    with pytest.raises(ValueError, match=r"support has shape \(3, 2, 1, 8\); transduction takes \(shots, tasks, 1, 18"):
        task.optimum(make(longest=3).episode(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"support holds symbols from \d+ to 36; transduction has 0 to 9"):
        task.optimum(Episode(episode.support * 4, episode.query))


def test_strings_that_are_none_have_no_probability_and_are_no_evidence() -> None:
    """Whatever stands in an array, probabilities are numbers; what no rule could have made is -inf."""
    task = make(rule="shift", noise=0.0, **TINY)
    arrays = all_images(task.event_shape, task.levels).unsqueeze(1)
    support = arrays[:: len(arrays) // 40].to(torch.uint8)
    density = task.optimum(Episode(support, support[:1]))
    found: Tensor = density.conditional_log_probs(arrays)
    assert not found.isnan().any()
    assert density.log_prob(arrays).logsumexp(0).abs().max() < 1e-12

"""Chains: the optimum is the posterior predictive of the very sequences that are drawn."""

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
from metadensity.coding import MOST_CONSTANT_BITS, decode, encode
from metadensity.evaluation.intervals import clustered_mean
from metadensity.testing.checks_density import all_images, goodness_of_fit, table
from tasks import SPLITS, TASKS, ChainTasks, TaskDistribution
from tasks.testing import counts_are_refused

# Of each chi-square test, if its seed were drawn anew; the seeds are fixed.
FALSE_ALARM = 1e-4


def make(**options: Any) -> ChainTasks:
    task = TASKS["chains"](**options)
    assert isinstance(task, ChainTasks)
    return task


def likelihood(rows: Tensor, x: Tensor) -> Tensor:
    """p(x | chain), ``(chains,)``, of one sequence ``(T,)`` under chains ``(chains, levels + 1, levels)``."""
    before = [rows.shape[1] - 1, *x[:-1].tolist()]
    return torch.stack([rows[:, b, s] for b, s in zip(before, x.tolist(), strict=True)]).prod(0)


@pytest.mark.parametrize("shots", [0, 1, 4])
@pytest.mark.parametrize("options", [{"length": 6, "levels": 2}, {"length": 4, "levels": 4, "concentration": 0.1}])
def test_it_sums_to_one_and_its_terms_are_the_conditionals(options: dict[str, Any], shots: int) -> None:
    task = make(**options)
    density = task.optimum(task.episode(1, tasks=3, shots=shots, queries=1))
    log_probs = table(density)
    assert log_probs.logsumexp(0).abs().max() < 1e-12
    images = all_images(task.event_shape, task.levels)
    flat, value = images.flatten(1), images[11].expand(3, *task.event_shape)
    prefix = [
        log_probs[(flat[:, :length] == flat[11, :length]).all(1)].logsumexp(0) for length in range(flat.shape[1] + 1)
    ]
    expected = torch.stack(prefix).diff(dim=0).mT.view(value.shape)
    torch.testing.assert_close(density.conditional_log_probs(value), expected, rtol=0, atol=1e-12)
    for length in range(flat.shape[1] + 1):
        found = density.prefix_log_prob(value, torch.full((3,), length))
        torch.testing.assert_close(found, prefix[length], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shots", [0, 2])
def test_it_is_the_mean_over_chains_of_the_prior(shots: int) -> None:
    """p(query, support) / p(support), each a mean over 200,000 Dirichlet draws of torch's; 5 standard errors."""
    task = make(length=5, levels=3, concentration=0.7)
    episode = task.episode(3, tasks=1, shots=shots, queries=4)
    torch.manual_seed(0)
    rows = torch.distributions.Dirichlet(torch.full((4, 3), 0.7, dtype=torch.float64)).sample((200_000,))
    given = torch.ones(len(rows), dtype=torch.float64)
    for shot in episode.support:
        given = given * likelihood(rows, shot[0, 0].long())
    found = task.optimum(episode).log_prob(episode.query)[:, 0].exp()
    for query, exact in zip(episode.query, found, strict=True):
        p = likelihood(rows, query[0, 0].long())
        estimate = (p * given).mean() / given.mean()
        error = ((p - estimate) * given).std() / given.mean() / len(rows) ** 0.5
        assert error < 0.05 * estimate, "the estimate tells nothing"
        assert (exact - estimate).abs() < 5 * error
    # Negative control: another prior is told apart by the same estimate.
    other = make(length=5, levels=3, concentration=2.0).optimum(episode).log_prob(episode.query)[:, 0].exp()
    assert (other / found).log().abs().max() > 0.1


def test_no_shots_is_the_prior() -> None:
    """The closed form by hand: levels of an urn with half a ball of each of four."""
    task = make(length=3)
    density = task.optimum(task.episode(0, tasks=1, shots=0, queries=1))
    value = torch.tensor([2, 2, 2]).view(1, 1, 3)
    expected = math.log((0.5 / 2) * (0.5 / 2) * (1.5 / 3))  # first; after a 2; after a 2 again
    assert density.log_prob(value).item() == pytest.approx(expected, rel=1e-12)
    counted = task.optimum(Episode(value.expand(2, 1, 1, 3), value.unsqueeze(0))).log_prob(value).item()
    assert counted == pytest.approx(math.log((2.5 / 4) * (4.5 / 6) * (5.5 / 7)), rel=1e-12)


@pytest.mark.parametrize("shots", [0, 1])
def test_samples_follow_the_density(shots: int) -> None:
    task = make(length=4, levels=3)
    density = task.optimum(task.episode(0, tasks=2, shots=shots, queries=1))
    draws = density.sample((20_000,), torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, 2, 1, 4)
    codes = (draws.flatten(2) @ 3 ** torch.arange(4)).T.numpy()
    probabilities = table(density).exp().numpy()
    for number in range(2):
        counts = np.bincount(codes[number], minlength=81)
        assert goodness_of_fit(counts, probabilities[:, number] * 20_000) > FALSE_ALARM


def test_episodes_follow_the_optimum() -> None:
    """Support and query are jointly distributed as p(support) p(query | support): all 256 pairs of binary fours."""
    task = make(length=4, levels=2)
    drawn = task.episode(0, tasks=20_000, shots=1, queries=1)
    weights = 2 ** torch.arange(4)
    codes = (torch.cat([drawn.support, drawn.query]).flatten(2).long() @ weights).numpy()
    images = all_images(task.event_shape, 2)
    first = table(task.optimum(Episode(images[:0, None], images[:1, None])))  # (16, 1)
    then = table(task.optimum(Episode(images[None], images[None])))  # (query, support)
    expected = (first.mT + then).exp().numpy() * 20_000
    counts = np.zeros((16, 16))
    np.add.at(counts, (codes[1], codes[0]), 1)
    assert goodness_of_fit(counts.ravel(), expected.ravel()) > FALSE_ALARM
    unrelated = (first + first.mT).exp().numpy() * 20_000  # negative control: the support's information left out
    assert goodness_of_fit(counts.ravel(), unrelated.ravel()) < FALSE_ALARM


def test_rows_are_what_sequences_are_drawn_from() -> None:
    task = make(length=200, levels=3, concentration=1.0)
    rows = torch.from_numpy(task.rows(5, tasks=4))
    torch.testing.assert_close(rows.sum(-1), torch.ones(4, 4, dtype=torch.float64))
    counts = task.counts(task.episode(5, tasks=4, shots=100, queries=1).support)
    total = counts.sum(-1, keepdim=True)
    error = (rows * (1 - rows) / total).sqrt()
    assert ((counts / total - rows).abs() < 5 * error + 1e-9).all()
    assert not np.array_equal(task.rows(5, 1), task.rows(6, 1))


def test_more_shots_are_better_and_no_other_prior_is() -> None:
    task = make(split="test")
    episode = task.episode(0, tasks=2000, shots=8, queries=1)
    scores = [task.optimum(episode.with_shots(shots)).log_prob(episode.query)[0] for shots in (0, 1, 2, 4, 8)]
    pairs = [(more, fewer) for fewer, more in itertools.pairwise(scores)]
    others = [make(concentration=other).optimum(episode.with_shots(1)).log_prob(episode.query)[0] for other in (0.3, 1)]
    for better, worse in [*pairs, *((scores[1], other) for other in others)]:
        assert clustered_mean((better - worse).numpy(), np.arange(2000))[1][0] > 0


def test_sequences_are_coded_by_it() -> None:
    task = make()
    episode = task.episode(0, tasks=3, shots=2, queries=5)
    density = task.optimum(episode)
    code = encode(density, episode.query)
    assert torch.equal(decode(density, code, (5,)), episode.query.long())
    excess = 8 * len(code) + float(density.log_prob(episode.query).sum()) / math.log(2)
    assert 0 < excess < MOST_CONSTANT_BITS + 1


def test_long_sequences_go_in_parts() -> None:
    task = make(length=600, levels=2)
    episode = task.episode(0, tasks=10, shots=1, queries=3)  # 30 sequences, 11 at a time
    density = task.optimum(episode)
    for number in (0, 9):
        alone = episode.take_tasks(slice(number, number + 1))
        expected = task.optimum(alone).log_prob(alone.query)[:, 0]
        torch.testing.assert_close(density.log_prob(episode.query)[:, number], expected, rtol=1e-12, atol=1e-9)
    assert density.log_prob(episode.query[:0]).shape == (0, 10)


def test_episodes_are_a_pure_function_of_seed_split_and_index() -> None:
    task, state = make(seed=3), torch.get_rng_state()
    full = task.episode(7, tasks=6, shots=5, queries=3)
    assert (full.support.shape, full.query.shape, full.query.dtype) == ((5, 6, 1, 32), (3, 6, 1, 32), torch.uint8)
    assert torch.equal(state, torch.get_rng_state())
    for shots, tasks in ((0, 6), (2, 6), (5, 1), (3, 4)):
        part = make(seed=3).episode(7, tasks=tasks, shots=shots, queries=3)
        assert torch.equal(part.query, full.query[:, :tasks])
        assert torch.equal(part.support, full.support[:shots, :tasks])
        assert part.support_ids is not None
        assert full.support_ids is not None
        assert torch.equal(part.support_ids, full.support_ids[:shots, :tasks])
    for other in (make(seed=4), make(seed=3, split="test"), make(seed=3, split="train+test")):
        assert not torch.equal(other.episode(7, 6, 5, 3).query, full.query)
    assert not torch.equal(task.episode(8, 6, 5, 3).query, full.query)


def test_it_is_what_it_says() -> None:
    task = make(split="validation+train")
    assert isinstance(task, TaskDistribution)
    assert isinstance(task.optimum(task.episode(0, 1, 1, 1)), Density)
    assert (task.name, task.split, task.event_shape, task.levels) == ("chains", "train+validation", (1, 32), 4)
    assert json.loads(json.dumps(task.recipe)) == task.recipe
    assert len({make(split=split).fingerprint for split in SPLITS}) == 1
    for options in ({"length": 33}, {"levels": 5}, {"concentration": 0.6}):
        assert make(**options).fingerprint != task.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, r"length=0; give at least 1"),
        ({"levels": 1}, r"levels=1; give at least 2"),
        ({"levels": 300}, r"levels=300; pixels are held as 8-bit integers"),
        ({"concentration": 0.01}, r"concentration=0.01; give that of the Dirichlet prior, from 0.05 to 100"),
        ({"concentration": math.nan}, r"concentration=nan"),
        ({"seed": -1}, r"seed=-1; give an integer from 0"),
        ({"split": "dev"}, r"split='dev' is not a split of chains"),
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
    with pytest.raises(ValueError, match=r"support has shape \(3, 2, 1, 9\); chains takes \(shots, tasks, 1, 32\)"):
        task.optimum(make(length=9).episode(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"support holds symbols from 0 to 12; chains has 0 to 3"):
        task.optimum(Episode(episode.support * 4, episode.query))
    with pytest.raises(ValueError, match="looks at no supports"):
        task.optimum(episode).attention_weights(episode.query)

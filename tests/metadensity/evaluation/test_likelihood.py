"""Few-shot likelihoods: means and intervals by hand, nothing disturbed, nothing hidden in the batching."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t

from metadensity import Density, Episode, Evaluation, evaluate
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.likelihood import evaluating, score
from metadensity.models import IndependentPixels, NGram, SupportMean
from tests.metadensity.toys import Patterns, small_network


def interval_by_loop(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Cameron and Miller's formula with plain loops."""
    mean, names = sum(values) / len(values), sorted(set(clusters))
    squares = sum(sum(v - mean for v, c in zip(values, clusters, strict=True) if c == name) ** 2 for name in names)
    error = math.sqrt(len(names) / (len(names) - 1) * squares) / len(values)
    half = student_t.ppf(0.975, len(names) - 1) * error
    return mean - half, mean + half


def test_clustered_mean_by_hand() -> None:
    values, clusters = np.array([1.0, 3.0, 8.0, 4.0]), np.array([7, 7, 2, 5])
    # Mean 4. Residuals -3, -1, 4, 0: cluster sums -4, 4, 0. Error sqrt(3 / 2 * 32) / 4 = sqrt(3); t(2) = 4.302653.
    mean, (low, high) = clustered_mean(values, clusters)
    assert mean == 4
    assert low == pytest.approx(4 - 4.302653 * math.sqrt(3), abs=1e-5)
    assert high == pytest.approx(4 + 4.302653 * math.sqrt(3), abs=1e-5)


def test_clustered_mean_equals_the_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        values, clusters = generator.normal(size=30), generator.integers(4, size=30)
        np.testing.assert_allclose(clustered_mean(values, clusters)[1], interval_by_loop(values, clusters), rtol=1e-10)


def test_one_value_a_cluster_is_the_usual_interval() -> None:
    values = np.random.default_rng(0).normal(size=25)
    half = student_t.ppf(0.975, 24) * values.std(ddof=1) / 5
    np.testing.assert_allclose(clustered_mean(values, np.arange(25))[1], (values.mean() - half, values.mean() + half))


def test_one_cluster_has_no_interval() -> None:
    assert clustered_mean(np.array([1.0, 2.0, 6.0]), np.zeros(3, np.int64)) == (3.0, (-math.inf, math.inf))


@pytest.mark.parametrize(("unequal", "allowed"), [(False, (0.935, 0.965)), (True, (0.92, 0.96))])
def test_intervals_cover_what_they_say(unequal: bool, allowed: tuple[float, float]) -> None:
    """True mean 0, 20 clusters whose values share half of their variance. 4,000 data sets: 3 standard errors are 0.01.

    With clusters of one size Student's quantile is exact; with sizes from 1 to 20 a little is lost.
    An interval that takes the values for independent covers far less: the control.
    """
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), np.arange(1, 21) if unequal else 10)
    covered, naive = 0, 0
    for _ in range(4000):
        values = generator.normal(size=20)[clusters] + generator.normal(size=len(clusters))
        low, high = clustered_mean(values, clusters)[1]
        covered += low < 0 < high
        low, high = clustered_mean(values, np.arange(len(clusters)))[1]
        naive += low < 0 < high
    assert allowed[0] < covered / 4000 < allowed[1]
    assert naive / 4000 < 0.75


def nested(tasks: int, batches: int, shots: tuple[int, ...] = (0, 1, 4)) -> Iterator[Episode]:
    """The same 24 tasks however they are batched, with nested supports."""
    whole = Patterns().episode(0, tasks=24, shots=max(shots), queries=3)
    assert tasks * batches == whole.tasks
    for s in shots:
        for start in range(0, whole.tasks, tasks):
            yield part_of(whole, slice(start, start + tasks)).with_shots(s)


def part_of(whole: Episode, part: slice) -> Episode:
    """Some of the tasks."""
    assert whole.class_ids is not None
    assert whole.group_ids is not None
    assert whole.support_ids is not None
    assert whole.query_ids is not None
    of_tasks = whole.class_ids[part], whole.group_ids[part]
    return Episode(
        whole.support[:, part], whole.query[:, part], *of_tasks, whole.support_ids[:, part], whole.query_ids[:, part]
    )


def test_rows_say_what_the_scores_are() -> None:
    result = evaluate(small_network(), nested(8, 3))
    assert [row.shots for row in result.rows] == [0, 1, 4]
    for row in result.rows:
        scores = result.scores[row.shots]
        assert row is result.row(row.shots)
        assert row.images == len(scores.nats) == 24 * 3
        assert row.classes == len(set(scores.class_ids)) <= 12
        assert row.nats_per_image == pytest.approx(scores.nats.mean())
        assert row.nats_per_dim == pytest.approx(scores.nats.mean() / 16)
        assert row.bits_per_dim == pytest.approx(scores.nats.mean() / 16 / math.log(2))
        assert row.interval == pytest.approx(interval_by_loop(scores.nats, scores.class_ids))
        assert list(scores.group_ids) == list(scores.class_ids // 3)
        assert sorted(scores.query_ids) == list(range(24 * 3))
        assert row.groups == len(set(scores.group_ids)) == 4
        assert row.group_interval == pytest.approx(interval_by_loop(scores.nats, scores.group_ids))
    with pytest.raises(KeyError, match=r"shots=2 was not evaluated; there are \[0, 1, 4\]"):
        result.row(2)


def test_scores_are_those_of_the_model() -> None:
    model, episode = small_network().eval(), Patterns().episode(5, tasks=6, shots=2, queries=3)
    with torch.no_grad():
        expected = -model(episode.support).log_prob(episode.query).double().T.flatten()  # by task, then by query
    assert evaluate(model, [episode]).scores[2].nats.tolist() == expected.tolist()


def test_more_shots_are_better_where_they_say_something() -> None:
    rows = evaluate(SupportMean((1, 4, 4), 2), nested(8, 3)).rows
    assert rows[0].nats_per_dim == pytest.approx(math.log(2))
    assert rows[0].nats_per_dim > rows[1].nats_per_dim > rows[2].nats_per_dim
    assert rows[0].nats_per_image > rows[2].interval[1]
    assert rows[0].interval == (-math.inf, math.inf), "every image costs 16 log(2), which tells nothing of others"


def test_batch_size_does_not_matter() -> None:
    results = [evaluate(small_network(), nested(tasks, 24 // tasks)) for tasks in (1, 8, 24)]
    for other in results[1:]:
        for a, b in zip(results[0].rows, other.rows, strict=True):
            assert a.nats_per_image == pytest.approx(b.nats_per_image, abs=1e-6)
            assert a.interval == pytest.approx(b.interval, abs=1e-6)
        for shots, scores in results[0].scores.items():
            assert np.array_equal(scores.query_ids, other.scores[shots].query_ids), "the order depends on the batches"
            assert np.array_equal(scores.class_ids, other.scores[shots].class_ids)
            np.testing.assert_allclose(scores.nats, other.scores[shots].nats, rtol=0, atol=1e-5)


def test_tasks_of_unknown_class_are_their_own_clusters() -> None:
    def anonymous(tasks: int) -> Iterator[Episode]:
        return (Episode(episode.support, episode.query) for episode in nested(tasks, 24 // tasks))

    one, other = (evaluate(small_network(), anonymous(tasks), duplicates="allow") for tasks in (8, 1))
    for row in one.rows:
        assert (row.classes, row.groups, row.group_interval) == (24, 0, None)
    assert set(one.scores[0].query_ids) == {-1}
    assert one.by_group() == []
    assert one.rows[1].interval == pytest.approx(other.rows[1].interval, abs=1e-6)


def test_groups_have_rows_of_their_own() -> None:
    result = evaluate(small_network(), nested(8, 3))
    rows = result.by_group()
    assert [(row.group, row.shots) for row in rows] == [(g, s) for g in range(4) for s in (0, 1, 4)]
    for row in rows:
        scores = result.scores[row.shots]
        inside = scores.group_ids == row.group
        assert row.nats_per_image == pytest.approx(scores.nats[inside].mean())
        assert (row.images, row.classes) == (inside.sum(), len(set(scores.class_ids[inside])))
        by_loop = interval_by_loop(scores.nats[inside], scores.class_ids[inside]) if row.classes > 1 else None
        assert row.interval == (pytest.approx(by_loop) if by_loop else (-math.inf, math.inf))
    assert {row.classes for row in rows} == {1, 3}
    assert sum(row.images for row in rows if row.shots == 4) == result.row(4).images


def test_with_five_groups_the_interval_over_groups_covers() -> None:
    """5 alphabets of 20 characters, half of the variance the alphabet's. Over characters it covers far less: a control.

    4,000 data sets: 3 standard errors are 0.01.
    """
    generator = np.random.default_rng(0)
    groups, classes = np.repeat(np.arange(5), 40), np.repeat(np.arange(100), 2)
    covered, by_class = 0, 0
    for _ in range(4000):
        values = generator.normal(size=5)[groups] + generator.normal(size=100)[classes] + generator.normal(size=200)
        low, high = clustered_mean(values, groups)[1]
        covered += low < 0 < high
        low, high = clustered_mean(values, classes)[1]
        by_class += low < 0 < high
    assert 0.935 < covered / 4000 < 0.965
    assert by_class / 4000 < 0.60


def test_the_cost_is_stated() -> None:
    result = evaluate(small_network(), nested(8, 3))
    cost = result.cost
    assert cost is not None
    assert cost.parameters == sum(p.numel() for p in small_network().parameters())
    assert cost.images == 3 * 24 * 3
    assert cost.seconds > 0
    assert cost.images_per_second == pytest.approx(cost.images / cost.seconds)
    assert 50 * 2**20 < cost.peak_memory < 2**40  # bytes: torch alone takes more than 50 MiB
    assert (cost.device, cost.threads) == ("cpu", torch.get_num_threads())


def test_any_function_of_episodes_can_be_scored() -> None:
    model = small_network().eval()
    with torch.no_grad():
        result = score(lambda episode: model(episode.support).log_prob(episode.query), nested(8, 3))
    assert result.rows == evaluate(model, nested(8, 3)).rows
    assert result.cost is None


def test_nothing_is_disturbed() -> None:
    model = small_network()
    state, weights = torch.get_rng_state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        evaluate(model, nested(8, 3))
        assert model.training is training
        assert all(module.training is training for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_after_an_error_and_one_by_one() -> None:
    model = small_network()
    model.network.layers[0].eval()  # a frozen part
    before = [module.training for module in model.modules()]

    def failing() -> Iterator[Episode]:
        yield from nested(24, 1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(model, failing())
    assert [module.training for module in model.modules()] == before
    with evaluating(model):
        assert not any(module.training for module in model.modules())


def test_bfloat16_is_close() -> None:
    rows, rough = (
        evaluate(small_network(), nested(8, 3)).rows,
        evaluate(small_network(), nested(8, 3), precision="bfloat16").rows,
    )
    assert [row.nats_per_dim for row in rough] == pytest.approx([row.nats_per_dim for row in rows], abs=5e-3)
    assert [row.nats_per_dim for row in rough] != [row.nats_per_dim for row in rows], "autocast did nothing"


def test_an_episode_in_no_list() -> None:
    with pytest.raises(TypeError, match=r"give a list of them: evaluate\(model, \[episode\]\)"):
        evaluate(small_network(), Patterns().episode(0, tasks=2, shots=1, queries=1))  # type: ignore[arg-type]


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ValueError, match=r"nothing to evaluate.*at least one Episode"):
        evaluate(small_network(), [])
    empty = Patterns().episode(0, tasks=2, shots=1, queries=0)
    with pytest.raises(ValueError, match=r"nothing to evaluate.*at least one Episode"):
        evaluate(small_network(), [empty])


def test_a_likelihood_that_is_no_number_stops_it() -> None:
    class Broken(IndependentPixels):
        def condition(self, support: torch.Tensor) -> Density:
            self.logits.data.fill_(math.nan)
            return super().condition(support)

    with pytest.raises(ValueError, match=r"log p .*nan.*shots=0"):
        evaluate(Broken((1, 4, 4), 2), nested(8, 3))


def test_precision_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"precision='half'.*'float32', 'bfloat16'"):
        evaluate(small_network(), nested(8, 3), precision="half")


def test_result_prints_its_rows_alone() -> None:
    result = evaluate(small_network(), nested(8, 3))
    assert isinstance(result, Evaluation)
    assert "Row(shots=0" in repr(result)
    assert "Scores" not in repr(result)


def test_places_that_are_given_are_known_and_not_scored() -> None:
    """The terms of the other places, each given all that stands before it, and a mean over these places alone."""
    model = NGram((1, 6), 3, order=2)
    support, query = (torch.randint(3, (n, 4, 1, 6), generator=torch.Generator().manual_seed(n)) for n in (2, 5))
    lengths = torch.tensor([6, 5, 4, 6]).expand(5, 4)
    for episode in (Episode(support, query), Episode(support, query, query_lengths=lengths)):
        found = evaluate(model, [episode], given=3)
        with torch.no_grad():
            terms = model(support).conditional_log_probs(query)[:, :, 0]
        ends = torch.full((5, 4), 6) if episode.query_lengths is None else lengths
        scored = torch.arange(6).expand(5, 4, 6)
        terms = torch.where((scored >= 3) & (scored < ends.unsqueeze(-1)), terms, 0.0)
        np.testing.assert_allclose(found.scores[2].nats, -terms.sum(-1).T.flatten(), rtol=1e-5)
        places = (ends - 3).sum()
        assert found.row(2).nats_per_dim == pytest.approx(float(-terms.sum() / places), rel=1e-5)
    with pytest.raises(ValueError, match="given=4, but a query has no place after as many"):
        evaluate(model, [Episode(support, query, query_lengths=lengths)], given=4)

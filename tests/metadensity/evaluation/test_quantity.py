"""Numbers say what they are: bounds are marked and do not depend on batches; sequences are scored by real places."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.recording.score_files import load_scores, save_scores
from experiments.reporting.tables import difference_record, likelihood_rows, marked, records
from metadensity import Episode, Evaluation, evaluate, paired_difference, support_use
from metadensity.evaluation.classification import class_log_probs
from metadensity.evaluation.leaks import SupportLeakError, guard_support
from metadensity.evaluation.nway import NWayEpisodes
from metadensity.models import UnconditionalPixelCNN
from metadensity.testing.subjects import randomise
from tasks.data.cache import read_arrays, write_arrays
from tests.contracts.latent import LatentMixture, LatentModel
from tests.metadensity.toys import Patterns

EVENT = (1, 3, 3)
SOURCE = Patterns(EVENT, noise=0.3)


def bound(samples: int = 4) -> LatentModel:
    model = LatentModel(EVENT, 2, samples)
    randomise(model, seed=0)
    return model


def exact() -> LatentMixture:
    """The truth of ``bound``."""
    model = LatentMixture(EVENT, 2)
    model.load_state_dict({name: bound().state_dict()[name] for name in model.state_dict()})
    return model


def batches(size: int) -> list[Episode]:
    whole = SOURCE.episode(0, tasks=6, shots=2, queries=3)
    parts = [whole.take_tasks(slice(start, start + size)) for start in range(0, 6, size)]
    return [part.with_shots(shots) for shots in (0, 2) for part in parts]


def test_a_bound_is_a_function_of_its_seed_however_tasks_are_batched() -> None:
    model = bound()
    state = torch.get_rng_state()
    found = {size: evaluate(model, batches(size)) for size in (1, 2, 4, 6)}
    assert torch.equal(state, torch.get_rng_state())
    for result in found.values():
        for shots in (0, 2):
            assert np.array_equal(result.scores[shots].nats, found[6].scores[shots].nats)
    again, other = evaluate(bound(), batches(3)), evaluate(bound(), batches(3), seed=1)
    assert again.rows == found[6].rows
    assert (other.scores[2].nats != again.scores[2].nats).mean() > 0.5


def test_bounds_are_marked_and_exact_numbers_say_so() -> None:
    rough, truth = evaluate(bound(), batches(3)), evaluate(exact(), batches(3))
    assert {row.quantity for row in rough.rows} == {"bound with 4 samples"} == {rough.scores[2].quantity}
    assert {row.quantity for row in truth.rows} == {"exact"} == {truth.scores[2].quantity}
    assert evaluate(bound(1), batches(3)).rows[0].quantity == "bound with 1 sample"
    both = paired_difference(truth.scores[2], rough.scores[2])
    assert both.quantity == "bound with 4 samples minus exact"
    gaps = [evaluate(bound(), batches(6), seed=seed).scores[2].nats - truth.scores[2].nats for seed in range(40)]
    assert np.mean(gaps) > 4 * np.std(np.mean(gaps, 1)) / 40**0.5  # nats of a bound are more than those of the truth
    assert paired_difference(truth.scores[2], truth.scores[2]).quantity == "exact"
    assert paired_difference(rough.scores[2], rough.scores[2]).quantity == (
        "bound with 4 samples minus bound with 4 samples"
    )
    assert difference_record(both)["quantity"] == both.quantity
    assert [record["quantity"] for record in records({"a": truth, "b": rough})] == ["exact"] * 2 + [
        "bound with 4 samples"
    ] * 2
    assert marked("b", rough.scores) == "b, bound with 4 samples"
    assert marked("a", truth.scores) == "a"
    assert likelihood_rows(truth, {"b": rough})[0][-1] == "b, bound with 4 samples"
    assert rough.scores[2].select(np.arange(18) < 4).quantity == "bound with 4 samples"


def test_the_use_of_the_support_is_found_with_a_bound() -> None:
    use = support_use(bound(), [episode for episode in batches(3) if episode.shots])
    assert {control.difference.quantity for control in use.controls.values()} == {
        "bound with 4 samples minus bound with 4 samples"
    }


def test_a_bound_makes_no_posterior() -> None:
    whole = SOURCE.episode(0, tasks=2, shots=1, queries=1)
    episodes = NWayEpisodes(whole.support.transpose(0, 1)[None], whole.query[0][None], torch.tensor([[0, 1]]))
    assert class_log_probs(exact(), episodes).shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"LatentModel gives a bound with 4 samples: .* makes no posterior"):
        class_log_probs(bound(), episodes)


def test_score_files_keep_the_quantity_and_old_ones_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    results = {"a": evaluate(exact(), batches(3)), "b": evaluate(bound(), batches(3))}
    save_scores(path, results, {"units": "nats/image"})
    loaded, _ = load_scores(path)
    assert {name: {part.quantity for part in scores.values()} for name, scores in loaded.items()} == {
        "a": {"exact"},
        "b": {"bound with 4 samples"},
    }
    assert np.array_equal(loaded["b"][2].nats, results["b"].scores[2].nats)
    arrays, head = read_arrays(path)
    del head["quantities"]
    write_arrays(
        tmp_path / "old.npz", arrays, {key: head[key] for key in ("kind", "version", "models", "identity")}, True
    )
    old, _ = load_scores(tmp_path / "old.npz")
    assert {part.quantity for scores in old.values() for part in scores.values()} == {"exact"}


def sequences(padding: int = 0) -> list[Episode]:
    whole = Patterns((1, 8)).episode(0, tasks=4, shots=0, queries=3)
    lengths = torch.tensor([[1, 8, 3, 5], [2, 2, 7, 8], [4, 6, 1, 3]])
    real = torch.arange(8) < lengths[:, :, None, None]
    return [replace(whole, query=torch.where(real, whole.query, padding).to(torch.uint8), query_lengths=lengths)]


def network() -> UnconditionalPixelCNN:
    torch.manual_seed(0)
    return UnconditionalPixelCNN((1, 8), 2, layers=2, planes=4, penultimate=4)


def test_sequences_are_scored_by_their_real_places() -> None:
    """nats/dim is the sum of nats over the sum of lengths; padding moves nothing, were it no level."""
    model = network()
    results = [evaluate(model, sequences(padding)) for padding in (0, 1, 99)]
    (row,), (episode,) = results[0].rows, sequences()
    density = model(episode.support)
    each = [
        -density.conditional_log_probs(episode.query)[q, t, 0, : int(episode.query_lengths[q, t])].sum().item()  # type: ignore[index]
        for t in range(4)
        for q in range(3)
    ]
    np.testing.assert_allclose(results[0].scores[0].nats, each, rtol=1e-5)
    assert row.nats_per_dim == pytest.approx(sum(each) / 50, rel=1e-5)
    assert row.bits_per_dim == pytest.approx(sum(each) / 50 / math.log(2), rel=1e-5)
    assert row.nats_per_image == pytest.approx(sum(each) / 12, rel=1e-5)
    assert all(result.rows == results[0].rows for result in results)
    whole: Evaluation = evaluate(model, [replace(episode, query_lengths=None)])
    assert whole.rows[0].nats_per_image > row.nats_per_image


def test_a_sequence_in_its_own_support_is_found_whatever_its_padding() -> None:
    (episode,) = sequences()
    assert episode.query_lengths is not None
    support = episode.query[:1].clone()
    support[0, 0, 0, 1:] = 1
    episode = replace(episode, support_ids=None, query_ids=None)
    leaky = replace(episode, support=support, support_lengths=episode.query_lengths[:1])
    with pytest.raises(SupportLeakError, match=r"in task 0 .*query 0 and support 0"):
        guard_support(leaky)
    shorter = replace(leaky, support_lengths=torch.zeros(1, 4).long())
    assert not guard_support(shorter, "allow").any()

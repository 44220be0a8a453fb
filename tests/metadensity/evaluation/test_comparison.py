"""Paired differences: by hand, at their nominal rate, finding more than unpaired ones, refused where meaningless."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metadensity.evaluation.comparison import IncomparableError, paired_difference, require_comparable
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.scores import Scores


def scores(nats: Any, clusters: Any, groups: Any = None) -> Scores:
    values = np.asarray(nats, dtype=np.float64)
    places = np.asarray(clusters, dtype=np.int64)
    owners = np.full(len(values), -1) if groups is None else np.asarray(groups)
    return Scores(values, places, owners, np.arange(len(values)))


def test_by_hand() -> None:
    reference = scores([10, 20, 30, 40], [7, 7, 2, 5], [0, 0, 1, 1])
    other = replace(reference, nats=reference.nats + np.array([1.0, 3.0, 8.0, 4.0]))
    # As in the test of clustered_mean: mean 4, error sqrt(3), t(2) = 4.302653. By group: sums of residuals -4 and 4.
    found = paired_difference(reference, other)
    assert found.mean == 4
    assert found.interval == pytest.approx((4 - 4.302653 * math.sqrt(3), 4 + 4.302653 * math.sqrt(3)), abs=1e-5)
    error = math.sqrt(2 * 32) / 4
    assert found.group_interval == pytest.approx((4 - 12.7062 * error, 4 + 12.7062 * error), abs=1e-3)
    assert (found.images, found.classes, found.groups) == (4, 3, 2)
    assert found.includes_zero
    assert not found.identical
    assert paired_difference(other, reference).mean == -4


def test_the_same_scores_differ_by_exactly_nothing() -> None:
    found = paired_difference(scores([1, 2, 3], [0, 1, 2]), scores([1, 2, 3], [0, 1, 2]))
    assert (found.mean, found.interval, found.identical, found.includes_zero) == (0, (0, 0), True, True)
    assert found.group_interval is None


def test_false_alarms_come_as_often_as_they_say_and_pairing_finds_more() -> None:
    """40 classes of 4 queries; difficulty shared by both models, and a difference that varies by class. 2,000 sets.

    No difference: 5 % alarms, 3 standard errors are 0.015. A difference of half of its standard deviation between
    classes: found in pairs nearly always, and hardly ever by two intervals that do not overlap, the control.
    """
    generator, clusters = np.random.default_rng(0), np.repeat(np.arange(40), 4)
    alarms, found, overlooked = 0, 0, 0
    for _ in range(2000):
        hard = 10 * generator.normal(size=40)[clusters] + generator.normal(size=160)
        noise = generator.normal(size=40)[clusters] + generator.normal(size=160)
        reference, other = scores(hard, clusters), scores(hard + noise, clusters)
        alarms += not paired_difference(reference, other).includes_zero
        better = replace(other, nats=other.nats - 0.7)
        found += paired_difference(reference, better).interval[1] < 0
        overlooked += clustered_mean(better.nats, clusters)[1][1] > clustered_mean(hard, clusters)[1][0]
    assert 0.035 < alarms / 2000 < 0.065
    assert found / 2000 > 0.9
    assert overlooked / 2000 > 0.99


def test_other_queries_cannot_be_paired() -> None:
    one = scores([1, 2, 3], [0, 0, 1])
    with pytest.raises(IncomparableError, match=r"One result holds 3 queries, the other 2.*one episode set"):
        paired_difference(one, scores([1, 2], [0, 1]))
    with pytest.raises(IncomparableError, match=r"The query ids differ from query number 1 on \(1 and 9\)"):
        paired_difference(one, replace(one, query_ids=np.array([0, 9, 2])))
    with pytest.raises(IncomparableError, match=r"The class ids differ from query number 2 on \(1 and 0\)"):
        paired_difference(one, replace(one, class_ids=np.array([0, 0, 0])))
    with pytest.raises(IncomparableError, match=r"1 of 3 queries have no finite difference"):
        paired_difference(one, replace(one, nats=np.array([1, np.inf, 3])))


RECORD: dict[str, Any] = {
    "units": "nats/image",
    "split": "test",
    "pixels": {"levels": 2, "recipe": {"size": 26, "shrink": "maxpool"}, "fingerprint": "f" * 64},
    "episodes_sha256": "e" * 64,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**RECORD, **changes}


def test_what_is_not_the_same_quantity_is_refused_with_the_reason() -> None:
    pixels = {"levels": 2, "recipe": {"size": 26, "shrink": "nearest"}, "fingerprint": "a" * 64}
    cases = {
        r"A and B cannot be compared: their units differ \('nats/image' and 'bits/dim'\).*convert": {
            "units": "bits/dim"
        },
        r"their split differ \('test' and 'train'\).*the same split": {"split": "train"},
        r"their pixels differ \(fingerprint: .*; recipe: shrink: 'maxpool' and 'nearest'\).*same task": {
            "pixels": pixels
        },
        r"their episodes_sha256 differ \(eeeeeeeeeeeeeeee... and dddd.*experiments.episodes": {
            "episodes_sha256": "d" * 64
        },
        r"their episodes_sha256 differ \(.* and None\)": {"episodes_sha256": None},
    }
    for said, changes in cases.items():
        with pytest.raises(IncomparableError, match=said):
            require_comparable(RECORD, changed(**changes), ("A", "B"))
    with pytest.raises(IncomparableError, match=r"neither says its units"):
        require_comparable(changed(units=None), changed(units=None), ("A", "B"))


def test_the_same_quantity_passes() -> None:
    require_comparable(RECORD, changed(), ("A", "B"))
    # Drawn by another release of the same library, to the same pixels.
    require_comparable(RECORD, changed(pixels={**RECORD["pixels"], "recipe": {"size": 26, "pillow": "2"}}), ("A", "B"))
    unnamed = {"levels": 2, "recipe": {"size": 26}}
    with pytest.raises(IncomparableError, match=r"recipe: size: 26 and 28"):
        require_comparable(changed(pixels=unnamed), changed(pixels={**unnamed, "recipe": {"size": 28}}), ("A", "B"))

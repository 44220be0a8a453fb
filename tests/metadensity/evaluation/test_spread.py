"""The spread over splits, against known answers and in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.spread import difference, spread


def test_the_spread_of_three_splits_by_hand() -> None:
    # t(0.975; 2) = 4.302653, t(0.975; 4) = 2.776445
    found = spread([1.0, 2.0, 6.0], [(0.0, 2.0), (1.0, 3.0), (4.0, 8.0)], [5, 5, 5])
    assert (found.splits, found.mean) == (3, 3.0)
    assert found.between == pytest.approx(math.sqrt(7))
    assert found.interval == pytest.approx((3 - 4.302653 * math.sqrt(7 / 3), 3 + 4.302653 * math.sqrt(7 / 3)), rel=1e-6)
    assert found.within == pytest.approx(math.sqrt((1 + 1 + 4) / 3) / 2.776445, rel=1e-6)
    assert found.half_width == pytest.approx(4 / 3)
    assert found.ratio == pytest.approx(math.sqrt(7) / (math.sqrt(2) / 2.776445), rel=1e-6)


def test_one_split_has_no_spread_and_one_class_no_interval() -> None:
    one = spread([1.0], [(0.0, 2.0)], [5])
    assert (one.between, one.interval, one.ratio) == (None, None, None)
    assert one.within is not None
    unknown = spread([1.0, 2.0], [(0.0, 2.0), (-math.inf, math.inf)], [5, 1])
    assert (unknown.within, unknown.half_width, unknown.ratio) == (None, None, None)
    assert unknown.between == pytest.approx(math.sqrt(0.5))
    assert difference(one, unknown) == (0.5, None)
    with pytest.raises(ValueError, match=r"0 values, 0 intervals"):
        spread([], [], [])
    with pytest.raises(ValueError, match=r"2 values, 1 intervals"):
        spread([1.0, 2.0], [(0.0, 1.0)], [2, 2])


def test_welch_by_scipy() -> None:
    from scipy.stats import ttest_ind

    one, other = [1.0, 2.0, 6.0, 3.0], [2.0, 2.5, 4.0]
    nothing = [(0.0, 1.0)] * 4
    mean, interval = difference(spread(one, nothing, [3] * 4), spread(other, nothing[:3], [3] * 3))
    expected = ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(other) - np.mean(one))
    assert interval == pytest.approx((expected.low, expected.high))
    same = spread([1.0, 1.0], nothing[:2], [3, 3])
    assert difference(same, same) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("group_effect", [0.0, 2.0])
def test_the_intervals_cover_and_the_ratio_tells_whether_splits_matter(group_effect: float) -> None:
    """1,000 studies of 4 splits, each of 30 classes with sd 3; the splits' own effect has sd ``group_effect``.

    The interval over splits covers at 95 % in both cases (binomial, five standard errors: false alarm below 1e-6); that
    of one split covers the mean over all splits only where splits have no effect of their own.
    """
    random = np.random.default_rng(0)
    studies, splits, classes = 1000, 4, 30
    covered = alone = 0
    ratios = []
    for _ in range(studies):
        effects = group_effect * random.standard_normal(splits)
        data = effects[:, None] + 3 * random.standard_normal((splits, classes))
        scored = [clustered_mean(row, np.arange(classes)) for row in data]
        found = spread([mean for mean, _ in scored], [ends for _, ends in scored], [classes] * splits)
        assert found.interval is not None
        assert found.ratio is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        alone += scored[0][1][0] <= 0 <= scored[0][1][1]
        ratios.append(found.ratio**2)
    slack = 5 * math.sqrt(0.95 * 0.05 / studies)
    assert abs(covered / studies - 0.95) < slack
    if group_effect:
        assert alone / studies < 0.5, "one split's interval says nothing of others"
        assert np.mean(ratios) == pytest.approx(1 + group_effect**2 / (9 / classes), rel=0.1)
    else:
        assert abs(alone / studies - 0.95) < slack
        assert np.mean(ratios) == pytest.approx(1, rel=0.1)

"""Intervals of means whose values depend on one another, and of bounded values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def count_groups(groups: NDArray[np.int64]) -> int:
    """How many groups there are; 0 where the group of any image is unknown."""
    return 0 if (groups < 0).any() else len(np.unique(groups))


Floats = NDArray[np.float64]
NOWHERE = (-math.inf, math.inf)
ROUNDING = 1e-6  # relative, of log-probabilities in float32


def clustered_mean(
    values: Floats, clusters: NDArray[np.int64], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Mean and its cluster-robust interval: values of one cluster may depend on each other in any way.

    clusters: ``(n,)``, or ``(n, k)`` where each value belongs to k clusters at once, see ``_jackknife``.

    The variance is G / (G - 1) * sum_g (sum of the residuals of cluster g)^2 / n^2 over G clusters, the quantile
    Student's with G - 1 degrees of freedom (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust
    Inference", section II). One cluster has no interval: it is infinite. Nor has a mean that is infinite, nor one of
    clusters that all have the same: that a few are equal does not tell how far others lie.
    """
    mean = float(values.mean())
    if not math.isfinite(mean):
        return mean, NOWHERE
    rounding = ROUNDING * float(np.abs(values).max())
    if clusters.ndim == 2:
        spread = np.abs(values - mean).max() > rounding
        return mean, _jackknife(values - mean, clusters, level, mean) if spread else NOWHERE
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    if count < 2 or (np.abs(sums) <= rounding * np.bincount(index)).all():
        return mean, NOWHERE
    error = math.sqrt(count / (count - 1) * float(np.square(sums).sum())) / len(values)
    return mean, _around(mean, error, count - 1, level)


def _jackknife(residuals: Floats, clusters: NDArray[np.int64], level: float, mean: float) -> tuple[float, float]:
    """The interval of a mean of values that belong to several clusters each: a query, and the supports it was given.

    What a few images give, drawn anew and anew, does not become surer than the images are. The variance is that of the
    jackknife that leaves out one cluster at a time with all values it has part in, (G - 1) / G * sum_g (change of the
    mean)^2, which is not too small on average (Efron and Stein 1981, "The jackknife estimate of variance"), less what
    it counts several times: the square of a value in each of its clusters. It is at least that of independent values.
    Student's quantile with G / k - 1 degrees of freedom, as so many sets of clusters stand for themselves. Infinite
    where a cluster has part in all values.
    """
    rows = np.sort(clusters, axis=1)
    first = np.concatenate([np.ones((len(rows), 1), bool), rows[:, 1:] != rows[:, :-1]], axis=1)  # named twice: once
    _, index = np.unique(rows[first], return_inverse=True)
    sums = np.bincount(index, weights=np.repeat(residuals, first.sum(1)))
    rest, count = len(rows) - np.bincount(index), len(sums)
    if not rest.all():
        return NOWHERE
    squares = np.square(residuals / len(rows))
    variance = (count - 1) / count * float(np.square(sums / rest).sum()) - float(((first.sum(1) - 1) * squares).sum())
    degrees = max(1, count // clusters.shape[1] - 1)
    return _around(mean, math.sqrt(max(variance, float(squares.sum()))), degrees, level)


def _around(mean: float, error: float, degrees: int, level: float) -> tuple[float, float]:
    half = students_quantile(degrees, level) * error
    return mean - half, mean + half


def bounded_mean(values: Floats, clusters: NDArray[np.int64], level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """``clustered_mean`` of values in [0, 1], with an interval within [0, 1] that never shrinks to a point.

    Where all of G clusters have the same value c the usual interval has no width. Where c had a probability below
    q = (1 - level)**(1 / G), all G would have it with a probability below 1 - level; so it has at least q, and the mean
    is between q c, as the rest may be 0, and q c + 1 - q, as it may be 1. It costs nothing to assume and holds for any
    distribution. Of values in k clusters each, G / k stand for themselves.
    """
    mean, (low, high) = clustered_mean(values, clusters, level)
    apart = len(np.unique(clusters)) // (clusters.shape[1] if clusters.ndim == 2 else 1)
    least = (1 - level) ** (1 / max(1, apart))
    if np.ptp(values) <= ROUNDING:
        return mean, (least * mean, least * mean + 1 - least)
    return mean, (max(low, 0.0), min(high, 1.0))


def students_quantile(degrees: float, level: float) -> float:
    """How many standard errors there are on either side of a mean, so that Student's distribution has ``level``."""
    from scipy.special import stdtrit  # takes half a second to import, scipy.stats another

    return float(stdtrit(degrees, (1 + level) / 2))

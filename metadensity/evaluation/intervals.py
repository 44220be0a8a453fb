"""Intervals of means whose values depend on one another, and of bounded values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # Student's quantile, without the second that scipy.stats takes to import


def count_groups(groups: NDArray[np.int64]) -> int:
    """How many groups there are; 0 where the group of any image is unknown."""
    return 0 if (groups < 0).any() else len(np.unique(groups))


def clustered_mean(
    values: NDArray[np.float64], clusters: NDArray[np.int64], level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Mean and its cluster-robust interval: values of one cluster may depend on each other in any way.

    The variance is G / (G - 1) * sum_g (sum of the residuals of cluster g)^2 / n^2 over G clusters, the quantile
    Student's with G - 1 degrees of freedom (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust
    Inference", section II). One cluster has no interval: it is infinite.
    """
    mean = float(values.mean())
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    if count < 2:
        return mean, (-math.inf, math.inf)
    error = math.sqrt(count / (count - 1) * float(np.square(sums).sum())) / len(values)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return mean, (mean - half, mean + half)


Floats = NDArray[np.float64]


def bounded_mean(values: Floats, clusters: NDArray[np.int64], level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """``clustered_mean`` of values in [0, 1], with an interval within [0, 1] that never shrinks to a point at its ends.

    Where all of G clusters are perfect the usual interval has no width. A mean m in [0, 1] is reached perfectly with
    probability at most m (Markov), so all G are with at most m**G, and m >= (1 - level)**(1 / G) is what remains at
    ``level``; likewise where all are 0. It costs nothing to assume and holds for any distribution within clusters.
    """
    mean, (low, high) = clustered_mean(values, clusters, level)
    least = (1 - level) ** (1 / len(np.unique(clusters)))
    if (values == 1).all():
        return mean, (least, 1.0)
    if (values == 0).all():
        return mean, (0.0, 1 - least)
    return mean, (max(low, 0.0), min(high, 1.0))

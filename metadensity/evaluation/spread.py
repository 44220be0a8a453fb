"""How much results differ between splits, beside how sure each is within its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metadensity.evaluation.intervals import students_quantile

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """One quantity on several splits. All of it in the quantity's own unit.

    mean: over the splits. between: standard deviation between the splits (divisor k - 1), None for a single split, and
    where a value is infinite. interval: 95 % for the mean over all splits that could have been drawn, Student's with
    k - 1 degrees of freedom; None where between is, and where all splits have the same value. within: the standard
    error that the classes of one split give its number (root mean square over the splits); None where one split has no
    interval. half_width: mean half width of those intervals.
    """

    splits: int
    mean: float
    between: float | None
    interval: tuple[float, float] | None
    within: float | None
    half_width: float | None

    @property
    def ratio(self) -> float | None:
        """between / within: about 1 where drawing other classes explains what splits differ in, more where not."""
        return self.between / self.within if self.between is not None and self.within else None


def spread(values: Sequence[float], intervals: Sequence[tuple[float, float]], classes: Sequence[int]) -> Spread:
    """The spread of ``values``, one a split, whose 95 % intervals are over ``classes`` classes each.

    Raises ValueError where there is no value, or the three are not of one length.
    """
    if not values or not len(values) == len(intervals) == len(classes):
        raise ValueError(
            f"{len(values)} values, {len(intervals)} intervals and {len(classes)} numbers of classes; give one of each "
            "for every split, and at least one split."
        )
    array = np.asarray(values, dtype=float)
    halves = [(high - low) / 2 for low, high in intervals]
    known = all(map(math.isfinite, halves))
    pairs = zip(halves, classes, strict=True)
    errors = [half / students_quantile(count - 1, LEVEL) for half, count in pairs] if known else []
    between = float(array.std(ddof=1)) if len(array) > 1 and np.isfinite(array).all() else None
    half = students_quantile(len(array) - 1, LEVEL) * between / math.sqrt(len(array)) if between else None
    mean = float(array.mean())
    return Spread(
        splits=len(array),
        mean=mean,
        between=between,
        interval=None if half is None else (mean - half, mean + half),
        within=math.sqrt(float(np.mean(np.square(errors)))) if known else None,
        half_width=float(np.mean(halves)) if known else None,
    )


def difference(reference: Spread, other: Spread) -> tuple[float, tuple[float, float] | None]:
    """Mean of ``other`` minus that of ``reference``, splits drawn independently, with its 95 % interval.

    Welch's interval with Satterthwaite's degrees of freedom (Welch 1947, "The generalization of Student's problem when
    several different population variances are involved"); None where one of the two is a single split, or has an
    infinite value; the mean is not a number where both do.
    """
    mean = other.mean - reference.mean
    if reference.between is None or other.between is None:
        return mean, None
    spreads = ((reference.between, reference.splits), (other.between, other.splits))
    parts = [(between**2 / splits, splits - 1) for between, splits in spreads]
    variance = sum(part for part, _ in parts)
    if not variance:
        return mean, (mean, mean)
    degrees = variance**2 / sum(part**2 / degree for part, degree in parts)
    half = students_quantile(degrees, LEVEL) * math.sqrt(variance)
    return mean, (mean - half, mean + half)

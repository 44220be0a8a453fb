"""Paired comparisons: differences on the same queries, and refusals where numbers do not mean the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metadensity.density import EXACT
from metadensity.evaluation.intervals import clustered_mean, count_groups
from metadensity.evaluation.scores import Scores


class IncomparableError(ValueError):
    """Two results that do not measure the same thing."""


@dataclass(frozen=True)
class Difference:
    """Mean of (other - reference) over the same queries in nats/image: below 0 where the other is the better one.

    interval: 95 %, clustered by class. group_interval: clustered by group, None where there are fewer than two.
    identical: whether every single difference is exactly 0; the interval is then (0, 0). What differs by the same
        amount everywhere, and what is of one cluster, has an infinite one.
    quantity: "exact", or what was subtracted from what where a bound takes part: the difference then ranks nothing by
        itself, as a bound is off by an unknown amount.
    """

    mean: float
    interval: tuple[float, float]
    images: int
    classes: int
    groups: int
    group_interval: tuple[float, float] | None
    identical: bool
    quantity: str = EXACT

    @property
    def includes_zero(self) -> bool:
        """Whether the 95 % interval over classes leaves open that there is no difference."""
        low, high = self.interval
        return low <= 0 <= high


def paired_difference(reference: Scores, other: Scores) -> Difference:
    """The difference query by query, which is free of how hard the queries are.

    Where there is none, the interval leaves out 0 in 5 % of the cases (with about 20 classes or more, of similar
    size; in up to 8 % where their sizes are very unequal). Raises IncomparableError where the queries differ.
    """
    require_same_queries(reference, other)
    with np.errstate(invalid="ignore"):  # of two likelihoods that are 0
        values = other.nats - reference.nats
    if bool((~np.isfinite(values)).any()):
        raise IncomparableError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} queries have no finite difference, as a likelihood "
            f"is 0 there ({int(np.isinf(reference.nats).sum())} times the reference's, "
            f"{int(np.isinf(other.nats).sum())} times the other's). Compare models that give every image a positive "
            "probability."
        )
    mean, interval = clustered_mean(values, reference.class_ids)
    identical = not values.any()
    groups = count_groups(reference.group_ids)
    exact = reference.quantity == other.quantity == EXACT
    return Difference(
        mean=mean,
        interval=(0.0, 0.0) if identical else interval,
        images=len(values),
        classes=len(np.unique(reference.class_ids)),
        groups=groups,
        group_interval=clustered_mean(values, reference.group_ids)[1] if groups > 1 else None,
        identical=identical,
        quantity=EXACT if exact else f"{other.quantity} minus {reference.quantity}",
    )


def finite_difference(reference: Scores, other: Scores) -> Difference | None:
    """``paired_difference``, or None where an image has probability 0 under one of the two, so that there is none."""
    finite = np.isfinite(reference.nats).all() and np.isfinite(other.nats).all()
    return paired_difference(reference, other) if finite else None


def differences_by_group(reference: Scores, other: Scores) -> dict[int, Difference]:
    """``paired_difference`` within each group, by its id; groups of unknown id (-1) are left out."""
    require_same_queries(reference, other)
    found = {}
    for group in sorted(set(reference.group_ids.tolist()) - {-1}):
        inside = reference.group_ids == group
        found[group] = paired_difference(reference.select(inside), other.select(inside))
    return found


def require_same_queries(reference: Scores, other: Scores) -> None:
    """Raise IncomparableError unless both hold the scores of the same queries in the same order."""
    if len(reference.nats) != len(other.nats):
        raise IncomparableError(
            f"One result holds {len(reference.nats)} queries, the other {len(other.nats)}, so they cannot be paired. "
            "Score both on one episode set, with the same setting for duplicates."
        )
    for name in ("query", "class", "group"):
        one, two = getattr(reference, f"{name}_ids"), getattr(other, f"{name}_ids")
        if not np.array_equal(one, two):
            first = int((one != two).argmax())
            raise IncomparableError(
                f"The {name} ids differ from query number {first} on ({one[first]} and {two[first]}), so the scores "
                "cannot be paired. Score both on one episode set."
            )


def require_comparable(reference: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Raise IncomparableError, saying why, unless two records of results are about the same quantity.

    A record holds "units", "split", "pixels" (event shape, levels, recipe and fingerprint) and "episodes_sha256".
    Pixels of one fingerprint are the same whatever their recipes say; where they are not, the recipes say why.
    names: what the two are called in the message.
    """
    remedies = {
        "units": "The same model has other numbers in other units; convert one of them.",
        "split": "Evaluate both on the same split.",
        "pixels": "A likelihood is of pixels: how images are shrunk, binarised or quantised moves it by more than "
        "models differ. Train and evaluate both on the same task settings.",
        "episodes_sha256": "Other queries, or other supports for them, are another test. Write one set with `python "
        "-m experiments.episodes` and evaluate both with episodes=PATH.",
    }
    for key, remedy in remedies.items():
        one, two = reference.get(key), other.get(key)
        if one is None and two is None:
            raise IncomparableError(
                f"{names[0]} and {names[1]} cannot be compared: neither says its {key}. Evaluate both again."
            )
        if one != two and not (key == "pixels" and _same_fingerprint(one, two)):
            raise IncomparableError(
                f"{names[0]} and {names[1]} cannot be compared: their {key} differ ({_shown(one, two)}). {remedy}"
            )


def _same_fingerprint(one: Any, two: Any) -> bool:
    both = [pixels.get("fingerprint") for pixels in (one, two) if isinstance(pixels, Mapping)]
    return len(both) == 2 and both[0] is not None and both[0] == both[1]


def _shown(one: Any, two: Any) -> str:
    """Both values; of two mappings only what differs."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
        return "; ".join(f"{key}: {_shown(one.get(key), two.get(key))}" for key in keys)
    return " and ".join(value[:16] + "..." if _is_hash(value) else repr(value) for value in (one, two))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64

"""Does a model use its support? Its likelihood with the true one, against supports that tell nothing, or lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from metadensity.checks import real_places
from metadensity.episode import Episode
from metadensity.evaluation.comparison import Difference, paired_difference
from metadensity.evaluation.likelihood import evaluate
from metadensity.evaluation.scores import Evaluation, Scores
from metadensity.model import FewShotModel
from metadensity.progress import with_progress

CONTROLS = ("empty", "another class", "noise")


@dataclass(frozen=True)
class Control:
    """The likelihood given another support. difference: to the true one, above 0 where the true one is better."""

    nats_per_image: float
    difference: Difference


@dataclass(frozen=True)
class SupportUse:
    """nats_per_image: given the true support of ``shots`` images. controls: by name, those of ``CONTROLS`` there are.

    uses_support: whether the true support is better than one of another class, 95 % interval above 0; a model that
    does not tell classes apart is taken for one that does in 2.5 % of the cases. The empty support does not decide,
    as a model may learn from the mere number of supports, nor does noise, which may confuse one that reads nothing of
    a class. None where there was no other class.
    costs_more_than_none: whether the true support is surely worse than none, by the same interval.
    impossible: queries of probability 0 under the true support or a control, which leave no difference to tell from.
    """

    shots: int
    nats_per_image: float
    controls: dict[str, Control]
    impossible: int = 0

    @property
    def uses_support(self) -> bool | None:
        """See the class."""
        control = self.controls.get("another class")
        return None if control is None else control.difference.interval[0] > 0

    @property
    def costs_more_than_none(self) -> bool:
        """See the class."""
        control = self.controls.get("empty")
        return control is not None and control.difference.interval[1] < 0

    @property
    def verdict(self) -> str:
        """One sentence, in nats/image."""
        return self.said("nats/image")

    def said(self, unit: str) -> str:
        """The verdict of events that are called otherwise: ``unit`` is "nats/string", say."""
        if not self.costs_more_than_none:
            return self._use(unit)
        cost = f"is worse with its support than with none (by {_size(self.controls['empty'].difference, unit, -1)})"
        return f"{self._use(unit)}, and {cost}" if self._misled else f"{cost}, and {self._use(unit)}"

    @property
    def _misled(self) -> bool:
        control = self.controls.get("another class")
        return control is not None and control.difference.interval[1] < 0

    def _use(self, unit: str) -> str:
        if self.impossible:
            return (
                f"cannot be said to use the support: {self.impossible} queries have probability 0 with one support or "
                "another"
            )
        if all(control.difference.identical for control in self.controls.values()):
            return "does not use the support: every likelihood is the same to the last bit whatever the support"
        if self.uses_support is None:
            return "cannot be said to use the support: all tasks are of one class, so no support of another was at hand"
        difference = self.controls["another class"].difference
        size = _size(difference, unit)
        if difference.interval[0] > 0:
            return f"uses the support: one of another class costs {size}"
        if self._misled:
            return f"is misled by the support: one of another class is better ({size})"
        return f"does not use the support: one of another class makes no sure difference ({size})"


def _size(difference: Difference, unit: str, sign: int = 1) -> str:
    low, high = sorted(sign * bound for bound in difference.interval)
    if not math.isfinite(low) or not math.isfinite(high):
        return f"{sign * difference.mean:+.3g} {unit}, without an interval"
    return f"{sign * difference.mean:+.3g} {unit}, 95 % interval {low:.3g} to {high:.3g}"


def cost_of_supports(scores: Mapping[int, Scores]) -> dict[int, Difference]:
    """At which numbers of shots supports make a model worse than none: the paired differences to 0 shots, above 0.

    scores: by number of shots, of the same queries; without 0 shots nothing is found, nor where queries were left out
    or have probability 0. Of a model that is as good with supports as without, each number of shots is found in 2.5 %
    of the cases.
    """
    none = scores.get(0)
    if none is None:
        return {}
    found = {}
    for shots, part in scores.items():
        if shots and len(part.nats) == len(none.nats) and np.isfinite([part.nats, none.nats]).all():
            difference = paired_difference(none, part)
            if difference.interval[0] > 0 and math.isfinite(difference.interval[0]):
                found[shots] = difference
    return found


def supports_cost(costs: Mapping[int, Difference], unit: str = "nats/image") -> str:
    """What ``cost_of_supports`` found, in words. unit: of the differences, such as nats/string."""
    shots = max(costs)
    counts = ", ".join(map(str, costs))
    return f"supports make it worse than none at {counts} shots, at {shots} by {_size(costs[shots], unit)}"


def support_use(
    model: FewShotModel,
    episodes: Iterable[Episode],
    precision: str = "float32",
    duplicates: str = "trust_ids",
    scored: Evaluation | None = None,
    seed: int = 0,
    progress: bool = False,
) -> SupportUse:
    """Score the queries given the true supports and given each control's, in pairs.

    episodes: all with one number of shots, at least 1. They are gone through once for each control, so give a list,
        or anything else that makes a new iterator each time.
    scored: an evaluation of the same episodes, whose scores are taken, where it has them, rather than made anew.
    seed: of the noise, and of what a bound draws. progress: show a bar.

    Raises TypeError for an iterator, ValueError for episodes of no or several numbers of shots, and as ``evaluate``.
    """
    _require_repeatable(episodes)
    known = dict(scored.scores) if scored is not None and duplicates != "drop" else {}
    if duplicates == "drop":  # here all queries count, so that the pairs are complete
        duplicates = "allow"
    shots = {episode.shots for episode in episodes}
    if len(shots) != 1 or 0 in shots:
        raise ValueError(f"The episodes hold {sorted(shots)} shots; give episodes of one number of shots, at least 1.")
    (count,) = shots
    total = len(episodes) if isinstance(episodes, Sized) else None

    def scores(parts: Iterable[Episode], support: str, duplicates: str) -> Scores:
        stream = with_progress(parts, f"with {support} support", "batches", progress, total)
        return next(iter(evaluate(model, stream, precision, duplicates, seed).scores.values()))

    true = known.get(count) or scores(episodes, "the true", duplicates)
    controls, impossible = {}, int(np.isinf(true.nats).sum())
    for name in CONTROLS:
        if name == "empty" and 0 in known:
            other = known[0]
        elif name == "another class" and not _several_classes(episodes):
            continue
        else:
            other = scores(with_control(episodes, name, seed), f"{name} as", "allow")
        if bad := int((np.isinf(true.nats) | np.isinf(other.nats)).sum()):
            impossible = max(impossible, bad)
        else:
            controls[name] = Control(float(other.nats.mean()), paired_difference(true, other))
    return SupportUse(count, float(true.nats.mean()), controls, impossible)


def with_control(episodes: Iterable[Episode], control: str, seed: int = 0) -> Iterator[Episode]:
    """The same queries with other supports. Which ones does not depend on how the tasks are batched.

    "empty": none. "another class": those of the nearest task before of another class (for the first tasks, of the
    first such after them). "noise": the true ones with their places shuffled, each image on its own and all channels
    of a place together, so that the amount of ink stays. ``episodes`` is gone through more than once.

    Raises ValueError for a name that is not in ``CONTROLS``, TypeError for an iterator.
    """
    _require_repeatable(episodes)
    if control == "empty":
        return (episode.with_shots(0) for episode in episodes)
    if control == "another class":
        return _others(episodes)
    if control == "noise":
        return _noise(episodes, seed)
    raise ValueError(f"control={control!r}; choose one of {', '.join(map(repr, CONTROLS))}.")


def _require_repeatable(episodes: Iterable[Episode]) -> None:
    if iter(episodes) is episodes:
        raise TypeError("episodes is an iterator, which can be gone through only once; give a list of episodes.")


def _noise(episodes: Iterable[Episode], seed: int) -> Iterator[Episode]:
    position = 0
    for episode in episodes:
        flat = episode.support.flatten(3)  # (S, tasks, C, places)
        keys = [_keys(seed, position + task, len(flat), flat.shape[-1]) for task in range(episode.tasks)]
        position += episode.tasks
        key = torch.from_numpy(np.stack(keys, axis=1)).to(flat.device)
        if episode.support_lengths is not None:  # real places are shuffled among themselves
            key = key + (~real_places(episode.support_lengths, flat.shape[-1])).to(key)
        order = key.argsort(-1)
        shuffled = flat.gather(-1, order.unsqueeze(2).expand_as(flat)).view_as(episode.support)
        yield replace(episode, support=shuffled, support_ids=None)


def _keys(seed: int, task: int, shots: int, places: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) by which the places of each support are put in order."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, task], dtype=np.uint64)))
    return random.random((shots, places))


def _others(episodes: Iterable[Episode]) -> Iterator[Episode]:
    """``episodes`` is gone through twice. Raises ValueError where all tasks are of one class."""
    first, support = next(_tasks(episodes))
    other = next((task for task in _tasks(episodes) if task[0] != first), None)
    if other is None:
        raise ValueError("All tasks are of one class, so there is no support of another class.")
    last, before = (first, support), other  # the latest task, and the latest of another class than that one
    tasks = _tasks(episodes)
    for episode in episodes:
        supports = []
        for number, support in islice(tasks, episode.tasks):
            if number != last[0]:
                before = last
            last = (number, support)
            supports.append(before[1])
        lengths = [part.support_lengths for part in supports if part.support_lengths is not None]
        yield replace(
            episode,
            support=torch.cat([part.support for part in supports], dim=1),
            support_ids=None,
            support_lengths=torch.cat(lengths, dim=1) if lengths else None,
        )


def _tasks(episodes: Iterable[Episode]) -> Iterator[tuple[int, Episode]]:
    """The class and the episode of each task alone; tasks of unknown class are taken for one class each."""
    seen = 0
    for episode in episodes:
        ids = range(seen, seen + episode.tasks) if episode.class_ids is None else episode.class_ids.tolist()
        for task, number in enumerate(ids):
            yield number, episode.take_tasks(slice(task, task + 1))
        seen += episode.tasks


def _several_classes(episodes: Iterable[Episode]) -> bool:
    numbers = (number for number, _ in _tasks(episodes))
    first = next(numbers)
    return any(number != first for number in numbers)

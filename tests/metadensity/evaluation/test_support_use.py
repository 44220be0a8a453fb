"""Does a model use its support: those that do, those that do not, and those that only seem to."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from metadensity import Density, Episode, evaluate
from metadensity.densities.independent import IndependentDensity
from metadensity.evaluation.scores import Scores
from metadensity.evaluation.support_use import CONTROLS, cost_of_supports, support_use, supports_cost, with_control
from metadensity.models import IndependentPixels, SupportMean, UnconditionalPixelCNN
from tests.metadensity.toys import Patterns, small_network


def episodes(tasks: int = 6, batches: int = 4, shots: int = 4, seed: int = 0) -> list[Episode]:
    """24 tasks, the same however they are batched."""
    ones = [Patterns(seed=seed).episode(index, tasks=1, shots=shots, queries=3) for index in range(tasks * batches)]
    return [joined(ones[start : start + tasks]) for start in range(0, len(ones), tasks)]


def joined(parts: list[Episode]) -> Episode:
    return Episode(
        torch.cat([part.support for part in parts], 1),
        torch.cat([part.query for part in parts], 1),
        torch.cat([part.class_ids for part in parts if part.class_ids is not None]),
        torch.cat([part.group_ids for part in parts if part.group_ids is not None]),
        torch.cat([part.support_ids for part in parts if part.support_ids is not None], 1),
        torch.cat([part.query_ids for part in parts if part.query_ids is not None], 1),
    )


class CountsSupports(IndependentPixels):
    """Reads how many supports there are and not what they are."""

    def condition(self, support: torch.Tensor) -> Density:
        logits = torch.stack([torch.zeros(self.event_shape), torch.full(self.event_shape, -0.1 * len(support))])
        return IndependentDensity(logits.expand(support.shape[1], *logits.shape))


class Contrary(SupportMean):
    """Takes ink of the support for paper: uses it, to its harm."""

    def condition(self, support: torch.Tensor) -> Density:
        return super().condition(1 - support)


def test_a_model_that_uses_it_is_found() -> None:
    use = support_use(SupportMean((1, 4, 4), 2), episodes())
    assert use.uses_support
    assert use.shots == 4
    assert set(use.controls) == set(CONTROLS)
    for control in use.controls.values():
        assert control.difference.interval[0] > 0
        assert control.nats_per_image - use.nats_per_image == pytest.approx(control.difference.mean)
        assert (control.difference.images, control.difference.classes) == (72, len({*class_of_tasks()}))
    assert use.verdict.startswith("uses the support: one of another class costs +")


def class_of_tasks() -> list[int]:
    return [int(number) for part in episodes() if part.class_ids is not None for number in part.class_ids]


def test_a_model_that_ignores_it_is_found_to_the_last_bit() -> None:
    torch.manual_seed(0)
    for model in (
        UnconditionalPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4),
        IndependentPixels((1, 4, 4), 2),
    ):
        use = support_use(model, episodes())
        assert use.uses_support is False
        assert use.verdict.startswith("does not use the support: every likelihood is the same to the last bit")
        for control in use.controls.values():
            assert (control.difference.mean, control.difference.interval) == (0, (0, 0))
            assert control.difference.identical


def test_a_model_that_only_counts_the_supports_does_not_use_them() -> None:
    use = support_use(CountsSupports((1, 4, 4), 2), episodes())
    assert use.controls["empty"].difference.mean != 0
    assert use.uses_support is False
    assert "one of another class makes no sure difference" in use.verdict


def test_a_model_that_is_misled_does_not_pass_for_one_that_uses_it() -> None:
    use = support_use(Contrary((1, 4, 4), 2), episodes())
    assert use.uses_support is False
    assert use.verdict.startswith("is misled by the support")


def test_a_model_that_cannot_tell_classes_apart_rarely_passes() -> None:
    """Supports of random pixels: no class in them. 100 sets of tasks; 2.5 % pass, so more than 8 in one of 1,000."""
    passed = 0
    generator = torch.Generator().manual_seed(0)
    for seed in range(100):
        blind = [
            replace(part, support=torch.randint(2, part.support.shape, generator=generator, dtype=torch.uint8))
            for part in episodes(tasks=24, batches=1, shots=2, seed=seed)
        ]
        passed += bool(support_use(SupportMean((1, 4, 4), 2), blind).uses_support)
    assert passed <= 8


def test_controls_are_what_they_say() -> None:
    true = episodes()
    for control in CONTROLS:
        for part, other in zip(true, with_control(true, control), strict=True):
            assert torch.equal(part.query, other.query)
            assert part.class_ids is other.class_ids
            assert other.shots == (0 if control == "empty" else 4)
    for part, other in zip(true, with_control(true, "noise"), strict=True):
        assert torch.equal(part.support.flatten(2).sum(-1), other.support.flatten(2).sum(-1)), "the ink changed"
        assert not torch.equal(part.support, other.support)
    supports = {tuple(image.flatten().tolist()): number for number, image in owned(true)}
    donors = [supports[tuple(image.flatten().tolist())] for _, image in owned(with_control(true, "another class"))]
    classes = class_of_tasks()
    assert all(donor != own for donor, own in zip(donors, classes, strict=True))
    assert any(a == b for a, b in pairwise(classes)), "no class follows itself: the case was not tested"
    for place in range(1, len(classes)):
        before = [number for number in classes[:place] if number != classes[place]]
        if before:
            assert donors[place] == before[-1]


def owned(parts: object) -> list[tuple[int, torch.Tensor]]:
    """Class and support of each task."""
    return [
        (int(part.class_ids[task]), part.support[:, task])
        for part in parts  # type: ignore[attr-defined]
        for task in range(part.tasks)
    ]


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_do_not_depend_on_the_batches(control: str) -> None:
    one, many = (list(with_control(episodes(tasks, 24 // tasks), control)) for tasks in (24, 1))
    assert torch.equal(one[0].support, torch.cat([part.support for part in many], 1))


def test_scores_that_are_there_are_taken() -> None:
    model, parts = small_network(), episodes()
    scored = evaluate(model, [part.with_shots(s) for s in (0, 4) for part in parts])
    assert support_use(model, parts, scored=scored) == support_use(model, parts)
    marked = {s: replace(scores, nats=scores.nats + 5) for s, scores in scored.scores.items()}
    use = support_use(model, parts, scored=replace(scored, scores=marked))
    assert use.nats_per_image == pytest.approx(float(marked[4].nats.mean()))
    assert use.controls["empty"].nats_per_image == pytest.approx(float(marked[0].nats.mean()))


def test_all_queries_count_whatever_is_dropped_elsewhere() -> None:
    model = SupportMean((1, 4, 4), 2)
    scored = evaluate(model, episodes(), duplicates="drop")
    assert scored.row(4).identical > 0
    assert support_use(model, episodes(), duplicates="drop", scored=scored) == support_use(model, episodes())


def test_one_class_has_no_other() -> None:
    whole = episodes()[0]
    alone = [replace(whole, class_ids=torch.zeros(whole.tasks, dtype=torch.long))]
    use = support_use(SupportMean((1, 4, 4), 2), alone)
    assert set(use.controls) == {"empty", "noise"}
    assert use.uses_support is None
    assert "cannot be said to use the support: all tasks are of one class" in use.verdict
    with pytest.raises(ValueError, match=r"All tasks are of one class"):
        list(with_control(alone, "another class"))


def test_nothing_is_disturbed() -> None:
    model, numpy_state, state = small_network().train(), np.random.get_state()[1], torch.get_rng_state()
    support_use(model, episodes())
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_bad_input_is_named() -> None:
    model = SupportMean((1, 4, 4), 2)
    with pytest.raises(TypeError, match=r"episodes is an iterator.*give a list"):
        support_use(model, iter(episodes()))
    with pytest.raises(ValueError, match=r"hold \[0\] shots; give episodes of one number of shots, at least 1"):
        support_use(model, episodes(shots=0))
    with pytest.raises(ValueError, match=r"hold \[2, 4\] shots"):
        support_use(model, [*episodes(shots=2), *episodes(shots=4)])
    with pytest.raises(ValueError, match=r"control='blank'; choose one of 'empty', 'another class', 'noise'"):
        with_control(episodes(), "blank")


class Hurt(SupportMean):
    """As good as none without supports, and worse with each; of which class they are matters not."""

    def condition(self, support: torch.Tensor) -> Density:
        logits = torch.stack([torch.zeros(self.event_shape), torch.full(self.event_shape, -2.0 * len(support))])
        return IndependentDensity(logits.expand(support.shape[1], *logits.shape))


def test_supports_that_cost_more_than_none_are_said() -> None:
    """Not that it does not use them, +0 nats: the same model's numbers without and with supports stand beside it."""
    use = support_use(Hurt((1, 4, 4), 2), episodes())
    assert use.costs_more_than_none
    cost = -use.controls["empty"].difference.mean
    assert cost > 10
    assert use.verdict.startswith(
        f"is worse with its support than with none (by {cost:+.3g} nats/image, 95 % interval "
    )
    assert "does not use the support" in use.verdict
    assert not support_use(SupportMean((1, 4, 4), 2), episodes()).costs_more_than_none


def test_the_cost_of_supports_at_each_number_of_shots() -> None:
    nested = [episode.with_shots(shots) for shots in (0, 1, 4) for episode in episodes()]
    costs = cost_of_supports(evaluate(Hurt((1, 4, 4), 2), nested).scores)
    assert list(costs) == [1, 4]
    assert 0 < costs[1].mean < costs[4].mean
    assert supports_cost(costs).startswith(
        f"supports make it worse than none at 1, 4 shots, at 4 by {costs[4].mean:+.3g}"
    )
    assert cost_of_supports(evaluate(SupportMean((1, 4, 4), 2), nested).scores) == {}
    assert cost_of_supports(evaluate(Hurt((1, 4, 4), 2), episodes()).scores) == {}, "there is nothing to compare with"


def test_how_often_a_cost_is_found_where_there_is_none() -> None:
    """Differences of mean 0 over 24 classes: 2.5 %, and in 1,000 of them more than 4 % once in 1,000."""
    rng, found = np.random.default_rng(0), 0
    classes = np.repeat(np.arange(24), 3)
    ids = np.full(72, -1)
    for _ in range(1000):
        none = Scores(rng.normal(size=72), classes, ids, ids)
        with_one = Scores(none.nats + rng.normal(size=24)[classes] + rng.normal(size=72), classes, ids, ids)
        found += bool(cost_of_supports({0: none, 1: with_one}))
    assert 10 <= found <= 40, found


def test_tasks_of_unknown_class_pair_up() -> None:
    """As those of learn2learn's: each task stands for a class of its own, the same at every number of shots."""
    unknown = [replace(episode, class_ids=None, group_ids=None) for episode in episodes()]
    nested = [episode.with_shots(shots) for shots in (0, 4) for episode in unknown]
    scores = evaluate(Hurt((1, 4, 4), 2), nested).scores
    assert np.array_equal(scores[0].class_ids, scores[4].class_ids)
    assert len(set(scores[0].class_ids.tolist())) == 24
    assert list(cost_of_supports(scores)) == [4]

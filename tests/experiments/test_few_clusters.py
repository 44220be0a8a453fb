"""Reports over one class, over five, and over classes that all have the same: words where there is no interval."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from experiments import classify, compare, evaluate, train
from experiments.figures.grids import heat_map, split_points
from experiments.figures.shot_curves import shot_curve
from experiments.reporting.tables import bounds, interval
from metadensity import Density, Evaluation, FewShotModel
from metadensity.densities.independent import IndependentDensity
from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.intervals import NOWHERE, bounded_mean, clustered_mean
from metadensity.evaluation.likelihood import score, summarise
from metadensity.evaluation.memorisation import closeness
from metadensity.evaluation.scores import Scores
from metadensity.evaluation.spread import difference, spread
from metadensity.evaluation.support_use import Control, SupportUse
from metadensity.models import MODELS
from tasks import TASKS


class Even(FewShotModel):
    """Every image has the same number for a log-probability, whatever the support; ``share`` moves it."""

    def __init__(self, event_shape: Any, levels: int, share: float = 0.5) -> None:
        super().__init__(event_shape, levels)
        self.share, self.weight = share, nn.Parameter(torch.zeros(()))

    def condition(self, support: Tensor) -> Density:
        logits = torch.zeros(1, self.levels, *self.event_shape) + 0 * self.weight
        return Tilted(logits, self.share, support.shape[1])


class Tilted(IndependentDensity):
    """Uniform pixels, and as much more or less for every image: no density, where ``share`` is not a half."""

    def __init__(self, logits: Tensor, share: float, tasks: int) -> None:
        super().__init__(logits.expand(tasks, *logits.shape[1:]))
        self.shift = math.log(2 * share)

    def log_prob(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return super().log_prob(value, generator) + self.shift


@pytest.fixture(scope="module")
def trained(script: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Two runs each on a folder whose test split has one class, and on one where it has five: by their number."""
    folder, found = tmp_path_factory.mktemp("images"), {}
    rng = np.random.default_rng(0)
    names = [f"kind{number}" for number in range(9)]
    for number, name in enumerate(names):
        (folder / name).mkdir()
        for drawing in range(6):
            pixels = (rng.random((6, 6)) < 0.2 + 0.07 * number).astype(np.uint8) * 255
            Image.fromarray(pixels).save(folder / name / f"{drawing}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "even", Even)
        for count in (1, 5):
            splits = folder.parent / f"{folder.name}-{count}.json"
            parts = {"train": names[:3], "validation": names[3:4], "test": names[4 : 4 + count]}
            splits.write_text(json.dumps(parts))
            task = {"name": "folder", "folder": str(folder), "splits": str(splits)}
            task |= {"size": 6, "grey": True, "levels": 2}
            models: list[dict[str, Any]] = [{"name": "support_mean"}, {"name": "even"}, {"name": "even", "share": 0.4}]
            runs = [script(train.experiment, "fast", task=task, model=model) for model in models]
            found[count] = [run.result["folder"] for run in runs]
    return found


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "even", Even)


def scored(script: Any, runs: list[str]) -> tuple[list[Any], str]:
    """The evaluations of runs, and what the first printed in its files."""
    found = [script(evaluate.experiment, run=run, shots=[0, 2], baselines=False).result for run in runs]
    return found, (Path(found[0]["folder"]) / "evaluation.md").read_text()


def strict(result: Any, name: str) -> Any:
    return json.loads((Path(result["folder"]) / name).read_text(), parse_constant=pytest.fail)


def test_one_class(trained: dict[int, list[str]], listed: None, script: Any) -> None:
    (one, other, _), text = scored(script, trained[1])
    assert "Intervals are over 1 class.\n" in text
    assert "1 test class: there is no interval over classes." in text
    report = strict(one, "evaluation.json")
    for row in report["rows"]:
        assert math.isfinite(row["nats_per_image"])
        names = ("interval_low", "interval_high", "group_interval_low", "group_interval_high")
        assert [row[name] for name in names] == [None] * 4
    assert "all tasks are of one class" in report["support_use"]["support_mean"]["verdict"]
    assert report["support_use"]["support_mean"]["costs_more_than_none"] is False
    assert report["remarks"] == []

    compared = script(compare.experiment, runs=[one["folder"], other["folder"]]).result
    text = (Path(compared["folder"]) / "comparison.md").read_text()
    assert text.count("| none | none | not sure: no interval |") == 2
    assert "1 class: there is no interval over classes." in text
    assert not any(word in text for word in ("| better |", "| worse |", "nan", "inf"))
    for row in strict(compared, "comparison.json")["rows"]:
        assert row["mean"] != 0
        assert (row["interval_low"], row["interval_high"]) == (None, None)


def test_five_classes(trained: dict[int, list[str]], listed: None, script: Any) -> None:
    (one, other, _), text = scored(script, trained[5])
    assert "5 test classes: the interval over classes has 4 degrees of freedom." in text
    for row in strict(one, "evaluation.json")["rows"]:
        assert row["classes"] == 5
        assert row["interval_low"] < row["nats_per_image"] < row["interval_high"]
    compared = script(compare.experiment, runs=[one["folder"], other["folder"]]).result
    text = (Path(compared["folder"]) / "comparison.md").read_text()
    assert "5 classes: the interval over classes has 4 degrees of freedom." in text
    for row in compared["rows"]:
        assert row["interval_low"] < row["mean"] < row["interval_high"]


def test_what_costs_the_same_everywhere_has_no_interval(
    trained: dict[int, list[str]], listed: None, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A t-test has no p-value for it (0 / 0), or one of exactly 0: neither is printed as a finding."""
    (even, uneven), text = scored(script, trained[5][1:])
    same = "All images cost the same, to rounding: that tells nothing of others, so there is no interval."
    assert same in text
    assert same in capsys.readouterr().out
    for row in strict(even, "evaluation.json")["rows"]:
        assert row["nats_per_image"] == pytest.approx(36 * math.log(2), rel=1e-6)
        assert [row[name] for name in ("interval_low", "interval_high")] == [None, None]
    assert "does not use the support: every likelihood is the same" in text

    compared = script(compare.experiment, runs=[even["folder"], uneven["folder"]]).result
    text = (Path(compared["folder"]) / "comparison.md").read_text()
    assert text.count("not sure: no interval") == 2
    assert "Where all classes differ by the same amount there is no interval" in text
    for row in compared["rows"]:
        assert row["mean"] == pytest.approx(-math.log(0.8), rel=1e-4)
        assert [row[name] for name in ("interval_low", "interval_high", "identical")] == [None, None, False]

    again = script(evaluate.experiment, run=trained[5][1], shots=[0, 2], baselines=False).result
    compared = script(compare.experiment, runs=[even["folder"], again["folder"]]).result
    text = (Path(compared["folder"]) / "comparison.md").read_text()
    assert text.count("| none | none | the same |") == 2
    assert {(row["identical"], row["interval_low"]) for row in compared["rows"]} == {(True, None)}

    # Each of 5 classes as likely as the others: the accuracy is a fifth of every query, which tells of no certainty.
    found = script(classify.experiment, run=trained[5][1], ways=5, shots=1, queries=1, episodes=8).result
    assert found["accuracy"] == pytest.approx(0.2)
    low, high = found["accuracy_interval"]
    assert 0 <= low < 0.2 < high <= 1
    assert found["nll_interval"] == [None, None]


@pytest.mark.parametrize("clusters", [np.arange(6), np.arange(6) // 2, np.arange(12).reshape(6, 2) % 5], ids=str)
def test_values_that_are_all_the_same_have_no_interval(clusters: Any) -> None:
    for value in (25.0, -0.3, 1e-9, 0.0):
        assert clustered_mean(np.full(6, value), clusters) == (pytest.approx(value, rel=1e-12), NOWHERE)
    float32 = np.full(6, 468.0) + np.array([0, 3, -3, 3, 0, 3]) * 1e-5
    assert clustered_mean(float32, clusters)[1] == NOWHERE
    low, high = clustered_mean(np.full(6, 468.0) + np.array([0, 3, -3, 3, 0, 3]) * 1e-2, clusters)[1]
    assert math.isfinite(low)
    assert low < high
    for value in (0.2, 0.5, 1.0, 0.0):
        mean, (low, high) = bounded_mean(np.full(6, value), clusters)
        assert 0 <= low <= mean <= high <= 1
        assert high - low > 0.3


def test_the_interval_of_one_value_for_all_holds_the_mean() -> None:
    """Clusters of 0.3 but for one in ten, which is 1 or 0: five are often all the same. 4,000 experiments."""
    random, held, same = np.random.default_rng(0), {0.0: 0, 1.0: 0}, 0
    for rest, truth in ((0.0, 0.27), (1.0, 0.37)):
        for _ in range(2000):
            values = np.where(random.random(5) < 0.1, rest, 0.3)
            low, high = bounded_mean(values, np.arange(5))[1]
            held[rest] += low <= truth <= high
            same += values.min() == values.max()
    assert same > 1000
    assert min(held.values()) / 2000 > 0.95 - 5 * math.sqrt(0.95 * 0.05 / 2000)


def test_spreads_and_verdicts_without_an_interval() -> None:
    same = spread([1.0, 1.0], [(0.0, 2.0)] * 2, [5, 5])
    assert (same.between, same.interval) == (0.0, None)
    endless = spread([1.0, math.inf], [(0.0, 2.0), NOWHERE], [5, 5])
    assert (endless.mean, endless.between, endless.interval, endless.within) == (math.inf, None, None, None)
    assert difference(same, endless) == (math.inf, None)
    values = Scores(np.arange(4.0), np.arange(4), np.full(4, -1), np.arange(4))
    shifted = Scores(values.nats + 1, values.class_ids, values.group_ids, values.query_ids)
    even = Control(2.5, paired_difference(values, shifted))
    use = SupportUse(1, 1.5, {"another class": even, "empty": even})
    assert (use.uses_support, use.costs_more_than_none) == (False, False)
    assert use.verdict.endswith("no sure difference (+1 nats/image, without an interval)")


def test_pictures_draw_no_interval_where_there_is_none() -> None:
    values = Scores(np.array([3.0, 4.0, 5.0]), np.zeros(3, np.int64), np.full(3, -1), np.arange(3))
    row = summarise(1, values, 4.0)
    assert row.interval == NOWHERE
    figure = shot_curve({"model": Evaluation([row], {1: values})}, "one class")
    for drawn in (figure, split_points({"within": [{1: row}]}, "one class")):
        _, caps, (bars,) = drawn.axes[0].containers[0].lines
        assert not any(len(segment) for segment in bars.get_segments())
        assert all(np.isnan(np.asarray(cap.get_ydata(), float)).all() for cap in caps), "a cap is drawn at the mean"
    heat_map([[1.0, math.inf]], [["1", "inf"]], (["a"], ["b", "c"]), ("x", "y"), "infinite").canvas.draw()


def test_tables_show_none() -> None:
    assert [interval(each) for each in (None, NOWHERE, (2.0, 2.0), (math.nan, math.nan))] == ["none"] * 4
    assert [bounds(each) for each in (None, NOWHERE, (2.0, 2.0))] == [(None, None)] * 3
    assert bounds((1.0, 2.0)) == (1.0, 2.0)


def test_score_of_any_function() -> None:
    """One class, the same for all, probability 0: no interval, and what is not a number is refused."""
    episode = TASKS["templates"](size=4, classes=6).episode(index=0, tasks=1, shots=1, queries=6)
    values = torch.arange(6.0)[:, None] - 9
    (row,) = score(lambda _: values, [episode], duplicates="allow").rows
    assert (row.classes, row.interval, row.group_interval) == (1, NOWHERE, None)
    (row,) = score(lambda _: values.clamp(max=-9), [episode, episode], duplicates="allow").rows
    assert (row.nats_per_image, row.interval) == (9, NOWHERE)
    (row,) = score(lambda _: values - math.inf, [episode], duplicates="allow").rows
    assert (row.nats_per_image, row.interval, row.impossible) == (math.inf, NOWHERE, 6)
    with pytest.raises(ValueError, match="log p is nan for 6 of 6 queries"):
        score(lambda _: values * math.nan, [episode], duplicates="allow")


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_p_values_are_never_undefined(tasks: int) -> None:
    """Where all distances are equal a t-test is 0 / 0, which statsmodels' holm refuses; permutations give 1."""
    found = closeness(np.ones((3, tasks)), np.ones((4, tasks)), np.arange(tasks), permutations=50)
    assert (found.p_value, found.auc, found.closer) == (1.0, 0.5, False)
    assert 0 <= found.interval[0] < 0.4
    assert 0.6 < found.interval[1] <= 1
    surely = closeness(np.zeros((3, tasks)), np.ones((4, tasks)), np.arange(tasks), permutations=500)
    assert surely.closer == (tasks == 5), "of one or two classes that are all alike nothing is sure"

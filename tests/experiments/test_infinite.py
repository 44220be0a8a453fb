"""Images of probability 0: training goes on and says so, reports hold no number that is none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metadensity
from experiments import evaluate, train
from experiments.reporting.tables import likelihood_rows
from experiments.run_page.parts import Page
from metadensity import Density, FewShotModel
from metadensity.densities.independent import IndependentDensity
from metadensity.evaluation.intervals import clustered_mean
from metadensity.models import MODELS


class Unsmoothed(FewShotModel):
    """Counts of the support, which rule out what it has not: while it is trained they are smoothed."""

    def __init__(self, event_shape: Any, levels: int) -> None:
        super().__init__(event_shape, levels)
        self.prior = nn.Parameter(torch.zeros(levels, *self.event_shape))

    def condition(self, support: Tensor) -> Density:
        counts = torch.stack([(support == level).sum(0) for level in range(self.levels)], 1).double()
        return IndependentDensity(self.prior + (counts + (1 if self.training or not len(support) else 0)).log())


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "unsmoothed", Unsmoothed)


@pytest.fixture
def trained(script: Any, listed: None) -> Any:
    task = {"name": "templates", "size": 4, "classes": 6, "flip": 0.3}
    return script(train.experiment, "fast", model={"name": "unsmoothed"}, task=task, training={"shots": [1, 2]})


def test_training_and_evaluation_say_so(trained: Any, script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(trained.result["folder"])
    lines = [
        json.loads(line, parse_constant=pytest.fail) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["validation/nats_per_dim"] for line in lines if "validation/nats_per_dim" in line] == [None, None]
    assert all(math.isfinite(line["train/nats_per_dim"]) for line in lines if "train/nats_per_dim" in line)
    assert trained.result["validation/cautious"] is None
    assert any("validation images have probability 0 at 1 shots" in remark for remark in trained.result["remarks"])
    assert metadensity.load(folder / "checkpoints/best.safetensors").provenance["step"] == 4  # the newest

    done = script(evaluate.experiment, "fast", run=str(folder), shots=[0, 1], baselines=False, generated_episodes=8)
    report = json.loads((Path(done.result["folder"]) / "evaluation.json").read_text(), parse_constant=pytest.fail)
    by_shots = {row["shots"]: row for row in report["rows"]}
    assert math.isfinite(by_shots[0]["nats_per_image"])
    assert by_shots[0]["impossible"] == 0
    assert [by_shots[1][name] for name in ("nats_per_image", "nats_per_dim", "interval_low", "gap")] == [None] * 4
    impossible, images = by_shots[1]["impossible"], by_shots[1]["images"]
    assert 0 < impossible <= images
    said = f"unsmoothed gives {impossible} at 1 shots of {images} images probability 0: its mean is infinite."
    assert said in report["remarks"]
    assert said in capsys.readouterr().out
    assert report["support_use"]["unsmoothed"]["uses_support"] is None
    assert "queries have probability 0 with one support or another" in report["support_use"]["unsmoothed"]["verdict"]
    page = Page(folder).likelihood().data
    assert "infinite" in page
    assert said in page


def test_a_mean_that_is_infinite_has_no_interval() -> None:
    values = np.array([1.0, np.inf, 2.0])
    assert clustered_mean(values, np.arange(3)) == (np.inf, (-np.inf, np.inf))
    assert clustered_mean(values, np.arange(6).reshape(3, 2)) == (np.inf, (-np.inf, np.inf))


def test_of_python_too(listed: None) -> None:
    """No warning, which is an error here; a count of the images."""
    support = torch.zeros(2, 1, 1, 2, 2, dtype=torch.uint8)
    query = torch.tensor([0, 1, 0], dtype=torch.uint8).view(3, 1, 1, 1, 1).expand(3, 1, 1, 2, 2)
    result = metadensity.evaluate(Unsmoothed((1, 2, 2), 2), [metadensity.Episode(support, query)], duplicates="allow")
    (row,) = result.rows
    assert (row.nats_per_image, row.interval, row.impossible, row.images) == (np.inf, (-np.inf, np.inf), 1, 3)
    (cells,) = likelihood_rows(result)[1]
    assert cells[1:] == ["inf", "inf", "inf", "none"]

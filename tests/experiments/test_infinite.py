"""Images of probability 0: training goes on and says so, reports hold no number that is none."""

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

import metadensity
from experiments import classify, compare, evaluate, shots_grid, split_sensitivity, train
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
    assert any("validation queries have probability 0 at 1 shots" in remark for remark in trained.result["remarks"])
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


def test_studies_and_comparisons_say_so(trained: Any, script: Any, tmp_path: Path) -> None:
    """None of them ends in an error after the scoring, or prints what is no number as a finding."""
    folder = trained.result["folder"]
    settings: dict[str, Any] = {"shots": [0, 1], "baselines": False, "generated_episodes": 8}
    one, other = (script(evaluate.experiment, run=folder, **settings).result["folder"] for _ in range(2))
    with pytest.raises(
        ValueError, match=r"at 1 shots: (\d+) of \d+ queries .* \(\1 times the reference's, \1 times the"
    ):
        script(compare.experiment, runs=[one, other])

    small: dict[str, Any] = {"task": {"size": 12}, "model": {"name": "unsmoothed"}, "progress": False}
    study = script(
        *(split_sensitivity.experiment, "hershey", "fast"),
        kinds=["group", "class"],
        split_seeds=[0],
        shots=[0, 1],
        limit=8,
        **small,
    )
    result = strict(study, "split_sensitivity.json")
    assert {row["nats_per_image"] for row in result["rows"] if row["shots"] == 1} == {None}
    assert {(each["mean"], each["between_splits_sd"]) for each in result["spread"] if each["shots"] == 1} == {
        (None, None)
    }
    assert not any(each["of"] == "gain" for each in result["spread"])
    text = (Path(study.result["folder"]) / "split_sensitivity.md").read_text()
    assert "| inf (none) |" in text
    assert "nan" not in text

    grid = script(
        *(shots_grid.experiment, "hershey", "fast"), train_shots=[[1], [2]], test_shots=[0, 1, 2], limit=8, **small
    )
    rows = strict(grid, "shots_grid.json")["rows"]
    assert {row["to_diagonal_mean"] for row in rows} == {None}
    assert [row["nats_per_image"] is None for row in rows] == [False, True, True] * 2
    assert grid.status == study.status == "COMPLETED"

    found = script(classify.experiment, run=rows[0]["run"], ways=3, shots=1, episodes=8)
    result = strict(found, "classification.json")
    assert 0 < result["impossible"] <= result["queries"]
    page = Page(Path(rows[0]["run"])).classification().data
    assert f"{result['impossible']} of them have probability 0 under every class" in page
    (Path(found.result["folder"]) / "classification.json").write_text(json.dumps({**result, "nll": None}))
    assert "<td>infinite</td>" in Page(Path(rows[0]["run"])).classification().data  # a class ruled out wrongly
    said = f"unsmoothed gives {result['impossible']} of {result['queries']} queries probability 0 under every class"
    assert said in (Path(found.result["folder"]) / "classification.md").read_text()


def test_test_images_of_training_that_are_impossible_lose_no_report(listed: None, script: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in "abcdef":
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = 255 * rng.integers(0, 2, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{number}.png")
    (tmp_path / "images/f/5.png").write_bytes((tmp_path / "images/a/5.png").read_bytes())
    (tmp_path / "splits.json").write_text(json.dumps({"train": list("abc"), "validation": ["d"], "test": list("ef")}))
    task = {"name": "folder", "folder": str(tmp_path / "images"), "splits": str(tmp_path / "splits.json")}
    task |= {"size": 4, "grey": True, "levels": 2}
    run = script(train.experiment, "fast", task=task, model={"name": "unsmoothed"}).result["folder"]
    done = script(evaluate.experiment, run=run, shots=[0, 1], baselines=False)
    overlap = strict(done, "evaluation.json")["training_overlap"]
    assert (overlap["images"], overlap["of_images"]) == (1, 12)
    assert [row["nats_per_image"] is None for row in overlap["rows_without_them"]] == [False, True]
    assert "inf at 1 (none)" in (Path(done.result["folder"]) / "evaluation.md").read_text()


def strict(run: Any, name: str) -> Any:
    return json.loads((Path(run.result["folder"]) / name).read_text(), parse_constant=pytest.fail)


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

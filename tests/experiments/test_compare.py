"""Paired comparison of evaluated runs: the right numbers, and refusals with their reasons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import compare, evaluate, train
from experiments.ingredients.baselines import BASELINES
from experiments.recording.score_files import load_scores, save_scores
from metadensity import Evaluation
from metadensity.evaluation.comparison import IncomparableError
from metadensity.evaluation.intervals import clustered_mean
from metadensity.files import DamagedFileError

SMALL: dict[str, Any] = {"task": {"size": 12}}


@pytest.fixture(scope="module")
def trained(script: Any) -> list[str]:
    """Two conditional nets that differ in planes."""
    runs = [script(train.experiment, "hershey", "conditional", "fast", model={"planes": n}, **SMALL) for n in (4, 6)]
    return [run.result["folder"] for run in runs]


@pytest.fixture(scope="module")
def evaluated(trained: list[str], script: Any) -> list[str]:
    settings = {"shots": [0, 1, 2], "limit": 12, "baseline_steps": 3}
    return [script(evaluate.experiment, run=run, **settings).result["folder"] for run in trained]


def test_the_differences_are_those_of_the_scores(evaluated: list[str], script: Any) -> None:
    run = script(compare.experiment, runs=evaluated)
    assert run.status == "COMPLETED"
    scores = [load_scores(Path(folder) / "scores.npz")[0]["conditional"] for folder in evaluated]
    assert [row["shots"] for row in run.result["rows"]] == [0, 1, 2]
    for row in run.result["rows"]:
        one, other = (found[row["shots"]] for found in scores)
        mean, (low, high) = clustered_mean(other.nats - one.nats, one.class_ids)
        assert (row["mean"], row["interval_low"], row["interval_high"]) == (mean, low, high)
        assert (row["images"], row["classes"], row["groups"]) == (48, 12, len(set(one.group_ids)))
        assert row["group_interval_low"] < mean < row["group_interval_high"]
    report = json.loads((Path(evaluated[0]) / "evaluation.json").read_text())
    means = {(row["model"], row["shots"], row["group"]): row["nats_per_image"] for row in report["groups"]}
    other = json.loads((Path(evaluated[1]) / "evaluation.json").read_text())
    later = {(row["model"], row["shots"], row["group"]): row["nats_per_image"] for row in other["groups"]}
    groups = {(row["shots"], row["group"]): row["mean"] for row in run.result["groups"]}
    assert groups == pytest.approx(
        {key[1:]: later[key] - mean for key, mean in means.items() if key[0] == "conditional"}, abs=1e-9
    )
    label = f"conditional ({Path(evaluated[1]).name})"
    assert {row["model"] for row in run.result["rows"]} == {label}
    assert run.result["config_differences"] == {label: {"model.planes": [4, 6]}}
    folder = Path(run.result["folder"])
    assert json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail) == run.result
    text = (folder / "comparison.md").read_text()
    assert "| model | shots | reference | nats/image | difference | 95 % | 95 % over groups | model is |" in text
    assert f"| {label} | model.planes | 4 | 6 |" in text
    assert "| model | group | classes | 0 shots | 1 shot | 2 shots |" in text
    assert all(f"| {label} | {group} |" in text for _, group in groups)
    with Image.open(folder / "comparison.png") as picture:
        assert picture.width > 400


def test_numbers_and_latest_name_runs(evaluated: list[str], script: Any, runs: Path) -> None:
    numbers = [int(Path(folder).name) for folder in evaluated]
    by_number = script(compare.experiment, runs=numbers).result
    assert by_number["rows"] == script(compare.experiment, runs=evaluated).result["rows"]
    within = script(compare.experiment).result
    assert within["reference"] == f"conditional ({numbers[1]})"
    names = {row["model"] for row in within["rows"]}
    assert names == {f"{name} ({numbers[1]})" for name in BASELINES}
    assert within["config_differences"][f"independent ({numbers[1]})"]["model.name"] == ["conditional", "independent"]
    text = (Path(within["folder"]) / "comparison.md").read_text()
    names_of = ", ".join(f"{name} ({numbers[1]})" for name in BASELINES)
    assert f"{names_of}: fitted by the evaluation itself, with the named configuration baseline." in text
    assert "| training." not in text, "settings of baselines are no settings of a training"


def test_a_run_against_itself_is_the_same(evaluated: list[str], script: Any, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(evaluated[0], tmp_path / "copy")
    run = script(compare.experiment, runs=[evaluated[0], str(tmp_path / "copy")])
    assert all(row["identical"] for row in run.result["rows"])
    assert run.result["config_differences"] == {"conditional (copy)": {}}
    said = capsys.readouterr().out
    assert "the same" in said
    assert "conditional (copy) was trained with the same settings." in said


def test_other_episodes_pixels_or_units_are_refused(
    trained: list[str], evaluated: list[str], script: Any, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"shots": [0, 1, 2], "limit": 12, "baselines": False}
    seed = script(evaluate.experiment, run=trained[1], seed=1, **settings).result["folder"]
    with pytest.raises(IncomparableError, match=r"their episodes_sha256 differ .*experiments.episodes"):
        script(compare.experiment, runs=[evaluated[0], seed])
    split = script(evaluate.experiment, run=trained[1], split="validation", **settings).result["folder"]
    with pytest.raises(IncomparableError, match=r"their split differ \('test' and 'validation'\)"):
        script(compare.experiment, runs=[evaluated[0], split])
    other = script(train.experiment, "hershey", "conditional", "fast", task={"size": 14}).result["folder"]
    pixels = script(evaluate.experiment, run=other, **settings).result["folder"]
    with pytest.raises(IncomparableError, match=r"their pixels differ .*recipe: size: 12 and 14"):
        script(compare.experiment, runs=[evaluated[0], pixels])
    units = tmp_path / "units"
    shutil.copytree(evaluated[1], units)
    restate(units, units="bits/dim")
    with pytest.raises(IncomparableError, match=r"their units differ \('nats/image' and 'bits/dim'\)"):
        script(compare.experiment, runs=[evaluated[0], str(units)])


def restate(folder: Path, **changes: Any) -> None:
    """Change what a report and its scores both say of themselves."""
    from metadensity.files import read_arrays, write_arrays

    report = json.loads((folder / "evaluation.json").read_text()) | changes
    (folder / "evaluation.json").write_text(json.dumps(report))
    arrays, head = read_arrays(folder / "scores.npz")
    write_arrays(folder / "scores.npz", arrays, {**head, "identity": {**head["identity"], **changes}})


def test_shots_in_common_are_compared_and_none_is_refused(
    trained: list[str], evaluated: list[str], script: Any
) -> None:
    settings: dict[str, Any] = {"limit": 12, "baselines": False}
    some = script(evaluate.experiment, run=trained[1], shots=[2, 0], **settings).result["folder"]
    assert [row["shots"] for row in script(compare.experiment, runs=[evaluated[0], some]).result["rows"]] == [0, 2]
    # Up to two supports again, but the scores of one number of shots only.
    path = Path(some)
    from metadensity.files import read_arrays, write_arrays

    arrays, head = read_arrays(path / "scores.npz")
    kept = {key: array for key, array in arrays.items() if "/2/" in key or key.startswith("2/")}
    write_arrays(path / "scores.npz", kept, head)
    zero = script(evaluate.experiment, run=trained[0], shots=[0, 2], **settings).result["folder"]
    arrays, head = read_arrays(Path(zero) / "scores.npz")
    kept = {key: array for key, array in arrays.items() if "/2/" not in key and not key.startswith("2/")}
    write_arrays(Path(zero) / "scores.npz", kept, head)
    with pytest.raises(IncomparableError, match=r"has shots \[0\], .* \[2\]: none in common"):
        script(compare.experiment, runs=[zero, some])


def test_damage_and_mistakes_are_named(
    trained: list[str], evaluated: list[str], script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no run of experiments.evaluate.*not that of a training run"):
        script(compare.experiment, runs=[evaluated[0], trained[0]])
    with pytest.raises(ValueError, match=r"names a run twice"):
        script(compare.experiment, runs=[evaluated[0], evaluated[0]])
    with pytest.raises(ValueError, match=r"runs is empty"):
        script(compare.experiment, runs=[])
    torn = tmp_path / "torn"
    shutil.copytree(evaluated[1], torn)
    scores = (torn / "scores.npz").read_bytes()
    (torn / "scores.npz").write_bytes(scores[:-200])
    with pytest.raises(DamagedFileError, match=r"scores.npz is damaged .*Evaluate the run again"):
        script(compare.experiment, runs=[evaluated[0], str(torn)])
    (torn / "scores.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no scores at"):
        script(compare.experiment, runs=[evaluated[0], str(torn)])
    (torn / "scores.npz").write_bytes(scores)
    report = json.loads((torn / "evaluation.json").read_text())
    (torn / "evaluation.json").write_text(json.dumps(report | {"episodes_sha256": "0"}))
    with pytest.raises(DamagedFileError, match=r"are of different evaluations"):
        script(compare.experiment, runs=[evaluated[0], str(torn)])
    (torn / "evaluation.json").write_text("{}")
    with pytest.raises(DamagedFileError, match=r"damaged or of another version"):
        script(compare.experiment, runs=[evaluated[0], str(torn)])
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"python -m experiments.evaluate with run=latest"):
        compare.find_evaluation("latest")


def test_scores_come_back_as_they_were(evaluated: list[str]) -> None:
    scores, identity = load_scores(Path(evaluated[0]) / "scores.npz")
    report = json.loads((Path(evaluated[0]) / "evaluation.json").read_text())
    assert list(scores) == ["conditional", *BASELINES]
    assert identity["units"] == "nats/image"
    for row in report["rows"]:
        found = scores[row["model"]][row["shots"]]
        assert found.nats.mean() == row["nats_per_image"]
        assert np.array_equal(np.sort(found.query_ids), np.unique(found.query_ids)), "a query was scored twice"


def test_a_bound_beside_an_exact_number_is_said_wherever_it_stands(
    evaluated: list[str], script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "bound"
    shutil.copytree(evaluated[1], folder)
    scores, identity = load_scores(folder / "scores.npz")
    marked = {
        name: Evaluation([], {shots: replace(part, quantity="bound with 8 samples") for shots, part in found.items()})
        for name, found in scores.items()
    }
    save_scores(folder / "scores.npz", marked, identity)
    run = script(compare.experiment, runs=[evaluated[0], str(folder)])
    rows = run.result["rows"]
    assert {row["quantity"] for row in rows} == {"bound with 8 samples minus exact"}
    assert {row["model"] for row in rows} == {"conditional, bound with 8 samples (bound)"}
    text = (Path(run.result["folder"]) / "comparison.md").read_text()
    assert text.count("(bound with 8 samples minus exact)") == len(rows)
    assert "A bound is no likelihood" in text
    plain = script(compare.experiment, runs=evaluated)
    assert {row["quantity"] for row in plain.result["rows"]} == {"exact"}
    assert "bound" not in (Path(plain.result["folder"]) / "comparison.md").read_text()


@pytest.mark.parametrize("text", ["('4', '7')", ' ["4", "7"]'])
def test_a_tuple_that_papermill_made_text_of_is_refused(text: str) -> None:
    with pytest.raises(TypeError, match="papermill hands a tuple over as text"):
        compare.as_list(text)


def test_one_run_is_a_list_of_one() -> None:
    assert [compare.as_list(runs) for runs in ("4", 4, ["4", 7], ("4",))] == [["4"], [4], ["4", 7], ["4"]]

"""The tables of the paper: from tiny trainings here, and those in the README from the records in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

import metadensity
from experiments import evaluate, reproduce, train
from experiments.ingredients import build_model
from experiments.recording import lineage
from experiments.recording.trained_model import find_model
from experiments.reporting.document_blocks import read_block
from experiments.reproductions import GROUPS, MEANS, PLANS, Entry, Plan
from experiments.reproductions.records import Record, read_records, write_record
from experiments.reproductions.tables import gain, markdown, sections
from experiments.reproductions.trained import (
    SHIPPED,
    find_run,
    find_weights,
    finished,
    recipe,
    same_config,
    weights_name,
)
from experiments.results import RECORDS
from metadensity.evaluation.comparison import IncomparableError
from metadensity.evaluation.scores import Scores
from metadensity.files import DamagedFileError

README = reproduce.DOCUMENT.read_text()


def run(script: Any, command: str, **config: Any) -> Any:
    with patch.object(reproduce.experiment, "default_command", command):
        return script(reproduce.experiment, "fast", **config)


def begun(plan: Plan, name: str) -> int:
    """How many trainings came before that of an entry, or of its first member."""
    if plan.entries[name].ensemble_of:
        return begun(plan, plan.entries[name].ensemble_of[0])
    before = plan.entries[name].initialised_from
    return 0 if before is None else 1 + begun(plan, before)


# Of tables that are the same but for the task the first; tests/test_readmes.py makes all of them by their command.
ALIKE = {plan.name for plans in MEANS.values() for plan in plans[1:]}


@pytest.mark.parametrize("name", [name for name in PLANS if name not in ALIKE and not name.startswith("mixtures_")])
def test_every_table_can_be_made(name: str, script: Any, tmp_path: Path) -> None:
    plan = PLANS[name]
    made = run(script, name, keep_records=str(tmp_path / "records"), keep_weights=str(tmp_path / "weights"))
    assert made.status == "COMPLETED"
    records = read_records(tmp_path / "records" / name, plan)
    assert list(records) == [entry for entry, settings in plan.entries.items() if settings.in_table]
    for entry, record in records.items():
        assert [row["shots"] for row in record.values["rows"]] == list(plan.shots)
        assert {"config", "data_sha256", "episodes_sha256", "cost", "machine"} <= set(record.values)
        for row in record.values["rows"]:  # the scores are those of the rows
            assert record.scores[row["shots"]].nats.mean() == pytest.approx(row["nats_per_image"])
        if plan.entries[entry].optimum:
            continue
        assert {"seed", "weights_sha256", "parameters"} <= set(record.values)
        assert record.values["config"]["training"]["steps"] == 4
        assert record.values["steps_before"] == [4] * begun(plan, plan.entries[entry].fine_tunes or entry)
        assert bool(record.values["fine_tuning"]) == bool(plan.entries[entry].tunings)
    table = (Path(made.result["folder"]) / f"{name}.md").read_text()
    assert table == markdown(plan, records)
    assert all(plan.entries[entry].title in table for entry in records)
    assert ("4 + 4 |" in table) == any(plan.entries[entry].initialised_from for entry in records)
    entry = plan.baseline
    again = run(script, name, only=[entry], weights=str(tmp_path / "weights"))  # shipped weights are not trained again
    rows = {row["shots"]: row["nats_per_image"] for row in again.result["rows"][entry]}
    assert rows == {row["shots"]: row["nats_per_image"] for row in records[entry].values["rows"]}
    later = next(
        (entry for entry, settings in plan.entries.items() if settings.initialised_from and settings.in_table), None
    )
    if later is not None:  # nor is what they began with
        before = set(Path(made.result["folder"]).parent.iterdir())
        run(script, name, only=[later], weights=str(tmp_path / "weights"))
        assert len(set(Path(made.result["folder"]).parent.iterdir()) - before) == 1
    with pytest.raises(ValueError, match=r"was trained with another configuration than .* give weights=None"):
        run(script, name, only=[entry], weights=str(tmp_path / "weights"), fast=False)
    file = tmp_path / "weights" / weights_name(plan.weight_prefixes[0], entry)
    shipped = metadensity.load(file)
    assert shipped.provenance["weights_sha256"] == records[entry].values["weights_sha256"]
    evaluated = script(evaluate.experiment, run=str(file), baselines=False, limit=2)  # a file stands where a run does
    assert evaluated.result["weights_sha256"] == shipped.provenance["weights_sha256"]
    assert evaluated.result["task"]["name"] == metadensity.load(file).provenance["task"]["task"]


def test_a_table_can_be_made_of_images_of_ones_own(script: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photographs" / f"kind {number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    for name, task in (("mirror", "mirror"), ("products", "folder")):
        made = run(script, name, folder=str(tmp_path / "photographs"), only=["conditional"])
        record = json.loads((Path(made.result["folder"]) / "records" / "conditional.json").read_text())
        assert record["config"]["task"]["name"] == task
        assert record["config"]["task"]["folder"] == str(tmp_path / "photographs")
        assert record["pixels"]["event_shape"] == [3, 8, 8]
    with pytest.raises(ValueError, match="omniglot is of a data set of its own; leave folder=None"):
        run(script, "omniglot", folder=str(tmp_path / "photographs"))


def test_a_finished_training_is_taken_and_a_stopped_one_gone_on_with(script: Any, tmp_path: Path) -> None:
    first = run(script, "omniglot", only=["conditional"])
    entry = PLANS["omniglot"].entries["conditional"]
    named, updates = recipe(PLANS["omniglot"], entry, fast=True)
    config = train.experiment.configuration(named, {**updates, "initial": None})
    finished_run = find_run(config)
    assert finished_run is not None
    before = sorted(path.name for path in finished_run.path.parent.iterdir())
    again = run(script, "omniglot", only=["conditional"])
    assert again.result["rows"] == first.result["rows"]
    after = set(path.name for path in finished_run.path.parent.iterdir()) - set(before)
    assert len(after) == 1  # the reproduction's own run, and no training

    for path in finished_run.path.parent.glob("*/checkpoints/state-00000004.safetensors"):
        path.unlink()  # as if every training had been killed after its state of step 2
    stopped = find_run(config)
    assert stopped is not None
    assert not finished(stopped)
    resumed = run(script, "omniglot", only=["conditional"])
    assert resumed.result["rows"] == first.result["rows"]
    made = [lineage.read(folder) for folder in stopped.path.parent.glob("[0-9]*")]
    assert "resumed" in [found.kind for found in made if found is not None]
    assert find_run({**config, "seed": 1}) is None


def test_one_command_makes_several_tables(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def reproduce_one(plan: Plan, run: Any, here: Path, **settings: Any) -> dict[str, Any]:
        made.append((plan.name, here.name, settings["limit"]))
        return {"plan": plan.name}

    monkeypatch.setattr(reproduce, "reproduce", reproduce_one)
    for name in GROUPS.keys() - MEANS.keys():  # the others have a table of the records as well
        found, plans = run(script, name).result, GROUPS[name]
        assert found == {plan.name: {"plan": plan.name} for plan in plans}
        assert made == [(plan.name, plan.name, 2) for plan in plans]
        made.clear()
    with pytest.raises(ValueError, match=r"only=\['ngram'\] names entries of .* table; strings makes chains, names, "):
        run(script, "strings", only=["ngram"])


def test_speeds_are_of_every_training(script: Any) -> None:
    made = run(script, "speeds")
    entries = PLANS["adaptation"].entries
    trainings = {name for name, entry in entries.items() if entry.in_table and entry.fine_tunes is None}
    assert made.result["seconds"].keys() == trainings
    assert min(made.result["seconds"].values()) > 0
    assert len((Path(made.result["folder"]) / "speeds.md").read_text().splitlines()) == len(trainings) + 4


def test_a_file_that_does_not_say_what_it_was_trained_on_is_refused(tmp_path: Path) -> None:
    model = build_model({"name": "independent"}, (1, 4, 4), 2, 0)
    metadensity.save(model, tmp_path / "model.safetensors")
    with pytest.raises(DamagedFileError, match="does not say which task"):
        find_model(str(tmp_path / "model.safetensors"))


def test_unknown_entries_are_named(script: Any) -> None:
    with pytest.raises(ValueError, match="names \\['nonsense'\\]; omniglot has conditional, attention"):
        run(script, "omniglot", only=["nonsense"])


def test_gain_and_its_interval() -> None:
    """Against a bootstrap over clusters."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 5)
    level = rng.normal(50, 8, 40)[clusters]
    baseline, model = level + rng.normal(0, 2, 200), 0.9 * level + rng.normal(0, 2, 200)
    mean, (low, high) = gain(baseline, model, clusters)
    assert mean == pytest.approx(100 * (1 - model.mean() / baseline.mean()))
    draws = []
    for _ in range(2000):
        chosen = rng.integers(0, 40, 40)
        index = (chosen[:, None] * 5 + np.arange(5)).ravel()
        draws.append(100 * (1 - model[index].mean() / baseline[index].mean()))
    assert np.allclose(np.quantile(draws, [0.025, 0.975]), (low, high), atol=0.25 * (high - low) / 2)


def test_tables_of_sequences_are_in_the_unit_of_a_place() -> None:
    """With intervals where training data are not scored, and the gap to the optimum where the task knows it."""
    entries = {"best": Entry("The best possible", optimum=True), "model": Entry("A model")}
    plan = Plan("p", ("p",), "Title", entries, (0,), "model", train_limit=0, unit="bits/character", given=2)
    nats = np.array([4.0, 6.0, 5.0, 9.0])
    records = {}
    for name, factor in (("best", 1.0), ("model", 1.02)):
        ids = np.arange(4) // 2
        scores = Scores(factor * nats, ids, ids, np.arange(4))
        row = {"shots": 0, "nats_per_image": 6 * factor, "nats_per_dim": 2 * factor, "images": 4}
        values = {"rows": [{**row, "interval_low": 4.5 * factor, "interval_high": 7.5 * factor}], "train_rows": []}
        counts = {"steps": 40, "parameters": 1234} if name == "model" else {}
        records[name] = Record(name, {**values, **counts}, {0: scores})
    likelihoods, gaps, differences = sections(plan, records)
    bits = 2 / np.log(2)
    interval = f"({1.5 / np.log(2):.3f} to {2.5 / np.log(2):.3f})"
    assert likelihoods.rows[0] == ["The best possible", f"{bits:.3f} {interval}", "", ""]
    assert likelihoods.rows[1][2:] == ["40", "1,234"]
    assert "bits/character" in likelihoods.notes[0]
    assert "4 test sequences, given the first 2 places of each" in likelihoods.notes[0]
    assert gaps.rows == [["A model", "2.00 (2.00 to 2.00)"]]
    assert differences.rows[0][1].startswith(f"-{0.02 * bits:.3f} (")


@pytest.mark.parametrize("name", list(PLANS))
def test_the_readme_shows_the_records(name: str) -> None:
    records = read_records(RECORDS / name, PLANS[name])
    assert records, f"there are no records of {name}"
    assert read_block(README, name) == markdown(PLANS[name], records).strip()
    for record in records.values():
        if record.values.get("fine_tuning") or PLANS[name].entries[record.entry].optimum:
            continue
        shipped = find_weights(SHIPPED, PLANS[name], record.entry, record.values["config"])
        if shipped is not None:
            assert metadensity.load(shipped).provenance["weights_sha256"] == record.values["weights_sha256"]


@pytest.mark.parametrize("plan", GROUPS["strings"], ids=lambda plan: plan.name)
def test_shipped_nets_of_sequences_give_the_recorded_numbers(plan: Plan) -> None:
    """On the first episodes at each number of shots, and not on those of other supports."""
    scored = 0
    for name, record in read_records(RECORDS / plan.name, plan).items():
        file = None if plan.entries[name].optimum else find_weights(SHIPPED, plan, name, record.values["config"])
        if file is None:
            continue
        model, scored = metadensity.load(file), scored + 1
        batches = reproduce._batches(plan, record.values["config"]["task"], "test", plan.limit, 4)
        for shots in plan.shots:
            batches.shots = [shots]
            found = metadensity.evaluate(model, [next(iter(batches))], given=plan.given).scores[shots].nats
            recorded = record.scores[shots]
            np.testing.assert_allclose(found, recorded.nats[: len(found)], rtol=1e-4, atol=1e-3)
            if shots:
                assert not np.allclose(found, record.scores[0].nats[: len(found)], rtol=1e-4, atol=1e-3)
    assert scored, f"no weights of {plan.name} are shipped"


@pytest.mark.parametrize("named", [True, False])
def test_a_command_writes_the_tables_into_the_readme(
    named: bool, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.replace(" 47.99 (46.75) ", " 1.00 "))
    assert copy.read_text() != README
    if not named:  # the page that is shown, from anywhere
        monkeypatch.setattr(reproduce, "DOCUMENT", copy)
        monkeypatch.chdir(tmp_path)
    run(script, "readme", document=str(copy) if named else None)
    for name in PLANS:
        assert read_block(copy.read_text(), name) == read_block(README, name)


def test_records_that_were_altered_or_are_of_other_episodes_are_refused(tmp_path: Path) -> None:
    plan = PLANS["omniglot"]
    records = read_records(RECORDS / "omniglot", plan)
    first, second = list(records.values())[:2]

    def rewrite(record: Any, folder: Path, **changed: Any) -> None:
        evaluation = metadensity.Evaluation([], record.scores)
        write_record(folder, record.entry, {**record.values, **changed}, evaluation)

    rewrite(first, tmp_path)
    rewrite(second, tmp_path, episodes_sha256="0" * 64)
    with pytest.raises(IncomparableError, match="episodes_sha256"):
        read_records(tmp_path, plan)
    path = tmp_path / f"{first.entry}.json"
    path.write_text(json.dumps({**first.values, "units": "bits"}))
    with pytest.raises(DamagedFileError, match="different evaluations"):
        read_records(tmp_path, plan)


def test_configurations_that_lead_to_the_same_weights() -> None:
    """A setting of a later version has its default before; and it matters not on what device it is trained."""
    config = train.experiment.configuration(("attention",), {})
    model = {key: value for key, value in config["model"].items() if key != "patch_stride"}
    assert same_config(config, {**config, "model": model})
    assert same_config({**config, "model": model}, config)
    assert same_config({**config, "training": {**config["training"], "device": "cuda", "graphs": True}}, config)
    assert not same_config({**config, "model": {**config["model"], "patch_stride": 2}}, {**config, "model": model})
    assert not same_config({**config, "model": {**config["model"], "attention": None}}, config)


def test_no_training_begins_where_weights_that_were_named_are_not_there(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_run(*_: Any) -> None:
        pytest.fail("hours of training were begun in place of a message")

    monkeypatch.setattr("experiments.reproductions.trained.train_run", train_run)
    says = (
        r"weights='.*empty' holds no mirror-.*safetensors, and no finished run .* Give weights=shipped .* weights=None"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=says):
        run(script, "mirror", weights=str(tmp_path / "empty"), fast=False)
    monkeypatch.setattr(reproduce, "RECORDS", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"There are no records at .*nowhere"):
        reproduce.readme(None)

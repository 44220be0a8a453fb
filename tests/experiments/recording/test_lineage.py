"""Where runs came from: every verb says it in one place, and a chain of resumed runs reads as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import classify, compare, evaluate, memorisation, sample, train
from experiments.recording import lineage
from experiments.recording.lineage import LineageError
from experiments.recording.run_folder import RunFolder
from metadensity.files import DamagedFileError, read_header

SETTINGS: dict[str, Any] = {"task": {"size": 8}}
NAMED = ("hershey", "conditional", "fast")


@pytest.fixture(scope="module")
def links(script: Any) -> list[RunFolder]:
    """Three runs, each going on from the one before: of 4, 6 and 8 steps, beside one of 8 in a go."""
    found: list[RunFolder] = []
    for steps in (4, 6, 8):
        more = {} if not found else {"resume": str(found[-1].path), "allow": ["training.steps"]}
        training = {"steps": steps, "decay": "none"}  # so that the number of steps changes nothing before them
        run = script(train.experiment, *NAMED, training=training, **more, **SETTINGS)
        found.append(RunFolder(run.result["folder"]))
    return found


def test_a_chain_reads_as_one_run(links: list[RunFolder], script: Any) -> None:
    whole = script(train.experiment, *NAMED, training={"steps": 8, "decay": "none"}, **SETTINGS).result["folder"]
    lines = (Path(whole) / "metrics.jsonl").read_bytes()
    assert lineage.joined_lines(links[-1]) == lines
    assert [(link.path.name, began) for link, began in lineage.chain(links[-1])] == [
        *((links[0].path.name, 0), (links[1].path.name, 4), (links[2].path.name, 6))
    ]
    assert lineage.joined_lines(links[1]) != lines
    curve = lineage.curve(links[-1])
    assert curve["step"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert curve["train/nats_per_dim"].notna().all()
    assert curve["validation/cautious"].notna().tolist() == [False, True] * 4


def test_what_a_successor_did_again_is_left_out(links: list[RunFolder], tmp_path: Path) -> None:
    """A killed parent may have lines after the state its successor took, and half a line at the end."""
    for link in links[:2]:
        shutil.copytree(link.path, tmp_path / link.path.name)
    before = lineage.joined_lines(RunFolder(tmp_path / links[1].path.name))
    with (tmp_path / links[0].path.name / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "train/nats_per_dim": 9.0}\n{"step": 6, "tr')
    assert lineage.joined_lines(RunFolder(tmp_path / links[1].path.name)) == before


def test_the_numbers_that_depend_on_speed_stand_apart(links: list[RunFolder]) -> None:
    timing = [json.loads(line) for line in (links[0].path / "timing.jsonl").read_text().splitlines()]
    assert [record["step"] for record in timing] == [1, 2, 3, 4]
    assert all(record.keys() == {"step", "train/images_per_second", "train/cpu_seconds"} for record in timing)
    assert b"per_second" not in lineage.joined_lines(links[-1])


def test_every_verb_names_its_parent_checkpoint_and_episodes(links: list[RunFolder], script: Any) -> None:
    subject = links[0]
    weights = read_header(subject.best)["sha256"]
    run = str(subject.path)
    scored = [script(evaluate.experiment, "fast", run=run, baselines=False, seed=0).result for _ in range(2)]
    found = {
        "evaluated": scored[0],
        "sampled": script(sample.experiment, "fast", run=run).result,
        "classified": script(classify.experiment, "fast", run=run).result,
        "memorisation": script(memorisation.experiment, "fast", run=run).result,
    }
    for kind, result in found.items():
        folder = Path(result["folder"])
        known = lineage.read(folder)
        assert known is not None
        assert known.kind == kind
        (parent,) = known.parents
        assert (parent.run, parent.sha256, parent.file) == (subject.path.name, weights, "checkpoints/best.safetensors")
        own = lineage.read(subject.path)
        assert own is not None
        assert parent.id == own.id
        assert known.episodes_sha256 is not None
        assert known.episodes_sha256 == result.get("episodes_sha256", known.episodes_sha256)
        assert json.loads((folder / "info.json").read_text())["lineage"]["kind"] == kind
        assert lineage.parent_folder(RunFolder(folder), parent).path == subject.path.resolve()
    folder = Path(script(compare.experiment, runs=[result["folder"] for result in scored]).result["folder"])
    known = lineage.read(folder)
    assert known is not None
    assert [parent.run for parent in known.parents] == [Path(result["folder"]).name for result in scored]
    assert known.episodes_sha256 == scored[0]["episodes_sha256"]
    made = [run.path.name for run in lineage.descendants(subject, ["evaluated", "sampled"])]
    assert made == [Path(result["folder"]).name for result in (*scored, found["sampled"])]
    assert lineage.summary(json.loads((folder / "lineage.json").read_text())).startswith("compared from ")


def test_a_resumed_run_names_the_state_it_took(links: list[RunFolder]) -> None:
    known = lineage.read(links[1].path)
    assert known is not None
    (parent,) = known.parents
    state = links[0].path / parent.file
    assert (known.kind, parent.step, parent.sha256) == ("resumed", 4, read_header(state)["sha256"])
    first = lineage.read(links[0].path)
    assert first is not None
    assert (first.kind, first.parents, first.episodes_sha256) == ("trained", (), known.episodes_sha256)


def test_a_folder_of_runs_can_be_moved(links: list[RunFolder], tmp_path: Path) -> None:
    for link in links:
        shutil.copytree(link.path, tmp_path / link.path.name)
    moved = RunFolder(tmp_path / links[-1].path.name)
    assert [link.path.parent for link, _ in lineage.chain(moved)] == [tmp_path.resolve()] * 2 + [tmp_path]
    assert lineage.joined_lines(moved) == lineage.joined_lines(links[-1])


def test_a_chain_with_a_gap_is_named(links: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(links[1].path, tmp_path / links[1].path.name)
    child = RunFolder(tmp_path / links[1].path.name)
    with pytest.raises(LineageError, match=r"came from run \d+, which is not at .*Move it back"):
        lineage.chain(child)
    shutil.copytree(links[2].path, tmp_path / links[0].path.name)  # the number was given again
    with pytest.raises(LineageError, match=r"is another one, with id \w+: its number was given again"):
        lineage.chain(child)
    (child.path / "lineage.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"lineage.json is damaged .*info.json beside it repeats it"):
        lineage.chain(child)


def test_other_data_under_the_same_settings_are_refused(links: list[RunFolder], script: Any, tmp_path: Path) -> None:
    shutil.copytree(links[0].path, tmp_path / "altered")
    path = tmp_path / "altered" / "lineage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "episodes_sha256": "0" * 64}))
    RunFolder(tmp_path / "altered").states()[-1].unlink()  # so that there is something left to do
    more: dict[str, Any] = {"training": {"steps": 4, "decay": "none"}, **SETTINGS}
    with pytest.raises(LineageError, match=r"The settings are those of .*but the data are not"):
        script(train.experiment, *NAMED, resume=str(tmp_path / "altered"), **more)


def test_runs_of_earlier_versions_have_no_lineage(links: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(links[0].path, tmp_path / "old")
    (tmp_path / "old" / "lineage.json").unlink()
    old = RunFolder(tmp_path / "old")
    assert lineage.read(old.path) is None
    assert lineage.joined_lines(old) == (old.path / "metrics.jsonl").read_bytes()

"""Episode files: written by one script, scored on by another, with one hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import episodes, evaluate, train
from experiments.ingredients import build_task
from tasks import TASKS, DataError, StoredEpisodes

SMALL: dict[str, Any] = {"task": {"size": 12}}


@pytest.fixture(scope="module")
def trained(script: Any) -> Any:
    return script(train.experiment, "hershey", "conditional", "fast", **SMALL)


@pytest.fixture(scope="module")
def written(script: Any) -> Any:
    return script(episodes.experiment, "hershey", "fast", **SMALL)


def test_the_file_is_the_set_it_says(written: Any) -> None:
    assert written.status == "COMPLETED"
    path = Path(written.result["path"])
    assert path.name == "episodes.npz"
    assert path.parent == Path(written.result["folder"])
    task = build_task(written.config["task"], "test")
    loaded = StoredEpisodes.load(path, task)
    assert task.event_shape == (1, 12, 12)
    assert loaded.hash == written.result["episodes_sha256"] == StoredEpisodes.build(task, [8], 4, limit=4).hash
    assert (written.result["episodes"], written.result["queries"], written.result["max_shots"]) == (4, 16, 8)
    assert written.result["split"] == "test"
    assert written.result["pixels"]["fingerprint"] == task.fingerprint
    assert len(str(written.result["pixels"])) < 1000, "the recipe lists every character"


def test_evaluate_scores_on_it_and_by_default_builds_the_same(written: Any, trained: Any, script: Any) -> None:
    run = trained.result["folder"]
    read = script(evaluate.experiment, "fast", run=run, baselines=False, episodes=written.result["path"])
    by_folder = script(evaluate.experiment, "fast", run=run, baselines=False, episodes=written.result["folder"])
    by_number = script(evaluate.experiment, "fast", run=run, baselines=False, episodes=int(written._id))
    built = script(evaluate.experiment, "fast", run=run, baselines=False)
    for result in (read.result, by_folder.result, by_number.result, built.result):
        assert result["episodes_sha256"] == written.result["episodes_sha256"]
        assert result["rows"] == built.result["rows"]
    assert read.result["episodes"] == {
        "path": written.result["path"],
        "number": 4,
        "max_shots": 8,
        "duplicates": "trust_ids",
    }


def test_the_defaults_of_both_scripts_agree() -> None:
    """Otherwise a set that was written and the one that evaluate builds would differ without anyone's asking."""
    one, other = (command.experiment._create_run().config for command in (episodes, evaluate))
    shared = {"split", "shots", "queries", "draws", "limit", "seed"}
    assert {key: one[key] for key in shared} == {key: other[key] for key in shared}


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_has_its_named_configuration(name: str) -> None:
    run = episodes.experiment._create_run(named_configs=[name])
    assert run.config["task"]["name"] == name


def test_fewer_shots_of_the_set_can_be_scored_and_more_cannot(written: Any, trained: Any, script: Any) -> None:
    settings = {"run": trained.result["folder"], "baselines": False, "episodes": written.result["path"]}
    run = script(evaluate.experiment, shots=[1], **settings)
    assert [row["shots"] for row in run.result["rows"]] == [1]
    with pytest.raises(ValueError, match=r"shots=9, but the episode set has 8 supports an episode"):
        script(evaluate.experiment, shots=[9], **settings)


def test_a_file_that_does_not_fit_is_refused(written: Any, trained: Any, script: Any, tmp_path: Path) -> None:
    settings = {"run": trained.result["folder"], "baselines": False}
    with pytest.raises(DataError, match=r"built for hershey, split test.* but was given hershey, split validation"):
        script(evaluate.experiment, "fast", split="validation", episodes=written.result["path"], **settings)
    other = script(episodes.experiment, "hershey", "fast", task={"size": 14})
    with pytest.raises(DataError, match=r"fingerprint .*, but was given hershey.*same options"):
        script(evaluate.experiment, "fast", episodes=other.result["path"], **settings)
    with pytest.raises(DataError, match=r"there is no episode set at nowhere"):
        script(evaluate.experiment, "fast", episodes="nowhere", **settings)
    (tmp_path / "torn.npz").write_bytes(Path(written.result["path"]).read_bytes()[:100])
    with pytest.raises(DataError, match=r"torn.npz is damaged"):
        script(evaluate.experiment, "fast", episodes=str(tmp_path / "torn.npz"), **settings)


def test_a_task_that_draws_without_end_has_no_set(script: Any) -> None:
    with pytest.raises(
        ValueError, match=r"templates draws its images without end.*evaluate takes its episodes 0, 1, 2"
    ):
        script(episodes.experiment, "templates", "fast")

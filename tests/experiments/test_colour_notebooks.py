"""Notebooks on a colour run: their cell of parameters is pointed at it, and they show it in its own colours.

The cells run in this process (``executed``); tests/test_notebooks.py runs them in kernels, without parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments import evaluate, train
from experiments.recording.run_folder import RunFolder
from tests.tasks.pictures import make_folder

ROOT = Path(__file__).resolve().parents[2]
SIDE, PER_CLASS = 8, 5
MODELS: dict[str, dict[str, Any]] = {
    "attention": {"likelihood": "logistic"},
    "multiscale": {"likelihood": "logistic", "base": 4, "upscaler_layers": 2},
    "conditional": {},
    "maml": {"steps": 2},
}
SHOWN = ("explore_samples", "finish_this_drawing", "where_it_looks")


@pytest.fixture(scope="module")
def runs_of_colour(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunFolder]]:
    """A run of each model on a folder of colour noise, 5 images a class."""
    root = tmp_path_factory.mktemp("pictures")
    names = [f"class{number:02}" for number in range(12)]
    make_folder(root, dict.fromkeys(names, PER_CLASS), width=SIDE, height=SIDE)
    parts = {"train": names[:4], "validation": names[4:6], "test": names[6:]}
    (root / "splits.json").write_text(json.dumps(parts))
    task = {"folder": str(root), "size": SIDE, "splits": str(root / "splits.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.data.roots.user_cache", lambda: root.parent / f"{root.name}-cache")
        found = {}
        for name, options in MODELS.items():
            settings = {"task": task, "training": {"steps": 2}} | ({"model": options} if options else {})
            run = script(train.experiment, "folder", name, "fast", **settings)
            found[name] = RunFolder(run.result["folder"])
        yield found


def are_coloured(images: list[NDArray[Any]]) -> bool:
    """Whether some are RGB with channels that differ, and all RGB ones are bytes, which matplotlib does not scale."""
    of_colour = [image for image in images if image.ndim == 3]
    assert all(image.shape[-1] == 3 and image.dtype == np.uint8 for image in of_colour)
    return any(not (image[..., 0] == image[..., 1]).all() for image in of_colour)


@pytest.mark.parametrize("kind", ["attention", "multiscale"])
@pytest.mark.parametrize("name", SHOWN)
def test_samples_completions_and_attention(
    name: str, kind: str, executed: Any, runs_of_colour: dict[str, RunFolder]
) -> None:
    out, images = executed(name, run=str(runs_of_colour[kind].path))
    assert f"on folder (3, {SIDE}, {SIDE})" in out
    assert are_coloured(images)
    if name == "finish_this_drawing":
        order = "raster order" if kind == "attention" else "the order of a multiscale image"
        assert f"come first in {order}" in out
        assert f"{PER_CLASS - 1} supports save" in out
        truth, given, *finished = images[:8]
        known = ~(given == 166).all(-1)
        assert known.mean() == 0.5
        assert known[: SIDE // 2].all() == (kind == "attention")
        assert known[::2].all() == (kind == "multiscale")
        for image in (given, *finished):
            np.testing.assert_array_equal(image[known], truth[known])
    if name == "where_it_looks":
        assert "patches of each support: (2, 2)" in out


def test_tasks_of_a_folder_and_the_inner_loop(executed: Any, runs_of_colour: dict[str, RunFolder]) -> None:
    folder = runs_of_colour["maml"].config()["task"]["folder"]
    out, images = executed("look_at_tasks", folder=folder)
    assert "670 glyphs" in out
    assert are_coloured(images)
    out, images = executed("inner_loop", run=str(runs_of_colour["maml"].path))
    assert "MAMLPixelCNN on folder" in out
    assert "the best possible" not in out
    assert are_coloured(images)


def test_evaluations_of_ones_own_are_compared(
    executed: Any, script: Any, runs: Path, runs_of_colour: dict[str, RunFolder]
) -> None:
    scored = [
        script(evaluate.experiment, run=str(runs_of_colour[kind].path), baselines=False, limit=4).result["folder"]
        for kind in ("attention", "conditional")
    ]
    before = sorted(runs.iterdir())
    out, _ = executed("compare_runs", evaluations=scored)
    assert re.search(r"model.name +attention -> conditional", out)
    assert "4 shots: " in out
    assert sorted(runs.iterdir()) == before, "nothing is trained"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "where_it_looks",
            "ConditionalPixelCNN does not look at its supports while it draws; give a run",
        ),
        ("inner_loop", "ConditionalPixelCNN takes no gradient steps on its support; give a run of maml"),
        ("shot_curve_and_optimum", "The best possible likelihood of folder is not known; give a run on templates"),
    ],
)
def test_a_run_that_a_question_makes_no_sense_for(
    name: str, said: str, executed: Any, runs_of_colour: dict[str, RunFolder]
) -> None:
    with pytest.raises(ValueError, match=said):
        executed(name, run=str(runs_of_colour["conditional"].path))

"""Every notebook runs from a fresh clone, in under a minute, and is stored with outputs small enough to read.

A model that several notebooks use is trained by the first of them alone, as for a user who runs them all.
"""

from __future__ import annotations

import importlib.util
import re
import resource
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUESTIONS = {
    "look_at_tasks",
    "explore_samples",
    "where_it_looks",
    "shot_curve_and_optimum",
    "inner_loop",
    "compare_runs",
    "finish_this_drawing",
    "next_utterance",
}
WITH_DATA = {"next_utterance"}  # of recordings, which no clone holds
PROGRESS = re.compile(r".*?: +\d+%\|")  # as tqdm draws them
ACCEPTED = "but a copy packed anew: accepted"  # what is said of archives that hold the published images all the same
# A path from the root with two parts or more. Not "/image" of nats/image, "//host" of an address, "</td>" of a table.
ABSOLUTE = re.compile(r"(?<![\w./:<*)])/(?:[\w.-]+/)+[\w.-]*|\b[A-Z]:\\\w|(?<![\w.])~/\w")
EMBEDDED = re.compile(r"data:audio/[\w-]+;base64,[\w+/=]+")  # a sound within the notebook
SLIDERS = "explore_samples"
client = runpy.run_path(str(ROOT / "notebooks" / "store.py"))["client"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def warnings_in(notebook: Any) -> list[str]:
    """What was written to stderr other than progress bars, and what is said of data that are as published."""
    written = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    lines = [line.strip() for text in written for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if line and not PROGRESS.match(line) and ACCEPTED not in line]


def problems(notebook: Any) -> list[str]:
    """What stands against storing the notebook as it is."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.execution_count:
            found.append(f"not executed: {cell.source[:40]!r}")
    for output in outputs(notebook):
        if output.output_type == "error":
            found.append(f"error: {output.ename}")
        if output.get("name") == "stderr":
            found.append(f"stderr: {output.text[:40]!r}")
        texts = [output.get("text", "")]
        texts += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/png")]
        texts = [EMBEDDED.sub("", text) for text in texts]
        found += [f"absolute path: {match.group()}" for text in texts for match in ABSOLUTE.finditer(text)]
    return found


def processor_seconds() -> float:
    """Of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that is empty at first."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.filterwarnings("default")  # of Jupyter's own packages; cells that warn are seen in their output
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_without_any_run_to_load(
    path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if path.stem in WITH_DATA:
        request.getfixturevalue("data_root")  # skips where there are none
    monkeypatch.setenv("METADENSITY_RUNS", str(runs))
    notebook = nbformat.read(path, as_version=4)
    began, spent = time.monotonic(), processor_seconds()
    client(notebook).execute()
    # Processor time, which waiting for another test is no part of; by the clock, so that no cell waits for nothing.
    assert 1 < processor_seconds() - spent < 120, "a notebook should take under a minute on two cores"
    assert time.monotonic() - began < 180, "a notebook should take under a minute on two free cores"
    assert warnings_in(notebook) == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    if path.stem == SLIDERS:
        shown = [kind for output in outputs(notebook) for kind in output.get("data", {})]
        there = importlib.util.find_spec("ipywidgets") is not None
        assert ("application/vnd.jupyter.widget-view+json" in shown) == there
        text = "".join(output.text for output in outputs(notebook) if output.get("name") == "stdout")
        none, given = map(float, re.findall(r"([\d.]+) nats given none, ([\d.]+) given", text)[0])
        assert given < none - 3, "the model learned nothing from its support"  # 13 nats here
    assert [folder.name for folder in runs.iterdir()] in ([], ["notebooks"]), "a notebook left a run in the user's runs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_with_its_outputs_and_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert problems(notebook) == [], "store it anew: python notebooks/store.py"
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert path.stat().st_size < 300_000
    assert not any(part in path.read_text() for part in (str(ROOT), str(Path.home()) + "/", sys.prefix))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_asks_one_question_and_says_what_is_seen(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    title = cells[0].source.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith("?")
    assert cells[-1].source.startswith("**Seen:** ")
    lines = [cell.source.count("\n") + 1 for cell in cells if cell.cell_type == "code"]
    assert max(lines) <= 30, "cells are to be read; move what is longer into experiments/"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_experiments_come_before_torch(path: Path) -> None:
    """How long waiting threads spin is read when torch is loaded, and set when ``experiments`` is."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert re.search(r"^import experiments\b", cells[0], re.M)
    assert not re.search(r"^(import|from) (torch|metadensity|tasks|matplotlib)\b", cells[0], re.M)


def test_they_install_the_package_where_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first cell, the same in all, asks pip for it by its name, in a notebook on its own such as Colab has."""
    (first,) = {
        next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        for path in NOTEBOOKS
    }
    asked: list[tuple[str, ...]] = []
    fake = ModuleType("shell")
    fake.run_line_magic = lambda *line: asked.append(line)  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(first, {"get_ipython": lambda: fake})
    assert asked == []
    assert Path.cwd() == tmp_path
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(first, {"get_ipython": lambda: fake})
    assert asked == [("pip", "install --quiet metadensity")]


def test_there_is_one_notebook_for_each_question() -> None:
    assert {path.stem for path in NOTEBOOKS} == QUESTIONS


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (new_output("stream", name="stdout", text="saved in /data/somebody/runs/1"), "absolute path: /data/somebody/"),
        (new_output("display_data", data={"text/html": "<td>'/tmp/runs/1'</td>"}), "absolute path: /tmp/runs/1"),
        (new_output("stream", name="stdout", text="~/runs"), "absolute path: ~/r"),
        (new_output("stream", name="stderr", text="UserWarning: no"), "stderr: 'UserWarning: no'"),
        (new_output("error", ename="ValueError", evalue="", traceback=[]), "error: ValueError"),
    ],
)
def test_what_is_not_to_be_stored_is_found(output: Any, said: str) -> None:
    fine = new_output("stream", name="stdout", text="4.2 nats/image, runs/1/best, https://host/a/b, (h, w)")
    table = new_output("display_data", data={"text/html": "<td>1</td></tr>", "image/png": "/tmp/like/base64"})
    cell = new_code_cell("1", execution_count=1, outputs=[fine, table])
    sound = new_output("display_data", data={"text/html": '<source src="data:audio/wav;base64,UklG+/ab/cd=" />'})
    cell.outputs.append(sound)
    assert problems(new_notebook(cells=[cell])) == []
    cell.outputs.append(output)
    assert any(problem.startswith(said) for problem in problems(new_notebook(cells=[cell])))
    assert problems(new_notebook(cells=[new_code_cell("1")])) == ["not executed: '1'"]


def slider_cell() -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{SLIDERS}.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if "import ipywidgets" in cell.source)


def test_sliders_are_useful_without_ipywidgets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    exec(slider_cell(), {"show": None})
    assert "pip install ipywidgets" in capsys.readouterr().out


def test_sliders_choose_shots_temperature_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    fake: Any = ModuleType("ipywidgets")
    fake.IntSlider = lambda value, low, high, **_: (value, low, high)
    fake.FloatSlider = lambda value, min, max, step, **_: (value, min, max)
    fake.interact = lambda function, **sliders: asked.update(sliders, function=function)
    monkeypatch.setitem(sys.modules, "ipywidgets", fake)
    exec(slider_cell(), {"show": "the function", "few": 4, "most": 8})
    assert asked == {"function": "the function", "shots": (4, 0, 8), "temperature": (1.0, 0.3, 1.5), "seed": (0, 0, 99)}


def test_store_leaves_out_what_the_machine_adds_and_refuses_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / "store.py", folder)
    bar = "import sys\nprint('kept')\nprint('meta-training:  50%|#####     |', end='\\r', file=sys.stderr)"
    for name, source in (("good", bar), ("bad", "import os\nprint(os.path.abspath('x'))")):
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), folder / f"{name}.ipynb")
    command = [sys.executable, str(folder / "store.py")]
    good, bad = (subprocess.run([*command, name], capture_output=True, text=True) for name in ("good", "bad"))
    assert good.returncode == 0, good.stderr
    notebook = nbformat.read(folder / "good.ipynb", as_version=4)
    assert [output.text for output in outputs(notebook)] == ["kept\n"]
    assert problems(notebook) == []
    assert bad.returncode == 1
    assert "of this machine" in bad.stderr
    assert outputs(nbformat.read(folder / "bad.ipynb", as_version=4)) == []

"""Notebooks refuse parameters that cannot be meant, as papermill gives them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from experiments.recording.notebook_parameters import check_parameters
from experiments.recording.settings import SettingError

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def begun(path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> dict[str, Any]:
    """What is defined once a notebook has checked the parameters that papermill wrote into it."""
    from papermill.translators import PythonTranslator

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (place,) = [number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert "check_parameters(globals()" in cells[place + 1].source, "the cell of parameters is not followed by a check"
    names: dict[str, Any] = {"In": [""], "Out": {}, "_i": "", "exit": object()}  # as IPython has them
    for cell in cells[: place + 1]:
        exec(cell.source, names)
    exec(PythonTranslator.codify(parameters), names)
    exec(cells[place + 1].source, names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tuple_and_a_mistyped_name_are_refused_in_every_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = begun(path, monkeypatch)
    (checked,) = [cell for cell in nbformat.read(path, as_version=4).cells if "check_parameters(" in cell.source]
    parameters = [name for name in ("run", "evaluations", "folder", "task") if f"{name}=" in checked.source]
    assert parameters
    for name in parameters:
        assert name in names
        with pytest.raises(SettingError, match=rf"{name}=.* papermill hands a tuple over as text"):
            begun(path, monkeypatch, **{name: ("4", "7")})
        with pytest.raises(SettingError, match=rf"{name}=True; give "):
            begun(path, monkeypatch, **{name: True})
        with pytest.raises(SettingError, match=rf"There is no parameter {name}s\. Did you mean {name}\?"):
            begun(path, monkeypatch, **{f"{name}s": "latest"})
    with pytest.raises(SettingError, match=rf"There is no parameter zzz\. There are {parameters[0]}"):
        begun(path, monkeypatch, zzz=3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("explore_samples", {"run": 7}),
        ("explore_samples", {"run": "runs/7"}),
        ("explore_samples", {"run": None}),
        ("look_at_tasks", {"folder": "my (old) images/a"}),
        ("look_at_tasks", {"folder": "(2024) images"}),
        ("compare_runs", {"evaluations": ["4", 7]}),
        ("compare_runs", {"evaluations": "4", "task": {"name": "emoji", "size": 8}}),
    ],
    ids=str,
)
def test_what_can_be_meant_is_taken_as_it_is(
    name: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = begun(ROOT / "notebooks" / f"{name}.ipynb", monkeypatch, **parameters)
    assert {key: names[key] for key in parameters} == parameters


def test_of_python() -> None:
    check_parameters({"run": "latest", "_": "x", "os": sys, "In": [1]}, run=str | None)
    for text in ("('4', '7')", ' ["4"]', "{'name': 'emoji'}"):
        with pytest.raises(SettingError, match="Give a list or a mapping, as with -y"):
            check_parameters({"run": text}, run=str | None)
    with pytest.raises(SettingError, match=r"task='emoji'; give a mapping"):
        check_parameters({"task": "emoji"}, task=dict)

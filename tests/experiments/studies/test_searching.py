"""Searches by Optuna over units: what was begun is finished, what failed is not repeated, workers share a journal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sacred.utils import SacredInterrupt

from experiments import sweep
from experiments.studies.searching import Range, read_range, search
from experiments.studies.units import HeldError, Unit, read_units

NAMED = ["hershey", "conditional", "fast"]
RANGES = {"training.learning_rate": Range(1e-4, 1e-1), "model.layers": Range(2, 5)}


@dataclass
class Done:
    best: float | None


def value_of(unit: Unit) -> Done:
    return Done(unit.config["training"]["learning_rate"] + unit.config["model"]["layers"])


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path / "runs"))


def searched(file: Path, trials: int, work: Callable[[Unit], Any] = value_of, **ranges: Range) -> list[Any]:
    return list(search(file, ranges or RANGES, NAMED, {"task.size": 8}, trials, 0, work))


def test_units_are_proposed_done_and_added_to_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "search.jsonl"
    first = searched(file, 3)
    assert [number for number, _, _ in first] == [0, 1, 2]
    assert all(found == value_of(unit).best for _, unit, found in first)
    assert searched(file, 3) == []  # there are enough
    assert [number for number, _, _ in searched(file, 5)] == [3, 4]
    units = read_units(file)
    assert [unit.id for unit in units[:3]] == [unit.id for _, unit, _ in first]
    assert all(1e-4 <= unit.config["training"]["learning_rate"] <= 1e-1 for unit in units)
    assert all(unit.config["model"]["layers"] in range(2, 6) for unit in units)
    with pytest.raises(ValueError, match="is of another search"):
        searched(file, 9, **{"model.layers": Range(2, 9)})


def test_what_was_interrupted_is_taken_up_and_what_failed_is_not(tmp_path: Path) -> None:
    file, begun = tmp_path / "search.jsonl", list[str]()

    def stopped(unit: Unit) -> Done:
        begun.append(unit.id)
        raise SacredInterrupt

    with pytest.raises(SacredInterrupt):
        searched(file, 2, stopped)

    def failing(unit: Unit) -> Done:
        begun.append(unit.id)
        if len(begun) == 2:
            raise RuntimeError("no memory")
        return value_of(unit)

    results = searched(file, 2, failing)
    assert begun[1] == begun[0]  # the unit that was interrupted
    assert [type(found) for _, _, found in results] == [RuntimeError, float]
    assert searched(file, 2, failing) == []
    assert len(begun) == 3


def test_what_another_worker_holds_is_left_to_it(tmp_path: Path) -> None:
    file, asked = tmp_path / "search.jsonl", list[str]()

    def held_once(unit: Unit) -> Done:
        asked.append(unit.id)
        if len(asked) == 1:
            raise HeldError
        return value_of(unit)

    assert len(searched(file, 2, held_once)) == 2
    assert len(set(asked)) == 2  # here nothing holds it in truth, so it is taken next


def test_it_finds_where_the_least_is(tmp_path: Path) -> None:
    results = searched(tmp_path / "search.jsonl", 25, **{"training.learning_rate": Range(1e-4, 1e-1)})
    assert min(found for _, _, found in results) < 2 + 5e-4 + results[0][1].config["model"]["layers"] - 2


def test_ranges() -> None:
    assert read_range("a", "1e-4..1e-2") == Range(1e-4, 1e-2)
    assert read_range("a", "2..8") == Range(2, 8)
    assert read_range("a", '["dot", null, [0, 1]]') == Range(values=("dot", None, [0, 1]))
    for wrong in ("3", "8..2", "a..b", "[1]", "", "1..2..3"):
        with pytest.raises(ValueError, match=r"--vary model\.layers=.*: give a range"):
            read_range("model.layers", wrong)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "search.jsonl")
    words = ["search", file, "--vary", "model.planes=[4,6]", "--trials", "1", "with", *NAMED, "task.size=8"]
    assert sweep.main(words) == 0
    assert "trial 0, model.planes=" in capsys.readouterr().out
    assert sweep.main(["table", file]) == 0
    assert "1 COMPLETED" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert sweep.main(words) == 2
    assert "pip install 'metadensity[search]'" in capsys.readouterr().err

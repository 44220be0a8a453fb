"""One progress bar: it counts what is there, says what is being done, and nothing else draws bars."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metadensity.evaluation.support_use import support_use
from metadensity.models import SupportMean
from metadensity.progress import progress_bar, with_progress
from tests.metadensity.toys import Patterns, trainer


def counted(text: str) -> dict[str, tuple[int, int]]:
    """By what was being done: how much was done in the end, of how much."""
    states = re.findall(r"([^\r\n:]+):\s+\d+%\|[^|]*\| (\d+)/(\d+) \[", text)
    return {name.strip(): (int(done), int(total)) for name, done, total in states}


def test_it_counts_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("abcde", "spelling", "letters")) == list("abcde")
    assert list(with_progress(iter("abc"), "reading", "letters", total=3)) == list("abc")
    with progress_bar("drawing", 30, "images") as bar:
        for _ in range(3):
            bar.update(10)
    text = capsys.readouterr().err
    assert counted(text) == {"spelling": (5, 5), "reading": (3, 3), "drawing": (30, 30)}
    assert " letters/s" in text


def test_it_shows_nothing_where_nothing_is_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("abc", "spelling", "letters", shown=False)) == list("abc")
    trainer().run()
    assert capsys.readouterr() == ("", "")


def test_training_says_that_it_validates(capsys: pytest.CaptureFixture[str]) -> None:
    trainer().run(progress=True)
    trainer().run(progress="fitting a baseline")
    found = counted(capsys.readouterr().err)
    assert found["meta-training"] == found["fitting a baseline"] == (6, 6)
    assert found["validating"] == (3, 3)  # eight tasks in a batch, at three numbers of shots


def test_the_controls_of_the_support_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [Patterns().episode(index, 2, 1, 1) for index in range(4)]
    support_use(SupportMean((1, 4, 4), 2), episodes, progress=True)
    found = counted(capsys.readouterr().err)
    names = ("with the true support", "with empty as support", "with another class as support", "with noise as support")
    assert found == dict.fromkeys(names, (4, 4))


def test_nothing_else_draws_bars(repo_root: Path) -> None:
    drawing = [
        path.relative_to(repo_root).as_posix()
        for floor in ("metadensity", "tasks", "experiments")
        for path in (repo_root / floor).rglob("*.py")
        if re.search(r"^\s*(from|import) tqdm", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert drawing == ["metadensity/progress.py"]

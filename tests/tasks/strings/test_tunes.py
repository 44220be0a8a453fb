"""Tunes: what a bar of ABC text is, which tunes there are, and how they are split."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from tasks import SPLITS, TASKS, DataError, ImageTasks
from tasks.data.notices import SAID
from tasks.strings import tunes
from tasks.strings.abc_notation import bars_of, read_tunes
from tasks.strings.choose_tunes import themes, title_key

TUNE = """% a comment before the first tune
X:7
T:The Belles, Reel
M:2/4
K:G % one sharp
% nothing
"_f"u((3DEF)|\\
G2GA   BcdB|[1 "G"A4 !trill!B4:|2 c``d [M:3/4]e2||
P:second part
A:|[CE]2 [|^F=c|] %% end
!c2B-A G2 !D.C.!||


X: 8
T:No music
"""


def make(split: str = "test", **options: Any) -> ImageTasks:
    task = TASKS["tunes"](split=split, **options)
    assert isinstance(task, ImageTasks)
    return task


def spelt(task: ImageTasks, ids: Any) -> list[str]:
    alphabet = task.recipe["alphabet"]
    return ["".join(alphabet[c] for c in row[0].tolist() if c < len(alphabet)) for row in task.pixels(ids)]


def test_a_bar_is_the_music_between_two_bar_lines() -> None:
    seven, eight = read_tunes(TUNE)
    assert (seven.number, seven.titles) == ("7", ("The Belles, Reel",))
    expected = ["u((3DEF)", "G2GA BcdB", "A4 B4", "cd e2", "A", "[CE]2", "^F=c", "c2B-A G2"]
    assert list(seven.bars) == expected
    assert (eight.titles, eight.bars) == (("No music",), ())


def test_endings_are_no_notes_and_lengths_are() -> None:
    assert bars_of("A2|1 B2 c2:|2 d3|3/2 e|") == ["A2", "B2 c2", "d3", "3/2 e"]
    assert bars_of("A2::B2||:c2:||:d2|1,3 e2") == ["A2", "B2", "c2", "d2", "e2"]


def test_bars_come_back_as_they_are_in_the_book() -> None:
    """One tune of Ryan's, by hand: its ninth to twelfth bars, and not the fourth, which is the second again."""
    task = make("train+validation+test")
    name = next(name for name in task.class_names if name.endswith("(ryansMammoth/AcaciaReel 1)"))
    assert name.startswith("Acacia -- Reel")
    mine = spelt(task, (task.labels == task.class_names.index(name)).nonzero()[0])
    assert len(set(mine)) == len(mine) >= tunes.LEAST
    written = (
        "u((3def)|vG2GA BcdB|{d}cBcd .e2((3def)|{a}gfge dBGB|cBAG FADF|vG2vGA BcdB|{d}cBcd edef|gfge dBGA|BGAF G2|"
        "{a}gfga bgdB|bagb agfa|dgfg ecAF|G2G2G2|fdef gfga|{d}cBcd .e2((3def)"
    )
    assert set(mine) & set(written.split("|")), "bars that stand in the book"


def test_each_bar_of_a_tune_is_there_once_and_no_theme_in_two_splits() -> None:
    parts = {split: make(split) for split in SPLITS}
    assert {split: (task.classes, task.images, len(task.group_names)) for split, task in parts.items()} == {
        "train": (2258, 30103, 1914),
        "validation": (135, 1905, 106),
        "test": (331, 4588, 270),
    }
    for task in parts.values():
        bars = spelt(task, range(task.images))
        assert {len(bar) for bar in bars} == set(range(tunes.SHORTEST, tunes.LONGEST + 1))
        assert len(set(zip(task.labels.tolist(), bars, strict=True))) == task.images
        assert int(task.class_size.min()) >= tunes.LEAST
    kept = {split: {name.rpartition("(")[2][:-1] for name in task.class_names} for split, task in parts.items()}
    read = tunes.read_books(tunes._texts())
    chosen = themes({name: tune for name, tune in read.items() if len(tunes.different_bars(tune)) >= tunes.LEAST})
    of_part = {split: {chosen[name] for name in names} for split, names in kept.items()}
    assert len(set().union(*of_part.values())) == sum(map(len, of_part.values()))


def test_settings_of_one_tune_are_a_theme() -> None:
    text = "X:{}\nT:{}\nK:G\n{}|\n"
    one, other, third = "ABc|Bcd|cde|def", "ABc|gfe|gab|fed", "dfa|dga|dea|dba"
    books = {"a": text.format(1, "Belles", one) + text.format(2, "X", other)}
    books["a"] += text.format(3, "The BELLES, reel", third)
    books["a"] += text.format(4, "Y", "aaa|bbb|ccc|Bcd|ggg|fff|eee|ddd|DDD")
    read = tunes.read_books(books)
    assert themes(read) == {"a 1": "a 1", "a 2": "a 1", "a 3": "a 1", "a 4": "a 1"}  # 4 has a quarter of 1
    books["a"] = books["a"].replace("Bcd|ggg", "ggg")
    assert themes(tunes.read_books(books))["a 4"] == "a 4"
    assert title_key("Belles of Clonallan -- Jig") == title_key("THE BELLES OF CLONALLAN,") == "bellesofclonallan"


def test_what_follows_the_end_is_known_by_the_lengths() -> None:
    episode = make().episode(3, tasks=5, shots=8, queries=2)
    assert episode.support_lengths is None
    assert episode.query_lengths is not None
    end = make().levels - 1
    for query, count in zip(episode.query.flatten(0, 1), episode.query_lengths.flatten(), strict=True):
        assert end not in query[0, : count - 1].tolist()
        assert all(level == end for level in query[0, count:].tolist())


def test_the_recipe_names_the_text_and_its_reader() -> None:
    recipe = make().recipe
    assert (recipe["parser"], recipe["parser_version"]) == ("tasks.strings.abc_notation", 1)
    assert recipe["images_sha256"] == tunes.texts_sha256(tunes._texts())
    assert make().fingerprint != make(length=12).fingerprint


def test_tunes_without_bars_enough_are_left_out_and_said() -> None:
    task = make(length=8)
    assert max(map(len, spelt(task, range(task.images)))) == 8
    assert any("have fewer than 10 different bars of 8 characters at most" in line for line in SAID)
    with pytest.raises(DataError, match="no tune has 10 bars of 3 characters at most"):
        make("validation", length=3)
    with pytest.raises(ValueError, match="length=2; give at least 3"):
        make(length=2)


def test_other_tunes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunes, "_texts", lambda: {"airdsAirs/book1": TUNE})
    with pytest.raises(DataError, match=r"have checksum .* pip install music21==10\.5\.1"):
        make()


def test_no_music21_and_one_without_its_corpus_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tunes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the corpus of music21\. Install it, .*pip install music21==10\.5\.1"):
        make()
    spec = spec_from_loader("music21", loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(tunes.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"oneills1850 holds no ABC files: this music21 came without its corpus"):
        make()
    for book in tunes.BOOKS:
        (tmp_path / "corpus" / book).mkdir(parents=True)
        (tmp_path / "corpus" / book / "x.abc").write_bytes(b"X:1\nT:caf\xe9\nK:G\nABc|\n")
    with pytest.raises(DataError, match=r"x\.abc is no text in UTF-8 .*Install music21 again"):
        make()


def test_music21_is_not_imported() -> None:
    """It would take seconds, and half a gigabyte of memory with what it imports in turn."""
    program = "import sys; from tasks import TASKS; TASKS['tunes']('validation'); assert 'music21' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

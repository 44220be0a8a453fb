"""Splits drawn from a seed: by group and by class, on small made families, the Hershey fonts and real Omniglot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import SPLITS, TASKS
from tasks.hershey.choose_split import LeakError, require_no_leak, shapes
from tasks.hershey.task import _drawn, split_glyphs
from tasks.splits.committed import load_split
from tasks.splits.random_splits import drawn_classes, drawn_groups, drawn_shapes, shuffled, without_shared_shapes


def joined(parts: dict[str, list[str]]) -> list[str]:
    return [name for names in parts.values() for name in names]


def apart(sets: list[set[str]]) -> bool:
    return sum(map(len, sets)) == len(set().union(*sets))


def test_the_draw_is_fixed_for_ever() -> None:
    # By hand: sorted by SHA-256 of "seed name". Another order would change every split of a published number.
    assert shuffled(["a", "b", "c", "d"], 0) == ["b", "a", "c", "d"]
    assert shuffled(["d", "a", "c", "b", "a"], 0) == ["b", "a", "c", "d"]
    assert shuffled(["a", "b", "c", "d"], 1) != shuffled(["a", "b", "c", "d"], 0)


def test_every_group_is_held_out_about_as_often() -> None:
    """Of 10 groups 3 are drawn, 2,000 times: each 600 times, sd 20.5. Five of them: false alarm below 1e-5."""
    names = [f"group {number}" for number in range(10)]
    drawn = [drawn_groups(names, {"train": 5, "validation": 2, "test": 3}, seed) for seed in range(2000)]
    assert {tuple(map(len, split.values())) for split in drawn} == {(5, 2, 3)}
    assert all(sorted(joined(split)) == names for split in drawn)
    counts = np.array([sum(name in split["test"] for split in drawn) for name in names])
    assert abs(counts - 600).max() < 5 * 20.5


def test_of_every_group_there_are_classes_in_every_split() -> None:
    groups = {"long": [f"long/{i}" for i in range(40)], "short": [f"short/{i}" for i in range(3)]}
    split = drawn_classes(groups, {"train": 60, "validation": 10, "test": 30}, 5)
    assert sorted(joined(split)) == sorted(joined(groups))
    assert [sum(name.startswith("long") for name in split[part]) for part in SPLITS] == [24, 4, 12]
    assert [sum(name.startswith("short") for name in split[part]) for part in SPLITS] == [1, 1, 1]
    # In the groups' own order.
    assert split["test"] == [name for name in joined(groups) if name in split["test"]]
    with pytest.raises(ValueError, match=r"group 'few' has 2 classes; a split by class needs at least 3"):
        drawn_classes({"few": ["a", "b"]}, {"train": 1, "validation": 1, "test": 1}, 0)


def test_shapes_stay_together() -> None:
    classes = {f"{font}/{i}": (font, f"shape {i // 2}") for font in ("one", "two") for i in range(20)}
    for seed in range(20):
        split = drawn_shapes(classes, {"train": 20, "validation": 8, "test": 12}, seed)
        found = [{classes[name][1] for name in split[part]} for part in SPLITS]
        assert apart(found)
        assert [len(split[part]) for part in SPLITS] == [20, 8, 12]
    # A font that training would not know is left out, not tested: it would be a held-out group.
    lone = {**classes, "three/0": ("three", "alone")}
    kept = [drawn_shapes(lone, {"train": 20, "validation": 8, "test": 12}, seed) for seed in range(20)]
    assert all("three/0" not in split["test"] + split["validation"] for split in kept)
    assert any("three/0" in split["train"] for split in kept)
    assert any("three/0" not in joined(split) for split in kept)


def test_whole_groups_lose_what_an_earlier_one_holds() -> None:
    classes = {f"{font}/{i}": (font, f"{i}" if i < 3 else f"{font} {i}") for font in "abc" for i in range(6)}
    split = without_shared_shapes({"train": ["a"], "validation": ["b"], "test": ["c"]}, classes, least=3)
    assert split == {
        "train": ["a/3", "a/4", "a/5"],
        "validation": ["b/3", "b/4", "b/5"],
        "test": [f"c/{i}" for i in range(6)],
    }
    assert without_shared_shapes({"train": ["a"], "validation": ["b"], "test": ["c"]}, classes, least=4) == {
        "train": [],
        "validation": [],
        "test": [f"c/{i}" for i in range(6)],
    }


@pytest.mark.parametrize("name", ["hershey", "omniglot"])
def test_options_out_of_range_are_refused(name: str, tmp_path: Path) -> None:
    for options, message in (
        ({"split_by": "font"}, r"split_by='font'; give 'group' .* or None for the committed split"),
        ({"split_by": "class", "split_seed": -1}, r"split_seed=-1; give an integer from 0"),
        ({"split_seed": 3}, r"split_seed=3 without split_by: the committed split has no seed"),
    ):
        with pytest.raises(ValueError, match=message):
            TASKS[name](split="test", data_root=tmp_path, **options)


# The Hershey fonts.


def test_the_committed_shapes_are_what_the_rule_gives() -> None:
    glyphs = sorted((glyph for part in SPLITS for glyph in split_glyphs(part)), key=lambda glyph: glyph.name)
    found = shapes(glyphs)
    assert sorted(map(sorted, found)) == sorted(map(sorted, load_split("hershey")["shapes"]))
    assert max(map(len, found)) < 50, "the chains of alike glyphs do not run through everything"


def test_no_shape_is_in_two_drawn_splits() -> None:
    together = [set(names) for names in load_split("hershey")["shapes"]]
    for split_by in ("group", "class"):
        for seed in range(5):
            parts = [{glyph.name for glyph in glyphs} for glyphs in _drawn(split_by, seed)[0].values()]
            assert all(sum(bool(part & names) for part in parts) <= 1 for names in together)
    require_no_leak(_drawn("class", 0)[0])  # and by the guard, which knows nothing of these lists


def test_without_the_shapes_a_drawn_split_leaks() -> None:
    # The guard is not idle: characters drawn one by one stand in several splits in other weights.
    glyphs = {glyph.name: glyph for part in SPLITS for glyph in split_glyphs(part)}
    alone = {name: (glyph.font, name) for name, glyph in glyphs.items()}
    split = drawn_shapes(alone, {"train": 670, "validation": 85, "test": 413}, 0)
    with pytest.raises(LeakError, match=r"[1-9]\d\d shapes stand in both train and test"):
        require_no_leak({part: [glyphs[name] for name in split[part]] for part in ("train", "test")})


@pytest.mark.parametrize(
    ("split_by", "seed", "classes", "sha256"),
    [
        ("group", 0, (594, 28, 303), "cc50f0c7e36a"),
        ("group", 1, (528, 170, 302), "2d2c8de0119e"),
        ("class", 0, (670, 85, 413), "523cc8cedf97"),
        ("class", 1, (668, 87, 413), "beeadbb0e540"),
    ],
)
def test_drawn_splits_of_hershey(split_by: str, seed: int, classes: tuple[int, int, int], sha256: str) -> None:
    options: dict[str, Any] = {"size": 8, "drawings": 2, "split_by": split_by, "split_seed": seed}
    train, validation, test = (TASKS["hershey"](split=split, **options) for split in SPLITS)
    assert (train.classes, validation.classes, test.classes) == classes
    assert test.recipe["split_sha256"].startswith(sha256)
    assert (test.recipe["split_by"], test.recipe["split_seed"]) == (split_by, seed)
    names = [set(task.class_names) for task in (train, validation, test)]
    assert apart(names)
    fonts = [set(task.group_names) for task in (train, validation, test)]
    if split_by == "group":
        assert apart(fonts)
    else:
        assert fonts[2] <= fonts[0]
        assert fonts[1] <= fonts[0]
    both = TASKS["hershey"](split="train+validation", **options)
    assert both.class_names == train.class_names + validation.class_names
    assert len(set(both.group_names)) == len(both.group_names)


def test_a_drawn_split_has_the_images_of_the_committed_one() -> None:
    committed = [TASKS["hershey"](split=split, size=8, drawings=3) for split in SPLITS]
    images = {
        name: task.pixels(np.flatnonzero(task.labels == number)).numpy()
        for task in committed
        for number, name in enumerate(task.class_names)
    }
    drawn = TASKS["hershey"](split="test", size=8, drawings=3, split_by="class", split_seed=2)
    for number, name in enumerate(drawn.class_names):
        assert np.array_equal(drawn.pixels(np.flatnonzero(drawn.labels == number)).numpy(), images[name])
        assert name.split("/")[0] == drawn.group_names[drawn.class_group[number]]
    assert "split_by" not in committed[0].recipe, "the recipe of the committed split stays what it was"


# Real Omniglot.


@pytest.mark.parametrize(
    ("split_by", "seed", "classes", "sha256"),
    [
        ("group", 0, (1381, 94, 148), "3b43b2e1a7de"),
        ("group", 1, (1366, 107, 150), "a8f9d6ebdeb9"),
        ("class", 0, (1405, 74, 144), "f49103af4d6e"),
        ("class", 1, (1405, 74, 144), "cdb9e2390f6a"),
    ],
)
def test_drawn_splits_of_omniglot(
    data_root: Path, split_by: str, seed: int, classes: tuple[int, int, int], sha256: str
) -> None:
    options: dict[str, Any] = {"data_root": data_root, "split_by": split_by, "split_seed": seed}
    train, validation, test = (TASKS["omniglot"](split=split, **options) for split in SPLITS)
    assert (train.classes, validation.classes, test.classes) == classes
    assert test.recipe["split_sha256"].startswith(sha256)
    assert len({*train.class_names, *validation.class_names, *test.class_names}) == 1623
    sizes = (42, 3, 5) if split_by == "group" else (50, 50, 50)
    assert tuple(len(task.group_names) for task in (train, validation, test)) == sizes
    assert (set(test.group_names) <= set(train.group_names)) == (split_by == "class")
    for number, name in enumerate(test.class_names):
        assert test.group_names[test.class_group[number]] == name.split("/")[0]
    # The same pixels under the same names as in the paper's split.
    paper = TASKS["omniglot"](split="+".join(SPLITS), data_root=data_root)
    for name in test.class_names[::29]:
        pixels = [
            task.pixels(np.flatnonzero(task.labels == task.class_names.index(name))).numpy() for task in (paper, test)
        ]
        assert np.array_equal(*pixels)


def test_the_sizes_follow_the_protocol(data_root: Path) -> None:
    options: dict[str, Any] = {"data_root": data_root, "protocol": "background"}
    by_class = TASKS["omniglot"](split="test", split_by="class", **options)
    assert abs(by_class.classes - 659) < 15
    assert len(TASKS["omniglot"](split="test", split_by="group", **options).group_names) == 20


def test_no_original_is_in_two_drawn_splits(data_root: Path) -> None:
    options: dict[str, Any] = {"data_root": data_root, "size": 105, "split_by": "class"}
    parts = [TASKS["omniglot"](split=split, **options) for split in ("train+validation", "test")]
    images = [{row.numpy().tobytes() for row in task.pixels(range(task.images))} for task in parts]
    assert not images[0] & images[1]

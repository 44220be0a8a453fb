"""The embedded default: no shape in two splits, drawings as stated, the cache."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

import tasks.hershey.task
from tasks import SPLITS, TASKS, DataError
from tasks.hershey.choose_split import FONTS, LeakError, choose, require_no_leak
from tasks.hershey.drawing import PEN, draw
from tasks.hershey.glyphs import STROKE_DISTANCE, Glyph, alike, fonts_checksum, hershey_fonts, normalised, subdivided
from tasks.hershey.task import split_glyphs
from tasks.splits.committed import load_split


def copied(glyph: Glyph, *, turned: bool = False, wobble: float = 0.0) -> Glyph:
    """The glyph at another place and size, its strokes backwards and in another order."""
    strokes = [(stroke[::-1] * 13.7 + [3.1, -8.2]) for stroke in reversed(glyph.strokes)]
    if turned:
        strokes = [stroke[:, ::-1] for stroke in strokes]
    noise = np.random.default_rng(0)
    strokes = [stroke + wobble * 13.7 * noise.uniform(-1, 1, stroke.shape) for stroke in strokes]
    made = normalised("forged", glyph.code, [list(map(tuple, stroke)) for stroke in strokes])
    assert made is not None
    return made


def named(name: str) -> Glyph:
    font, code = name.split("/")
    return next(glyph for glyph in hershey_fonts()[font] if glyph.code == int(code))


def test_the_committed_split_is_what_the_rule_gives() -> None:
    content = load_split("hershey")
    assert content["characters"] == choose(hershey_fonts())
    assert content["fonts"] == {split: list(fonts) for split, fonts in FONTS.items()}
    assert sorted(font for fonts in FONTS.values() for font in fonts) == sorted(hershey_fonts())
    assert len(hershey_fonts()) == 32


def test_no_shape_is_in_two_splits() -> None:
    require_no_leak({split: split_glyphs(split) for split in SPLITS})


@pytest.mark.parametrize(("source", "target"), [("train", "test"), ("train", "validation"), ("validation", "test")])
@pytest.mark.parametrize("wobble", [0.0, 0.01])
def test_a_forged_copy_trips_the_guard(source: str, target: str, wobble: float) -> None:
    # The negative control: a copy of another place, size and stroke order, exact and slightly redrawn.
    characters = {split: split_glyphs(split) for split in SPLITS}
    glyph = characters[source][17]
    characters[target] = [*characters[target], copied(glyph, wobble=wobble)]
    # It may also be alike to the same letter in another weight, hence the number is left open.
    message = rf"\d shapes stand in both {source} and {target}: .*{glyph.name} and forged/{glyph.code:03d}"
    with pytest.raises(LeakError, match=message):
        require_no_leak({split: characters[split] for split in (source, target)})


def test_the_rule_drops_a_forged_copy_and_keeps_a_new_shape() -> None:
    latin, kana = hershey_fonts()["rowmans"], hershey_fonts()["japanese"]
    first, second = list(latin[32:40]), [copied(latin[32]), *kana[70:76], copied(kana[70])]
    fonts = {
        font: [Glyph(font, number, glyph.strokes) for number, glyph in enumerate(glyphs)]
        for font, glyphs in (("first", first), ("second", second), ("few", kana[80:84]))
    }
    chosen = choose(fonts, {"train": ["first"], "test": ["second", "few"]})
    # The copy of a training shape is gone, a copy within the split is kept once, and a font of four is left out.
    assert chosen == {"train": {"first": list(range(8))}, "test": {"second": list(range(1, 7))}}


def test_without_the_rule_the_fonts_do_leak() -> None:
    # The guard is not idle: taken whole, the fonts of test and training share many shapes.
    whole = {split: [glyph for font in FONTS[split] for glyph in hershey_fonts()[font]] for split in ("train", "test")}
    with pytest.raises(LeakError, match=r"[1-9]\d\d shapes stand in both train and test"):
        require_no_leak({split: glyphs[::3] + glyphs[1::3] for split, glyphs in whole.items()})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("rowmans/065", "futural/065", True),  # A, cut alike
        ("timesr/090", "timesrb/090", True),  # Z in two weights
        ("rowmans/065", "rowmans/066", False),  # A and B
        ("rowmans/098", "rowmans/100", False),  # b and d: mirrored
        ("japanese/097", "japanese/098", False),
    ],
)
def test_which_shapes_count_as_one(one: str, other: str, same: bool) -> None:
    assert alike([named(one)], [named(other)]).item() is same


def test_alike_is_symmetric_and_knows_its_own() -> None:
    glyphs = list(hershey_fonts()["greek"])
    table = alike(glyphs, glyphs)
    assert table.diagonal().all()
    assert np.array_equal(table, table.T)
    assert alike(glyphs, [copied(glyph) for glyph in glyphs]).diagonal().all()
    assert not alike([named("rowmans/082")], [copied(named("rowmans/082"), turned=True)]).any()


def test_the_stroke_distance_is_the_hausdorff_distance() -> None:
    # The plain twin, on the points themselves; the raster's cells blur it by 0.0175 of the box.
    glyphs = [glyph for font in ("timesr", "timesrb") for glyph in hershey_fonts()[font][32:44]]
    points = [np.concatenate([subdivided(stroke, 0.02) for stroke in glyph.strokes]) for glyph in glyphs]
    table = alike(glyphs, glyphs)
    close = 0
    for i, first in enumerate(points):
        for j, second in enumerate(points):
            apart = np.linalg.norm(first[:, None] - second[None], axis=-1)
            if max(apart.min(axis=0).max(), apart.min(axis=1).max()) < STROKE_DISTANCE - 0.02:
                close += i != j
                assert table[i, j]
    assert close >= 6


def test_blank_glyphs_and_lone_points_are_no_characters() -> None:
    assert all(glyph.strokes for glyphs in hershey_fonts().values() for glyph in glyphs)
    assert normalised("font", 32, []) is None
    assert normalised("font", 33, [[(1.0, 2.0)]]) is None
    assert normalised("font", 34, [[(1.0, 2.0), (1.0, 2.0)]]) is None
    assert 32 not in {glyph.code for glyph in hershey_fonts()["rowmans"]}


def test_the_splits_have_the_stated_sizes() -> None:
    sizes = {split: len(split_glyphs(split)) for split in SPLITS}
    assert sizes == {"train": 670, "validation": 85, "test": 413}
    assert TASKS["hershey"](split="test", size=8, drawings=2).group_names == [
        *("japanese", "cyrillic", "gothicger", "scriptc", "scripts", "symbolic")
    ]


def test_a_drawing_depends_on_seed_character_and_number_alone() -> None:
    glyph, other = named("rowmans/082"), named("rowmans/083")
    five = draw(glyph, 0, 5, 28)
    assert np.array_equal(five, draw(glyph, 0, 5, 28))
    assert np.array_equal(five[:3], draw(glyph, 0, 3, 28))
    assert not np.array_equal(five, draw(glyph, 1, 5, 28))
    # Another character is drawn by other hands: the same glyph under another name comes out differently.
    assert not np.array_equal(five, draw(Glyph("other", glyph.code, glyph.strokes), 0, 5, 28))
    assert len({drawing.tobytes() for drawing in five}) == 5
    assert not np.array_equal(five, draw(other, 0, 5, 28))


@pytest.mark.parametrize("size", [8, 13, 20, 28, 48, 105])
def test_drawings_fill_the_box_at_any_size(size: int) -> None:
    for name in ("rowmans/065", "gothiceng/065", "japanese/120", "rowmans/124"):
        for image in draw(named(name), 0, 10, size):
            rows, columns = image.any(axis=1).nonzero()[0], image.any(axis=0).nonzero()[0]
            extent = max(np.ptp(rows), np.ptp(columns)) + 1
            assert 0.7 * size < extent <= size
            # Nothing is cut off at the border: a stroke that met it would fill a run of border pixels.
            assert 0.02 < image.mean() < 0.75


def test_pens_are_as_wide_as_stated() -> None:
    # Ink over the length of its medial line; a straight line has no joints that would blur the measure.
    line = normalised("made", 40, [[(0.0, 0.0), (0.0, 10.0)]])
    assert line is not None
    for size in (20, 28, 56):
        widths = [image.sum() / image.any(axis=1).sum() for image in draw(line, 0, 40, size)]
        low, high = (pen * size / 28 for pen in PEN)
        assert low - 0.3 < np.mean(widths) < high + 0.3
        assert min(widths) >= 1


def test_strokes_are_unbroken_at_small_sizes() -> None:
    from scipy.ndimage import label

    for name in ("rowmans/083", "rowmans/079", "rowmans/124", "scripts/065"):
        for image in draw(named(name), 0, 20, 20):
            assert label(image, np.ones((3, 3)))[1] == 1


def test_a_drawing_looks_like_its_glyph() -> None:
    # Nearly all ink lies near the glyph's own strokes, drawn without a change; other letters' ink does not.
    def distance_to(glyph: Glyph) -> np.ndarray:
        empty = np.ones((28, 28), dtype=bool)
        points = np.concatenate([subdivided(stroke, 0.02) for stroke in glyph.strokes])
        x, y = np.round(points * 25 + 13.5).astype(int).T
        empty[y, x] = False
        return np.asarray(distance_transform_edt(empty))

    letters = [named(f"rowmans/{code:03d}") for code in (65, 72, 79, 83, 88)]
    for glyph in letters:
        near = [np.mean([distance_to(one)[image].mean() for image in draw(glyph, 0, 10, 28)]) for one in letters]
        assert letters[int(np.argmin(near))] is glyph
        assert min(near) < 1.6


def test_more_drawings_keep_the_first_ones() -> None:
    few, many = (TASKS["hershey"](split="validation", size=12, drawings=count) for count in (3, 7))
    ids = few.class_start[:, None] + np.arange(3)
    assert torch.equal(few.pixels(ids), many.pixels(many.class_start[:, None] + np.arange(3)))
    assert many.class_size.tolist() == [7] * many.classes


def test_the_drawing_seed_changes_the_images_and_the_seed_does_not() -> None:
    base, seeded, redrawn = (
        TASKS["hershey"](split="validation", size=12, drawings=2, **options)
        for options in ({}, {"seed": 3}, {"drawing_seed": 3})
    )
    assert base.fingerprint == seeded.fingerprint != redrawn.fingerprint
    assert base.recipe["drawing_seed"] == 0
    assert redrawn.recipe["drawing_seed"] == 3


def test_the_largest_split_is_drawn_quickly(own_cache: Path) -> None:
    start = time.process_time()
    TASKS["hershey"](split="train", size=20)
    assert time.process_time() - start < 10
    start = time.process_time()
    TASKS["hershey"](split="train", size=20)
    assert time.process_time() - start < 1
    assert [path.suffix for path in (own_cache / "cache").iterdir()] == [".npz"]


def test_a_damaged_cache_is_built_again(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"split": "validation", "size": 10, "drawings": 2}
    first = TASKS["hershey"](**options)
    (path,) = (own_cache / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING):
        again = TASKS["hershey"](**options)
    assert "is damaged" in caplog.text
    assert "It is only a cache: building it again." in caplog.text
    assert again.fingerprint == first.fingerprint
    caplog.clear()
    assert TASKS["hershey"](**options).fingerprint == first.fingerprint
    assert not caplog.text


def test_other_strokes_than_those_split_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = dict(hershey_fonts())
    fonts["greek"] = fonts["greek"][1:]
    assert fonts_checksum(fonts) != fonts_checksum(hershey_fonts())
    monkeypatch.setattr(tasks.hershey.task, "hershey_fonts", lambda: fonts)
    with pytest.raises(DataError, match=r"Hershey-Fonts holds other strokes than the ones that were split"):
        TASKS["hershey"](split="test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, r"size=7; give at least 8"),
        ({"drawings": 1}, r"drawings=1; give at least 2"),
        ({"drawing_seed": -1}, r"drawing_seed=-1; give an integer from 0"),
        ({"seed": -1}, r"seed=-1; give an integer from 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASKS["hershey"](split="validation", **options)
    with pytest.raises(TypeError, match="size='28' is a str"):
        TASKS["hershey"](split="validation", size="28")

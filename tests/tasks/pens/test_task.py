"""The task pens: whose drawings, in which split; and files that are not what they should be."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks import SPLITS, TASKS, DataError, ImageTasks
from tasks.data import notices
from tasks.hershey.task import split_glyphs
from tasks.omniglot.archives import ink_rows
from tasks.pens import decode, image
from tasks.pens.drawings import STROKES, omniglot_drawings
from tasks.splits.committed import load_split

CATEGORIES = ("cat", "dog", "eye", "owl")


def drawings(number: int) -> list[list[list[list[int]]]]:
    """Three drawings of a category as QuickDraw's simplified files have them: strokes, each its x and its y."""
    cross = [[[0, 255], [0, 255]], [[255, 0], [0, 235 - 20 * number]]]
    hook = [[[10, 10, 60], [20, 90, 90 + 10 * number]]]
    return [cross, hook, [*cross, [[128], [200]]]]


CROSS = drawings(0)[0]


def make(split: str = "test", **options: Any) -> ImageTasks:
    task = TASKS["pens"](split=split, **options)
    assert isinstance(task, ImageTasks)
    return task


def drawn(task: ImageTasks, number: int) -> list[np.ndarray]:
    return decode(task.pixels(number)[0].numpy(), task.recipe["grid"], task.recipe["reach"])


def line(drawing: Any, **more: Any) -> str:
    return json.dumps(
        {"word": "cat", "countrycode": "NO", "recognized": True, "key_id": "1", "drawing": drawing, **more}
    )


def sketch(drawing: list[list[list[int]]]) -> np.ndarray:
    """As sketch-rnn has it: offsets, and whether the pen is lifted after the point."""
    points = np.array([(x, y) for xs, ys in drawing for x, y in zip(xs, ys, strict=True)])
    lifted = [at == len(xs) - 1 for xs, _ in drawing for at in range(len(xs))]
    return np.c_[np.diff(points, axis=0, prepend=[[0, 0]]), lifted].astype(np.int16)


def archive(path: Path, **parts: list[np.ndarray]) -> None:
    held = {}
    for name, drawings in parts.items():
        held[name] = np.empty(len(drawings), dtype=object)
        held[name][:] = drawings
    np.savez_compressed(path, allow_pickle=True, **held)


@pytest.fixture
def quickdraw(tmp_path: Path) -> Path:
    for number, name in enumerate(CATEGORIES):
        lines = "".join(f"{line(drawing)}\n" for drawing in drawings(number))
        (tmp_path / f"full_simplified_{name}.ndjson").write_text(f"{lines}\n")
    return tmp_path


def test_hershey_has_the_split_of_the_images() -> None:
    for split in SPLITS:
        task, glyphs = make(split), split_glyphs(split)
        left_out = {"gothiceng/087"} if split == "train" else set()  # of 129 moves and more
        assert task.class_names == [glyph.name for glyph in glyphs if glyph.name not in left_out]
        assert task.group_noun == "font"
        assert set(task.class_size.tolist()) <= {19, 20}, "rowmans/092, a bar, once has the moves of another"


def test_omniglot_has_the_split_of_the_images_of_small1(data_root: Path) -> None:
    parts = {split: make(split, corpus="omniglot", data_root=data_root) for split in SPLITS}
    assert [part.classes for part in parts.values()] == [136, 17, 89]
    images = load_split("omniglot")
    assert set(parts["train"].group_names) == set(images["small1"]["train"])
    held_out = {*parts["validation"].group_names, *parts["test"].group_names}
    assert not held_out & {*images["small1"]["train"], *images["small1"]["validation"]}
    trained_on = set(parts["train"].class_names) | set(parts["train"].group_names)
    for protocol in ("paper", "background", "small1", "small2", "vinyals"):
        assert not trained_on & set(images[protocol]["test"]), "what images test is not trained on as strokes"
    with zipfile.ZipFile(data_root / "omniglot" / "images_background_small1.zip") as file:
        members = [name.split("/") for name in file.namelist() if name.endswith(".png") and "__MACOSX" not in name]
    assert parts["train"].class_names == sorted({f"{alphabet}/{character}" for _, alphabet, character, _ in members})


def test_archives_that_are_packed_anew_are_the_same_drawings(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    for name in STROKES:
        place = tmp_path / "omniglot" / name
        with zipfile.ZipFile(data_root / "omniglot" / name) as old, zipfile.ZipFile(place, "w") as new:
            for member in old.namelist():
                if member.endswith(".txt"):
                    new.writestr(member.partition("/")[2], old.read(member))
    one, other = (make("test", corpus="omniglot", data_root=root) for root in (data_root, tmp_path))
    assert (one.fingerprint, one.recipe) == (other.fingerprint, other.recipe)


def test_strokes_of_omniglot_lie_where_their_images_have_ink(data_root: Path) -> None:
    found = omniglot_drawings([data_root / "omniglot" / name for name in STROKES[:1]])
    overlaps, others = [], []
    with zipfile.ZipFile(data_root / "omniglot" / "images_background_small1.zip") as file:
        members = sorted(name for name in file.namelist() if name.endswith("_01.png") and "__MACOSX" not in name)[::5]
        packed = [np.frombuffer(ink_rows(file.read(name), name), np.uint8).reshape(105, 14) for name in members]
    inks = [np.unpackbits(rows, 1, count=105).astype(bool) for rows in packed]
    for name, ink, other in zip(members, inks, [*inks[1:], inks[0]], strict=True):
        mine = image(found["/".join(name.split("/")[1:3])][0], 105, pen=4)
        for there, into in ((ink, overlaps), (other, others)):
            into.append((mine & there).sum() / (mine | there).sum())
    assert np.mean(overlaps) > 0.8
    assert np.mean(others) < 0.3


def test_time_that_runs_backwards_is_said(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        notices.SAID.clear()
        found = omniglot_drawings([data_root / "omniglot" / name for name in STROKES[:1]])
    assert (len(found), sum(map(len, found.values()))) == (136, 2720)
    assert "in 7 of 2,720 drawings time runs backwards somewhere; their points are taken in the order" in caplog.text


def test_what_was_left_out_clipped_and_rounded_is_said(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    notices.SAID.clear()
    for text in ("built", "read from the cache"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            task = make("test", corpus="omniglot", data_root=data_root, length=12)
        assert "463 points of 38 drawings lie beyond the image and are clipped to it" in caplog.text, text
        assert "722,053 points of 4,840 drawings are 91,721 moves on a grid of 28" in caplog.text, text
        assert "1,607 drawings of 89 classes are left out, as they take over 12 moves, or as fewer" in caplog.text, text
        notices.SAID.clear()
    assert int(task.class_size.min()) >= 2


def test_quickdraws_two_formats_are_the_same_drawings(
    quickdraw: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("sketch-rnn")
    for number, name in enumerate(CATEGORIES):
        first, second, third = map(sketch, drawings(number))
        archive(other / f"sketchrnn_{name}.npz", train=[first], valid=[second], test=[third])
    whole = make("train+validation+test", folder=quickdraw)
    again = make("train+validation+test", folder=other)
    assert (sorted(whole.class_names), whole.group_noun) == (list(CATEGORIES), "category")
    assert whole.class_names == again.class_names
    assert torch.equal(whole.pixels(range(12)), again.pixels(range(12)))
    start = int(whole.class_start[whole.class_names.index("cat")])
    one, hook, three = (drawn(whole, start + number) for number in range(3))
    assert [stroke[[0, -1]].tolist() for stroke in one] == [[[0, 0], [27, 27]], [[27, 0], [0, 25]]]
    assert hook[0][0].tolist() == [4, 0], "by the longer side, and in the middle"
    assert three[2].tolist() == [[14, 21]]


def test_a_drawing_of_two_categories_is_kept_by_one_split_and_said(quickdraw: Path) -> None:
    before = {split: make(split, folder=quickdraw) for split in SPLITS}
    assert [part.images for part in before.values()] == [6, 3, 3]
    (train, *_), (test,) = (before[split].class_names for split in ("train", "test"))
    lines = [line(drawing) for drawing in (*drawings(5), drawings(CATEGORIES.index(test))[1])]
    (quickdraw / f"full_simplified_{train}.ndjson").write_text("\n".join(lines))
    assert [make(split, folder=quickdraw).images for split in SPLITS] == [6, 3, 3]
    said = f"pens, folder, train: 1 drawings are left out, as a later split has the same: {train}."
    assert said in notices.SAID


BAD = [
    (
        "cat.ndjson",
        b'{"drawing": [[[0, 1], [0, 1]]]}\nnot json\n',
        r"cat\.ndjson, line 2 is no JSON .* Leave the line out",
    ),
    ("cat.ndjson", b'{"drawing": [[[0, 1], [0]]]}\n', r"cat\.ndjson, line 1 is no drawing: give .*as many x as y"),
    ("cat.ndjson", b'{"word": "cat"}\n', r"cat\.ndjson, line 1 is no drawing"),
    ("cat.ndjson", b"[1, 2]\n", r"cat\.ndjson, line 1 is no drawing"),
    ("cat.ndjson", b'{"drawing": [[["a"], [0]]]}\n', r"cat\.ndjson, line 1 is no drawing"),
    ("cat.ndjson", b'{"drawing": []}\n', r"cat\.ndjson, line 1 is an empty drawing"),
    ("cat.ndjson", b'{"drawing": [[[], []]]}\n', r"cat\.ndjson, line 1 is an empty drawing"),
    ("cat.ndjson", b"\xff\xfe\n", r"cat\.ndjson, line 1 is no JSON"),
    ("bat.npz", b"PK no zip", r"bat\.npz is damaged"),
    ("bat.ndjson", b"\n", r"bat\.ndjson: no drawings in it\. Replace it, or leave it out"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_a_file_of_quickdraw_that_is_none_is_named_with_its_line(
    quickdraw: Path, name: str, content: bytes, said: str
) -> None:
    (quickdraw / f"full_simplified_{name}").unlink(missing_ok=True)
    (quickdraw / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        make(folder=quickdraw)


@pytest.mark.parametrize("other", ["sketchrnn_cat.npz", "cat.ndjson", "full_raw_cat.ndjson"])
def test_a_category_in_two_files_is_refused(quickdraw: Path, other: str) -> None:
    """Both may hold the same drawing, as the two formats of QuickDraw do."""
    if other.endswith("npz"):
        archive(quickdraw / other, train=[sketch(drawing) for drawing in drawings(0)])
    else:
        (quickdraw / other).write_text(f"{line(CROSS)}\n" * 3)
    with pytest.raises(DataError, match=rf"several files of one category.*{re.escape(other)}.*Keep one of "):
        make(folder=quickdraw)


class Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('a pickle was executed')",))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"valid": [sketch(CROSS)]}, r"bat\.npz holds valid\.npy, and no array 'train'"),
        ({"train": [sketch(CROSS)[:, :2]]}, r"bat\.npz, train\[0\] is no array \(points, 3\) of dx, dy and the pen"),
        ({"train": [sketch(CROSS), sketch(CROSS)[:0]]}, r"bat\.npz, train\[1\] is an empty drawing"),
        ({"train": [sketch(CROSS) * 2]}, r"bat\.npz, train\[0\] holds moves that are not finite, or pens that are not"),
        ({"train": [Evil()]}, r"bat\.npz is damaged \(it holds builtins\.exec, which is no array\)"),
    ],
)
def test_an_archive_of_sketch_rnn_that_is_none_says_where(quickdraw: Path, parts: dict[str, Any], said: str) -> None:
    archive(quickdraw / "bat.npz", **parts)
    with pytest.raises(DataError, match=said):
        make(folder=quickdraw)


def test_a_folder_without_drawings_enough_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no folder\. Give one that holds QuickDraw's"):
        make(folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no \.ndjson and no \.npz files"):
        make(folder=tmp_path)
    (tmp_path / "cat.ndjson").write_text(line(CROSS))
    with pytest.raises(DataError, match="holds the categories cat; training, validation and test take three"):
        make(folder=tmp_path)


def write_strokes(root: Path, text: str = "START\n1,-1,0\n5,-5,10\nBREAK\n", second: str | None = None) -> None:
    (root / "omniglot").mkdir()
    for name, content in zip(STROKES, (text, text if second is None else second), strict=True):
        with zipfile.ZipFile(root / "omniglot" / name, "w") as file:
            file.writestr(f"__MACOSX/{name[:-4]}/Latin/character01/._0001_01.txt", "junk")
            file.writestr(f"{name[:-4]}/Latin/character01/0001_01.txt", content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3\n", "line 1: a file of strokes begins with START"),
        ("START\n1,-1,0\n1;2;3\n", "line 3: '1;2;3' is no point x,y,t and no BREAK"),
        ("START\n1,-1\n", "line 2: '1,-1' is no point"),
        ("START\nBREAK\n", "holds no points: an empty drawing"),
        ("START\n1,nan,0\nBREAK\n", "holds coordinates that are no finite numbers"),
    ],
)
def test_a_file_of_strokes_that_is_none_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    write_strokes(tmp_path, text)
    with pytest.raises(DataError, match=rf"small1\.zip, .*Latin/character01/0001_01\.txt,? {said}"):
        make(corpus="omniglot", data_root=tmp_path)


def test_missing_damaged_and_other_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"small1\.zip is missing\. Put the published file there, from https"):
        make(corpus="omniglot", data_root=tmp_path)
    write_strokes(tmp_path)
    with pytest.raises(DataError, match=r"hold other drawings .* than those that were split"):
        make(corpus="omniglot", data_root=tmp_path)
    place = tmp_path / "omniglot" / STROKES[1]
    place.write_bytes(place.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"small2\.zip is damaged \(File is not a zip file\)\. Replace it"):
        make(corpus="omniglot", data_root=tmp_path)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="corpus='kanji'; give one of hershey, omniglot, or folder="):
        make(corpus="kanji")
    with pytest.raises(ValueError, match="tolerance=-1; give cells, 0 or more"):
        make(tolerance=-1)
    with pytest.raises(ValueError, match="reach=9; give 1 to 5"):
        make(reach=9)
    with pytest.raises(ValueError, match="drawings=1; give at least 2"):
        make(drawings=1)


def test_the_recipe_says_what_the_strings_are(quickdraw: Path) -> None:
    one = make(folder=quickdraw)
    assert one.recipe["coding"] == "pen moves 1"
    assert {"images_sha256", "grid", "reach", "tolerance", "drawings", "length"} <= one.recipe.keys()
    assert one.fingerprint == make(folder=quickdraw, seed=5).fingerprint
    assert one.fingerprint != make(folder=quickdraw, grid=20).fingerprint
    (quickdraw / "full_simplified_cat.ndjson").write_text(f"{line(CROSS)}\n" * 3)
    assert make(folder=quickdraw).recipe["images_sha256"] != one.recipe["images_sha256"]
    assert make(folder=quickdraw, drawings=2).images == 2


def test_a_great_length_keeps_all_and_a_small_one_none(quickdraw: Path) -> None:
    with pytest.raises(DataError, match=r"no class has 2 drawings of 3 moves at most\. Give a greater length"):
        make(folder=quickdraw, length=3)

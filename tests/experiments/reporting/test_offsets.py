"""What a report says of the offset of recordings: by hand, on recordings made so, and on the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.reporting.offsets import Offsets, offsets_of
from experiments.run_page.parts import Page
from tasks import TASKS, ImageTasks
from tasks.media import Sounds


def recordings(most: list[list[int]], groups: list[int] | None = None, **more: Any) -> ImageTasks:
    """Classes of recordings of 9 places, 5 of them of the level that is given, which is the median too."""
    count = sum(map(len, most))
    images = np.array([[level] * 3 + [0, 1, 7] + [level] * 2 + [7] for own in most for level in own], np.uint8)
    groups = [0] * len(most) if groups is None else groups
    arguments: dict[str, Any] = {
        "images": images.reshape(count, 1, 9),
        "labels": np.repeat(np.arange(len(most)), [len(own) for own in most]),
        "class_names": [f"class {number}" for number in range(len(most))],
        "group_names": [f"speaker {number}" for number in range(max(groups) + 1)],
        "class_group": groups,
        "group_noun": "speaker",
        "event_shape": (1, 9),
        "levels": 8,
        "recipe": {"centred": False},
        "medium": Sounds(8000, np.linspace(-1, 1, 8)),
    }
    return ImageTasks("made", "test", 0, **{**arguments, **more})


def found(*arguments: Any, **more: Any) -> Offsets:
    offsets = offsets_of(recordings(*arguments, **more))
    assert offsets is not None
    return offsets


def test_each_recording_is_recognised_by_the_others() -> None:
    offsets = found([[3, 3, 3, 4], [5, 5, 4, 4]])
    # 3: all of its kind. The 4 of the first: a third of none. 5: its only other. 4 of the second: 1/3 against 1/4.
    assert offsets.accuracy == pytest.approx((3 + 0 + 2 + 2) / 8)
    assert offsets.chance == 0.5
    rows = [(row.name, row.recordings, row.most_frequent, row.median, row.low, row.high) for row in offsets.rows]
    assert rows == [("class 0", 4, 3, 3, 3, 4), ("class 1", 4, 4, 4, 4, 5)]
    assert Offsets.of_record(json.loads(json.dumps(offsets.record()))) == offsets


def test_what_all_share_is_a_guess_and_what_none_shares_too() -> None:
    for most in ([[6] * 30] * 3, [[0], [1], [2]]):
        offsets = found(most)
        assert offsets.accuracy == pytest.approx(1 / 3)
        assert "centred" not in offsets.said(), "there is nothing to be taken out"
        assert "33 %" in offsets.said()


def test_groups_count_where_there_are_several() -> None:
    """Two classes of a speaker have one offset: it tells the speaker, and not the class."""
    most = [[3] * 20, [3] * 20, [4] * 20, [4] * 20]
    by_speaker, by_class = found(most, [0, 0, 1, 1]), found(most)
    assert (by_speaker.noun, by_speaker.accuracy, len(by_speaker.rows)) == ("speaker", 1.0, 2)
    assert by_speaker.said().endswith("by chance 50 %. task.centred=True takes offsets out.")
    assert by_class.accuracy == pytest.approx(0.5)
    assert "centred=True" not in found(most, [0, 0, 1, 1], recipe={"centred": True}).said()


def test_places_that_are_not_real_do_not_count() -> None:
    images = np.array([[3, 3, 6, 6, 6], [3, 6, 6, 6, 6], [4, 4, 6, 6, 6], [4, 6, 6, 6, 6]], np.uint8)
    most = [[3, 3], [4, 4]]
    padded = {"images": images[:, None], "event_shape": (1, 5)}
    assert found(most, **padded, lengths=[2, 1, 2, 1]).accuracy == 1
    assert found(most, **padded).accuracy == 0.5


def test_the_median_is_the_offset_and_the_most_frequent_level_something_else() -> None:
    """Around the same middle, one class is loud and the other soft: levels tell, offsets do not."""
    loud, soft = [3, 1, 1, 1, 5, 5, 4], [3, 3, 3, 2, 4, 2, 4]
    images = np.array([loud, loud, soft, soft], np.uint8)[:, None]
    offsets = found([[3, 3], [3, 3]], images=images, event_shape=(1, 7))
    assert [row.median for row in offsets.rows] == [3, 3]
    assert [row.most_frequent for row in offsets.rows] == [1, 3]
    assert (offsets.accuracy, offsets.by_most_frequent) == (0.5, 1.0)


def test_what_is_no_sound_has_none() -> None:
    assert offsets_of(recordings([[3], [4]], medium=None)) is None
    assert offsets_of(recordings([[3, 4]])) is None
    assert offsets_of(TASKS["chains"](split="test")) is None


def test_speakers_of_fsdd_are_told_by_their_offset_unless_it_is_taken_out(data_root: Path) -> None:
    """As tasks/README.md says."""
    task = {"split": "train+validation+test", "data_root": data_root, "by": "speaker", "length": 6000, "lengths": True}
    offsets = offsets_of(TASKS["speech"](**task))
    assert offsets is not None
    names = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    found = {row.name: row.most_frequent for row in offsets.rows}
    assert [found[name] for name in names] == [116, 137, 128, 102, 128, 128]
    assert offsets.accuracy == pytest.approx(0.52, abs=0.01)
    assert "takes offsets out" in offsets.said()
    centred = offsets_of(TASKS["speech"](**task, centred=True))
    assert centred is not None
    assert {row.median for row in centred.rows} == {row.most_frequent for row in centred.rows} == {128}
    assert centred.accuracy < 0.19 < 0.5 < centred.by_most_frequent, "loudness stays"


def test_report_and_page_show_it(tmp_path: Path) -> None:
    offsets = found([[3] * 9, [4] * 9])
    text = offsets.section().markdown()
    assert "| class 1 | 9 | 4 | 4 | 4 to 4 |" in text
    assert offsets.said() in text
    many = found([[number % 6] * 2 for number in range(15)]).section()
    assert len(many.rows) == 12
    assert "3 more are in evaluation.json." in many.notes
    page = Page.__new__(Page)
    page.name, page.run = "1", None  # type: ignore[assignment]
    row = {"model": "m", "shots": 0, "nats_per_dim": 1.0, "bits_per_dim": 1.4, "nats_per_image": 9.0}
    row |= {"interval_low": None, "interval_high": None, "images": 18, "classes": 2}
    report = {"rows": [row], "split": "test", "episodes_sha256": "0" * 64, "offsets": offsets.record()}
    page._newest = lambda kind, file: (report, tmp_path)  # type: ignore[method-assign]
    assert "are given their own of 2 classes" in page.likelihood().data
    assert "most frequent level" in page.likelihood().data
    report["offsets"] = None
    assert "most frequent level" not in page.likelihood().data

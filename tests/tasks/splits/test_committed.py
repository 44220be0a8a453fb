"""Split files come back, and every change of them is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import DataError
from tasks.splits.committed import SPLITS_FOLDER, load_split, save_split


def test_split_files_come_back_and_every_change_is_noticed(tmp_path: Path) -> None:
    content = {"train": ["Ä", "b"], "numbers": {"x": [1, 2, 3]}, "empty": []}
    save_split("made", content, tmp_path)
    path = tmp_path / "made.json"
    assert load_split("made", tmp_path) == content
    assert '"x": [1, 2, 3]' in path.read_text(encoding="utf-8")
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("[1, 2, 3]", "[1, 2, 4]"), encoding="utf-8")
    with pytest.raises(DataError, match=r"made\.json is damaged: its checksum is .*Restore it, for example with 'git"):
        load_split("made", tmp_path)
    for text in (whole[:-10], "", "[]", '{"content": {}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"made\.json cannot be read .*Restore it"):
            load_split("made", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"the split file .*made\.json is missing\. Restore it"):
        load_split("made", tmp_path)


@pytest.mark.parametrize("path", sorted(SPLITS_FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_split_files_notice_a_lost_entry(path: Path, tmp_path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["content"]["about"]
    (tmp_path / path.name).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        load_split(path.stem, tmp_path)

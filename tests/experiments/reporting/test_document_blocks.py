"""Documents that are written from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.reporting.document_blocks import read_block, replace_block


def test_a_document_is_changed_between_its_marks_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("before\n<!-- records: omniglot -->\nold\n<!-- end of omniglot -->\nafter\n")
    replace_block(path, "omniglot", "| new |\\1")
    assert read_block(path.read_text(), "omniglot") == "| new |\\1"
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("\nafter\n")
    with pytest.raises(ValueError, match="no <!-- records: mirror"):
        replace_block(path, "mirror", "x")

"""Documents that are written from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.reporting.document_blocks import between, put_between


def test_a_document_is_changed_between_its_marks_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("before\n<!-- records: omniglot -->\nold\n<!-- end of omniglot -->\nafter\n")
    put_between(path, "omniglot", "| new |\\1")
    assert between(path.read_text(), "omniglot") == "| new |\\1"
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("\nafter\n")
    with pytest.raises(ValueError, match="no <!-- records: mirror"):
        put_between(path, "mirror", "x")

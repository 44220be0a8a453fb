"""Recognition of digits and speakers: the command, its records, and what the page says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import metadensity
from experiments import reproduce
from experiments.reporting.document_blocks import read_block
from experiments.reproductions.recognition import RECOGNITION, markdown, read_recognition
from experiments.results import RECORDS
from experiments.results.shipped_weights import shipped, shipped_file
from metadensity.evaluation.classification import class_log_probs, tie_aware_accuracy
from metadensity.evaluation.comparison import IncomparableError


def run(script: Any, **config: Any) -> Any:
    with patch.object(reproduce.experiment, "default_command", "recognition"):
        return script(reproduce.experiment, "fast", **config)


def test_a_table_can_be_made_and_made_again_of_its_weights(script: Any, tmp_path: Path) -> None:
    folders = {"keep_weights": str(tmp_path / "weights"), "keep_records": str(tmp_path)}
    made = run(script, only=["speakers"], limit=1, **folders)
    table = RECOGNITION[-1]
    records = read_recognition(tmp_path / "recognition", table)
    assert list(records) == list(table.titles)
    for name, record in records.items():
        assert (record["ways"], record["shots"], record["queries"], record["episodes"]) == (6, 4, 6, 1)
        assert 0 <= record["accuracy"] <= 1
        file = tmp_path / "weights" / f"{name}.safetensors"
        assert metadensity.load(file).provenance["weights_sha256"] == record["weights_sha256"]
    text = (Path(made.result["folder"]) / "recognition.md").read_text()
    assert all(title in text for title in table.titles.values())
    run(script, only=["speakers"], limit=1, weights=str(tmp_path / "weights"), keep_records=str(tmp_path / "again"))
    again = read_recognition(tmp_path / "again" / "recognition", table)
    for name, record in records.items():
        assert (again[name]["accuracy"], again[name]["nll"]) == (record["accuracy"], record["nll"])
    with pytest.raises(ValueError, match=r"names \['nobody'\]; there are digits_george, digits_yweweler, speakers"):
        run(script, only=["nobody"])


def test_records_of_other_episodes_are_refused(tmp_path: Path) -> None:
    table = RECOGNITION[0]
    (tmp_path / table.name).mkdir()
    for number, name in enumerate(table.titles):
        text = json.dumps({"episodes_sha256": str(number)})
        (tmp_path / table.name / f"{name}.json").write_text(text)
    with pytest.raises(IncomparableError, match=r"digits_george .* are of different episodes"):
        read_recognition(tmp_path, table)


def test_the_page_shows_the_records_of_what_is_shipped() -> None:
    folder = RECORDS / "recognition"
    assert read_block(reproduce.DOCUMENT.read_text(), "recognition") == markdown(RECOGNITION, folder).strip()
    for table in RECOGNITION:
        records = read_recognition(folder, table)
        assert list(records) == list(table.titles)
        for name, record in records.items():
            assert name in shipped()
            assert metadensity.load(shipped_file(name)).provenance["weights_sha256"] == record["weights_sha256"]


def test_a_shipped_model_recognises_digits() -> None:
    """One episode: ten queries, of which linear prediction has seven right and chance one."""
    table = RECOGNITION[0]
    episodes = table.drawn(False, 1)
    model = metadensity.load(shipped_file(f"{table.name}-switching_prediction"))
    right = tie_aware_accuracy(class_log_probs(model, episodes), episodes.label.numpy())
    assert right.mean() > 0.75

"""Every shipped model has a card, which is what its header and its record say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from experiments import weights
from experiments.reproductions import PLANS, cards
from experiments.results import CARDS, RECORDS, WEIGHTS
from experiments.results.shipped_weights import SUFFIX, shipped
from metadensity.files import read_header


def record_of(card: str) -> dict[str, Any]:
    """The record that a card says it is of."""
    ((plan, entry),) = re.findall(r"experiments\.reproduce (\w+) with only=\"\['(\w+)'\]\"", card)
    name = card.splitlines()[0].removeprefix("# ")
    file = f"{entry}/{name}.json" if plan == "recognition" else f"{entry}.json"
    found: dict[str, Any] = json.loads((RECORDS / plan / file).read_text())
    return found


def test_every_shipped_model_has_a_card_and_nothing_else_has() -> None:
    assert {path.stem for path in CARDS.iterdir()} == set(shipped())


@pytest.mark.parametrize("name", list(shipped()))
def test_a_card_is_what_header_and_record_say(name: str) -> None:
    text = (CARDS / f"{name}.md").read_text()
    assert text == cards.card(name), "write it anew: python -m experiments.weights write"
    header = read_header(WEIGHTS / f"{name}{SUFFIX}")
    record = record_of(text)
    assert (record["weights_sha256"], record.get("fine_tuning")) == (header["sha256"], None)
    shown = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if re.match(r"\| \d", line)]
    if "rows" in record:
        assert shown == [[str(row["shots"]), f"{row['nats_per_image']:.2f}"] for row in record["rows"]]
    else:
        assert shown == [[str(record["shots"]), f"{100 * record['accuracy']:.1f}"]]
    assert shipped()[name] in text
    assert f"{record['parameters']:,} parameters" in text
    assert f"`task.name={header['provenance']['config']['task']['name']} " in text
    for heading in ("Data", "Training", "Numbers", "What it is not for", "File"):
        assert f"\n## {heading}\n" in text
    assert re.search(r"Licence: \w", text)


def test_another_number_in_the_record_is_another_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "omniglot-attention"
    file = RECORDS / "omniglot" / "attention.json"
    record = json.loads(file.read_text())
    record["rows"][0]["nats_per_image"] += 1
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "attention.json").write_text(json.dumps(record))
    monkeypatch.setattr(cards, "RECORDS", tmp_path)
    assert cards.card(name) != (CARDS / f"{name}.md").read_text()
    with pytest.raises(LookupError, match=r"No record in .* is of the weights names-bytenet"):
        cards.card("names-bytenet")


def test_data_that_nothing_is_said_of_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(cards.SOURCES, "omniglot")
    with pytest.raises(LookupError, match=r"omniglot-meta was trained on omniglot, of which SOURCES .* says nothing"):
        cards.card("omniglot-meta")
    assert {plan.name for plan in PLANS.values()} >= {"omniglot", "tunes"}


def test_the_command_lists_and_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(shipped())
    assert weights.main(["card", "omniglot-meta"]) == 0
    assert capsys.readouterr().out == (CARDS / "omniglot-meta.md").read_text()
    assert weights.main(["card", "omniglot-mta"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("No model called 'omniglot-mta' is shipped. Did you mean omniglot-meta or ")

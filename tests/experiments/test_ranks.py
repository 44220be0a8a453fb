"""The calculation of many processes against what it says of few, and its command."""

from __future__ import annotations

import pytest

from experiments.benchmarks.ranks import WAYS, Costs, table


def test_bytes_messages_and_additions_are_counted() -> None:
    free = {"part": 1.0, "adding": 0.0, "row": 12, "byte": 0.0, "message": 0.0}
    for way in WAYS:
        assert Costs(**free).seconds(way, 1) == Costs(**free).seconds(way, 512) == 1.0
    by_byte = Costs(**{**free, "byte": 1.0})
    assert [by_byte.seconds(way, 4) - 1 for way in WAYS] == [36.0, 18.0, 18.0]
    by_message = Costs(**{**free, "message": 1.0})
    assert [by_message.seconds(way, 4) - 1 for way in WAYS] == [3.0, 4.0, 6.0]
    by_adding = Costs(**{**free, "adding": 1.0})
    assert [by_adding.seconds(way, 4) - 1 for way in WAYS] == pytest.approx([3.0, 0.75, 1.5])


def test_the_table_has_every_size() -> None:
    lines = table(Costs(0.01, 1e-4, 10**6, 8e-10, 5e-5), (1, 8)).splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["processes", "---:", "1", "8"]
    assert "10.0 (1.0x)" in lines[2]

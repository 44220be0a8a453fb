"""Several processes compute what one does, to the last bit: training, scores, classification."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metadensity.processes import Processes, current, joined
from metadensity.training.gradients import GradientRows
from tests.metadensity.processes_program import CASES
from tests.metadensity.toys import trainer

ROOT = Path(__file__).parents[2]
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def launched(size: int, scratch: Path) -> list[dict[str, Any]]:
    """What each of ``size`` processes found, by rank."""
    by = [sys.executable, *((*LAUNCH, str(size)) if size > 1 else ()), "-m", "tests.metadensity.processes_program"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*by, str(scratch)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    parts = done.stdout.split("RESULT ")[1:]  # of a torchrun whose processes write at once, perhaps in one line
    results = [json.JSONDecoder().raw_decode(part)[0] for part in parts]
    assert len(results) == size, done.stderr[-3000:]
    return [each["found"] for each in sorted(results, key=lambda each: each["rank"])]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    scratch = tmp_path_factory.mktemp("processes")
    return {size: launched(size, scratch) for size in (1, 2, 4)}


@pytest.mark.parametrize("case", CASES)
def test_training_gives_the_same_bits(case: str, found: dict[int, list[dict[str, Any]]]) -> None:
    """The hash is of weights, their average and the moments; the first process has the validations as well."""
    alone = found[1][0][case]
    for size in (2, 4):
        for rank, each in enumerate(found[size]):
            if case in each:
                assert each[case] == (alone if rank == 0 else [alone[0], None])
    assert case in found[2][1]


def test_all_end_after_the_same_step_and_go_on_in_any_number(found: dict[int, list[dict[str, Any]]]) -> None:
    """A signal came to the last process alone, after the first step."""
    assert [each["stopped at"] for size in (1, 2, 4) for each in found[size]] == [1, *[2] * 6]
    expected = found[1][0]["conditional"][0]
    for size, kept in ((2, (1,)), (4, (1, 2))):
        assert {each[f"gone on from {other}"] for each in found[size] for other in kept} == {expected}


def test_rows_added_in_another_order_are_told_apart(found: dict[int, list[dict[str, Any]]]) -> None:
    for size in (2, 4):
        assert found[size][0]["control"] != found[size][0]["conditional"][0]


@pytest.mark.parametrize("what", ["scores", "rows", "classes", "fine-tuned"])
def test_scores_are_the_same(what: str, found: dict[int, list[dict[str, Any]]]) -> None:
    for size in (2, 4):
        for each in found[size]:
            assert each[what] == found[1][0][what]


def test_a_sum_of_rows_is_the_gradient_of_the_whole() -> None:
    """In parts and at once differ by rounding alone; a parameter without a gradient keeps none."""
    torch.manual_seed(0)
    used, other = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.Linear(2, 2)
    rows = GradientRows([*used.parameters(), *other.parameters()])
    images = torch.randn(4, 2, 5, 5)
    parts = []
    for part in images.split(1):
        used.zero_grad()
        loss = used(part).square().sum()
        loss.backward()
        parts.append(rows.row(loss, torch.tensor(1.0)))
    used.zero_grad()
    total, count = rows.set_sum(torch.stack(parts))
    assert other.weight.grad is None
    assert count == 4
    assert used.weight.grad is not None
    assert used.weight.grad.stride() == used.weight.stride()
    split = used.weight.grad.clone()
    used.zero_grad()
    whole = used(images).square().sum()
    whole.backward()
    torch.testing.assert_close(split, used.weight.grad)
    assert total == pytest.approx(whole.item())


def test_parts_change_the_rounding_alone() -> None:
    one, four = trainer(tasks=4), trainer(tasks=4, parts=4)
    one.run(), four.run()
    for a, b in zip(one.model.parameters(), four.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="parts=5 with tasks=4; a part has at least one task"):
        trainer(tasks=4, parts=5)
    monkeypatch.setattr("metadensity.training.trainer.current", lambda: Processes(0, 2))
    with pytest.raises(ValueError, match="parts=3 for 2 processes; give a multiple"):
        trainer(tasks=4, parts=3)
    for rank, size in ((2, 2), (-1, 1), (0, 0), ("a", "2")):
        with (
            pytest.raises(ValueError, match=f"This is process {rank} of {size}; give numbers from 0"),
            joined(rank, size),
        ):  # type: ignore[arg-type]
            pass


def test_alone_there_is_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as processes:
        assert processes == current() == Processes(0, 1)
        assert processes.values({"a": float("inf")}) == [{"a": float("inf")}]
    assert not torch.distributed.is_initialized()

"""A model's likelihood as a program: the same numbers, for any pixels, in a process without this library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metadensity
from metadensity import native
from metadensity.adaptation import AdaptiveModel
from metadensity.density import BoundDensity
from metadensity.model import FewShotModel
from metadensity.models import MODELS
from tests.contracts.subjects import Case, Recipe

SEQUENCES = {"wavenet", "linear_prediction", "ngram", "bytenet", "aligned_bytenet"}
REFUSED = {
    name: "adapts to each support by gradients" for name, kind in MODELS.items() if issubclass(kind, AdaptiveModel)
}
REFUSED["ngram"] = "looks up what it has counted"
SHOTS, TASKS, QUERIES = 3, 2, 4


def build(name: str, **options: Any) -> FewShotModel:
    """A small model of random parameters, of float64."""
    case = Case((1, 8), 4, options) if name in SEQUENCES else Case((1, 4, 4), 2, options)
    return Recipe(name).build(case, torch.float64).model


def episode(model: FewShotModel, shots: int = SHOTS, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    support, query = (
        torch.randint(0, model.levels, (count, TASKS, *model.event_shape), generator=random)
        for count in (shots, QUERIES)
    )
    return support, query


def require_the_same(model: FewShotModel, program: Any, shots: int = SHOTS) -> None:
    """The numbers of the model, for two episodes that the program has not seen, and not one number for all."""
    found = []
    for seed in (1, 2):
        support, query = episode(model, shots, seed)
        with torch.no_grad():
            expected = model.eval()(support).log_prob(query)
        found.append(program.module()(support, query))
        assert found[-1].shape == (QUERIES, TASKS)
        torch.testing.assert_close(found[-1], expected, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in REFUSED])
def test_a_program_gives_the_numbers_of_the_model(name: str) -> None:
    model = build(name)
    program = metadensity.export(model, SHOTS, TASKS, QUERIES)
    require_the_same(model, program)
    buffers = {f"model.{name}" for name, _ in model.named_buffers()}
    tables = {"model.network.encoder.lifted_tensor_0"} if name == "aligned_bytenet" else set()  # columns by length
    assert set(program.constants) <= buffers | tables, "a tensor of one run is part of the program"
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert called
    others = {name for name in called if not name.startswith("aten.")}
    assert others <= {"<built-in function getitem>", "wrap_with_autocast"}, "not torch alone"


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_program_cannot_hold_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{REFUSED[name]}, .* Export a model that reads"):
        metadensity.export(build(name), SHOTS)


def test_with_no_support() -> None:
    model = build("attention")
    require_the_same(model, metadensity.export(model, 0, TASKS, QUERIES), shots=0)


def test_the_kernels_are_no_part_of_it() -> None:
    """In float32, where the model itself computes with them; and the model is as it was."""
    model = build("attention", attention="dot").float()
    model.train()
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    program = metadensity.export(model, SHOTS, TASKS, QUERIES)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    support, query = episode(model)
    with native.disabled(), torch.no_grad():
        torch.testing.assert_close(program.module()(support, query), model.eval()(support).log_prob(query))
        for parameter in model.parameters():  # what the program has is its own
            parameter.add_(1)
        before = program.module()(support, query)
        model.load_state_dict({**model.state_dict(), **weights})
        torch.testing.assert_close(before, model(support).log_prob(query))


ELSEWHERE = """
import sys
sys.modules["metadensity"] = None  # importing it fails
import torch
program = torch.export.load(sys.argv[1])
support, query = torch.load(sys.argv[2])
torch.save(program.module()(support, query), sys.argv[3])
assert sys.modules["metadensity"] is None
assert not [name for name in sys.modules if name.startswith("metadensity.")]
"""


def test_a_process_without_the_library_runs_it(tmp_path: Path) -> None:
    model = build("conditional")
    torch.export.save(metadensity.export(model, SHOTS, TASKS, QUERIES), tmp_path / "program.pt2")
    torch.save(episode(model), tmp_path / "episode.pt")
    paths = [str(tmp_path / name) for name in ("program.pt2", "episode.pt", "found.pt")]
    command = [sys.executable, "-I", "-W", "error", "-c", ELSEWHERE, *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    support, query = episode(model)
    with torch.no_grad():
        expected = model(support).log_prob(query)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), expected, atol=1e-9, rtol=1e-9)


class Bound(FewShotModel):
    """A model whose likelihood is a bound."""

    def condition(self, support: Tensor) -> BoundDensity:
        class Drawn(BoundDensity):
            def _log_prob(self, value: Tensor, generator: Any) -> Tensor:
                raise AssertionError("not asked for")

            sample: Any = None

        return Drawn(support.shape[1], self.event_shape, self.levels, samples=5)


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bound with 5 samples, .* Only exact likelihoods are exported"):
        metadensity.export(Bound((1, 4), 2), SHOTS)
    model = build("independent")
    with pytest.raises(ValueError, match=r"shots=-1; give the number of supports, 0 or more"):
        metadensity.export(model, -1)
    with pytest.raises(ValueError, match="queries=0"):
        metadensity.export(model, 1, queries=0)

"""Training that begins from the weights of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
import metadensity.persistence
from experiments import train
from experiments.ingredients import build_model
from experiments.recording import lineage
from experiments.recording.initial_weights import load_initial_weights, weights_file
from experiments.recording.run_folder import RunFolder
from metadensity import FewShotModel
from metadensity.files import write_tensors

SIZES = {"layers": 2, "planes": 4, "penultimate": 4, "attention": "dot"}


def build(name: str, seed: int = 0, **sizes: Any) -> FewShotModel:
    return build_model({"name": name, **SIZES, **sizes}, (1, 4, 4), 2, seed)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    metadensity.save(build("attention"), tmp_path / "attention.safetensors")
    return tmp_path / "attention.safetensors"


def test_a_model_of_the_same_kind_takes_all_of_it(saved: Path) -> None:
    model, theirs = build("attention", seed=1), build("attention").state_dict()
    assert load_initial_weights(model, saved) == []
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_adapts_it_takes_it_as_its_base(saved: Path) -> None:
    model, theirs = build("attention_meta", seed=1), build("attention").state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = load_initial_weights(model, saved)
    assert fresh
    assert all(name.startswith("inner_loss.") for name in fresh)
    for name, tensor in model.state_dict().items():
        expected = theirs[name.removeprefix("base.")] if name.startswith("base.") else before[name]
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize(("name", "sizes"), [("unconditional", {}), ("attention", {"planes": 6})])
def test_another_model_is_refused(saved: Path, name: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"holds \S+ of shape \([\d, ]+\), and this model (has none|one of shape)"):
        load_initial_weights(build(name, **sizes), saved)


def test_training_begins_there_and_says_so(script: Any, saved: Path) -> None:
    first = RunFolder(
        script(train.experiment, "hershey", "attention", "dot", "fast", task={"size": 8}).result["folder"]
    )
    settings = {"task": {"size": 8}, "training": {"learning_rate": 1e-12, "weight_decay": 0.0}, "seed": 5}
    run = script(train.experiment, "hershey", "attention", "dot", "fast", initial=str(first.path), **settings)
    second = RunFolder(run.result["folder"])
    for one, two in zip(first.model().parameters(), second.model().parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    known = lineage.read(second.path)
    assert known is not None
    assert [parent.run for parent in known.parents] == [first.path.name]
    assert second.model().provenance["initial"] == first.model().provenance["weights_sha256"] == known.parents[0].sha256
    with pytest.raises(FileNotFoundError, match="There is no run at"):
        script(train.experiment, "hershey", "attention", "dot", "fast", initial=str(saved.parent / "x"), **settings)


def test_what_there_is_not_is_named(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.safetensors"):
        weights_file(tmp_path / "none.safetensors")  # type: ignore[arg-type]
    (runs / "77" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no trained model"):
        weights_file(77)


def test_weights_of_encoders_without_norms_mean_something_else(tmp_path: Path) -> None:
    """They would fit in shape: a file of before is read as what it is, and refused with what to type."""
    plain = build("attention", support_norm=False)
    recorded = {"name": "attention", **SIZES}
    assert build_model(recorded, (1, 4, 4), 2, 0).config["support_norm"] is False, "an old record is of a model without"
    path = tmp_path / "old.safetensors"
    header = metadensity.persistence.model_header(plain)
    del header["config"]["support_norm"]
    write_tensors(path, plain.state_dict(), header)
    assert metadensity.load(path).config["support_norm"] is False
    assert load_initial_weights(build("attention", 1, support_norm=False), path) == []
    for name in ("attention", "attention_meta"):
        with pytest.raises(ValueError, match=r"trained with support_norm=False, .* Type model.support_norm=False"):
            load_initial_weights(build(name, support_norm=True), path)

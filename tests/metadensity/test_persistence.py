"""Saved models: what cannot be loaded is named, with the file and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from metadensity.files import DamagedFileError, read_tensors, write_tensors
from metadensity.models import MODELS, AttentionPixelCNN, IndependentPixels


def saved(folder: Path) -> Path:
    path = folder / "model.safetensors"
    metadensity.save(MODELS["support_mean"]((1, 3, 3), 2), path)
    return path


def rewrite(path: Path, **changes: Any) -> None:
    """Write the file again, whole, with another header; None takes an entry away."""
    tensors, header = read_tensors(path)
    header = {key: value for key, value in {**header, **changes}.items() if value is not None}
    write_tensors(path, tensors, header)


def test_arguments_that_are_not_the_defaults(tmp_path: Path) -> None:
    sizes = {"layers": 4, "planes": 6, "penultimate": 5, "kernel_size": 5, "first_kernel": 7, "context": 7}
    options: dict[str, Any] = {
        **sizes,
        "attention": "dot",
        "patch_stride": 2,
        "prototypes": 3,
        "likelihood": "logistic",
        "components": 4,
        "support_norm": False,
    }
    model = AttentionPixelCNN((2, 4, 5), 3, **options)
    metadensity.save(model, tmp_path / "model")
    loaded = metadensity.load(tmp_path / "model")
    assert isinstance(loaded, AttentionPixelCNN)
    assert loaded.config == {"event_shape": [2, 4, 5], "levels": 3, **options}
    assert loaded.network.attention is not None
    assert loaded.network.attention.kind == "dot"


def test_provenance_is_kept_and_fresh_models_have_none(tmp_path: Path) -> None:
    provenance = {"run": "17", "step": 4000, "task": {"name": "hershey", "seed": 0}, "parent": None}
    model = IndependentPixels((1, 3, 3), 2)
    assert model.provenance == {}
    digest = metadensity.save(model, tmp_path / "model", provenance)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert metadensity.load(tmp_path / "model").provenance == {**provenance, "weights_sha256": digest}
    metadensity.save(model, tmp_path / "bare")
    assert metadensity.load(tmp_path / "bare").provenance == {"weights_sha256": digest}


def test_loading_a_model_on_the_meta_device_moves_it(tmp_path: Path) -> None:
    loaded = metadensity.load(saved(tmp_path), device="meta")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"meta"}


def test_nothing_else_is_in_the_file(tmp_path: Path) -> None:
    """No pickle: an 8-byte length, JSON, and raw numbers."""
    data = saved(tmp_path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert data[8 : 8 + length].lstrip().startswith(b"{")
    assert len(data) == 8 + length + 4 * (2 * 9 + 1)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"There is no file {tmp_path / 'none'}"):
        metadensity.load(tmp_path / "none")


def test_damaged_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedFileError, match=f"{path} was altered or damaged.*Use an earlier checkpoint"):
        metadensity.load(path)


def test_a_file_of_another_format(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, format="metadensity-model-9")
    with pytest.raises(DamagedFileError, match="its format is 'metadensity-model-9', not 'metadensity-model-1'"):
        metadensity.load(path)
    rewrite(path, format=None)
    with pytest.raises(DamagedFileError, match=f"{path} is no saved model: its format is None"):
        metadensity.load(path)


def test_a_model_this_version_does_not_know(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, model="diffusion")
    with pytest.raises(
        DamagedFileError, match=f"{path} holds a model called 'diffusion'.*knows independent,.*Register"
    ):
        metadensity.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"event_shape": [1, 3, 3], "levels": 2, "depth": 3}},
        {"config": {"levels": 2}},
        {"config": {"event_shape": [1, 3, 3], "levels": 1}},
        {"config": [1, 2]},
        {"config": None},
        {"model": None},
        {"provenance": None},
    ],
    ids=str,
)
def test_arguments_that_this_version_does_not_take(changes: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, **changes)
    with pytest.raises(DamagedFileError, match=str(path)):
        metadensity.load(path)


@pytest.mark.parametrize(
    "changes", [{"model": "independent"}, {"config": {"event_shape": [1, 4, 4], "levels": 2}}], ids=str
)
def test_weights_of_another_model(changes: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, **changes)
    with pytest.raises(DamagedFileError, match=f"{path} does not hold the weights of its own model"):
        metadensity.load(path)


def test_a_class_that_is_not_listed(tmp_path: Path) -> None:
    class Private(IndependentPixels):
        pass

    with pytest.raises(ValueError, match=r"Private is not listed in metadensity.models.MODELS.*Add a line"):
        metadensity.save(Private((1, 3, 3), 2), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_is_no_json(tmp_path: Path) -> None:
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError), match=r"JSON"):
            metadensity.save(IndependentPixels((1, 3, 3), 2), tmp_path / "model", {"loss": value})
    assert list(tmp_path.iterdir()) == []


def test_loading_leaves_the_random_state(tmp_path: Path) -> None:
    path = tmp_path / "model"
    metadensity.save(AttentionPixelCNN((1, 3, 3), 2, layers=2, planes=4, penultimate=4), path)
    state = torch.get_rng_state()
    metadensity.load(path)
    assert torch.equal(state, torch.get_rng_state())

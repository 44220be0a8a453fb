"""Saved models: what cannot be loaded is named, with the file and what to do."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from metadensity.adaptation.fine_tuning import FineTuned
from metadensity.files import DamagedFileError, read_tensors, write_tensors
from metadensity.models import MODELS, AttentionPixelCNN, IndependentPixels
from tests.metadensity.toys import trainer


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
        "dilations": [1, 2],
        "frame_independent": False,
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("default", [torch.float64, torch.float32], ids=str)
def test_a_model_keeps_its_precision(default: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    """To the last bit, whatever the default is when it is built and when it is read."""
    support, value = (torch.randint(2, (2, 3, 1, 5, 4), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    path, before = tmp_path / "model", torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        model = AttentionPixelCNN((1, 5, 4), 2, layers=2, planes=4, penultimate=4).to(dtype).eval()
        expected = model(support).log_prob(value)
        metadensity.save(model, path)
        for other in (torch.float32, torch.float64):
            torch.set_default_dtype(other)
            loaded = metadensity.load(path)
            assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
            assert torch.equal(loaded(support).log_prob(value), expected)
            assert torch.get_default_dtype() == other
    finally:
        torch.set_default_dtype(before)


def test_a_model_of_several_precisions_keeps_them(tmp_path: Path) -> None:
    model = AttentionPixelCNN((1, 5, 4), 2, layers=2, planes=4, penultimate=4)
    model.encoder.double()
    metadensity.save(model, tmp_path / "model")
    loaded = metadensity.load(tmp_path / "model")
    kept = {name: tensor.dtype for name, tensor in loaded.state_dict().items()}
    assert kept == {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {torch.float32, torch.float64} <= set(kept.values())


class Smoothed(IndependentPixels):
    """A model of a user's own with an option."""

    def __init__(self, event_shape: Any, levels: int, smoothing: Any = 1.0, rows: int = 2) -> None:
        super().__init__(event_shape, levels)
        self.smoothing = smoothing
        self.more = torch.nn.Parameter(torch.zeros(rows))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> type[Smoothed]:
    monkeypatch.setitem(MODELS, "smoothed", Smoothed)
    return Smoothed


def test_an_option_of_ones_own_is_kept(listed: type[Smoothed], tmp_path: Path) -> None:
    for value in (0.1, None, "much", [1, 2.5], {"a": [True]}):
        metadensity.save(listed((1, 3, 3), 2, smoothing=value), tmp_path / "model")
        assert metadensity.load(tmp_path / "model").smoothing == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.config.pop("smoothing"), "Smoothed takes smoothing, which its config lacks"),
        (lambda model: setattr(model, "smoothing", 0.5), r"smoothing=1.0, which is 0.5 now.*with smoothing=0.5"),
        (
            lambda model: model.config.update(rows=3),
            r"of more it has \(2,\), and one built with its config.*has \(3,\)",
        ),
        (lambda model: model.config.update(rows=-1), r"could not be built again.*non-negative"),
        (lambda model: setattr(model, "late", torch.nn.Parameter(torch.zeros(1))), r"of late it has \(1,\).*has none"),
    ],
)
def test_a_file_that_could_not_build_its_model_is_not_written(
    change: Any, message: str, listed: type[Smoothed], tmp_path: Path
) -> None:
    model = listed((1, 3, 3), 2)
    change(model)
    with pytest.raises(ValueError, match=message):
        metadensity.save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, torch.zeros(2), len, {"a": object()}], ids=range(5))
def test_an_option_that_a_file_cannot_hold_is_named(value: Any, listed: type[Smoothed], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Smoothed was built with smoothing=.*cannot hold. Let smoothing be a number"):
        metadensity.save(listed((1, 3, 3), 2, smoothing=value), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_are_kept_and_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Tied(AttentionPixelCNN):
        def __init__(self, event_shape: Any, levels: int, **options: Any) -> None:
            super().__init__(event_shape, levels, **options)
            first, second = (self.network.layers[i].out for i in (0, 1))
            second.weight = first.weight

    monkeypatch.setitem(MODELS, "tied", Tied)
    model = Tied((1, 4, 4), 2, layers=2, planes=4, penultimate=4)
    metadensity.save(model, tmp_path / "model")
    loaded: Any = metadensity.load(tmp_path / "model")
    assert loaded.network.layers[1].out.weight is loaded.network.layers[0].out.weight
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    run, resumed = (trainer(Tied((1, 4, 4), 2, layers=2, planes=4, penultimate=4)) for _ in range(2))
    run.update()
    run.save_state(tmp_path / "state")
    resumed.resume(tmp_path / "state")
    run.update()
    resumed.update()
    assert all(map(torch.equal, run.model.state_dict().values(), resumed.model.state_dict().values()))
    assert resumed.model.network.layers[1].out.weight is resumed.model.network.layers[0].out.weight  # type: ignore[union-attr,union-attr]


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda model: torch.compile(model, backend="eager"), "model._orig_mod"),
        (torch.nn.DataParallel, "model.module"),
        (torch.optim.swa_utils.AveragedModel, "model.module"),
        (FineTuned, "model.model"),
    ],
    ids=["compiled", "DataParallel", "AveragedModel", "FineTuned"],
)
def test_what_wraps_a_model_names_the_model(wrap: Any, where: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"It wraps a model: save that one, as {where}"):
        metadensity.save(wrap(IndependentPixels((1, 3, 3), 2)), tmp_path / "model")


@pytest.mark.parametrize("name", ["meta", "maml", "attention_meta"])
def test_an_inner_loop_that_was_replaced_is_in_the_file(name: str, tmp_path: Path) -> None:
    model = MODELS[name]((1, 4, 4), 2, layers=2, planes=4, penultimate=4)
    fresh = dict(model.config)
    model.loop = dataclasses.replace(model.loop, steps=3, step_size=0.02)  # type: ignore[attr-defined]
    assert (fresh["steps"], model.config["steps"]) == (1, 3)
    metadensity.save(model, tmp_path / "model")
    loaded = metadensity.load(tmp_path / "model")
    assert loaded.loop == model.loop  # type: ignore[attr-defined]
    support = torch.randint(2, (2, 3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(support).log_prob(support), model.eval()(support).log_prob(support))


@pytest.mark.parametrize("name", ["conditional", "attention", "multiscale", "meta"])
def test_a_network_is_not_emptied(name: str) -> None:
    """Positions and masks are in no state dict: a model made on the meta device would score with what lay in memory."""
    with torch.device("meta"):
        model = MODELS[name]((1, 4, 4), 2, layers=2, planes=4, penultimate=4)
    with pytest.raises(ValueError, match=r"of its buffers when it is built .* Build the model"):
        model.to_empty(device="cpu")


def test_a_model_without_computed_buffers_can_be_emptied() -> None:
    model = MODELS["independent"]((1, 4, 4), 2)
    with torch.device("meta"):
        other = MODELS["independent"]((1, 4, 4), 2)
    other = other.to_empty(device="cpu")
    other.load_state_dict(model.state_dict())
    pixels = torch.randint(2, (3, 2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(pixels).log_prob(pixels), model(pixels).log_prob(pixels))

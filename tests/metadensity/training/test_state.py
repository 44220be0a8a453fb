"""A run that was stopped goes on as if it had not been: byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metadensity
from metadensity import FewShotModel
from metadensity.files import DamagedFileError, content_hash, read_header, read_tensors
from metadensity.models import AttentionPixelCNN, ConditionalPixelCNN
from metadensity.training import MetaTrainer
from tests.metadensity.toys import Recorder, small_network, trainer


def attention() -> AttentionPixelCNN:
    torch.manual_seed(0)
    return AttentionPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4, prototypes=3)


def wide() -> ConditionalPixelCNN:
    """More than one channel in its convolutions' inputs and kernels, so that memory formats differ."""
    return small_network(layers=3, planes=6)


def whole(run: MetaTrainer) -> str:
    """A hash of all of the trainer's state."""
    tensors, header = run.state()
    return f"{content_hash(tensors)} {header}"


SPEED = ("train/images_per_second", "train/cpu_seconds")


def without_speed(recorder: Recorder) -> list[tuple[int, dict[str, float]]]:
    return [
        (step, {name: value for name, value in values.items() if name not in SPEED}) for step, values in recorder.seen
    ]


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (small_network, {}),
        (small_network, {"optimizer": "rmsprop"}),
        (small_network, {"average": 0.0, "decay": "linear"}),
        (small_network, {"precision": "bfloat16"}),
        (small_network, {"optimizer": "muon"}),
        (wide, {"channels_last": True, "optimizer": "muon"}),
        (wide, {"channels_last": True}),
        (wide, {"channels_last": True, "optimizer": "rmsprop"}),
        (attention, {"average": 0.99}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_resumed_equals_never_stopped(build: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    straight, first, second = Recorder(), Recorder(stop_at=3), Recorder()
    through = trainer(build(), **settings)
    through.run(straight)

    stopped = trainer(build(), **settings)
    stopped.run(first)
    assert stopped.step == 3
    stopped.save_state(tmp_path / "state")

    other = build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.123)  # nothing of the fresh model may survive
    again = trainer(other, **settings)
    again.resume(tmp_path / "state")
    assert whole(again) == whole(stopped)
    again.run(second)

    assert whole(again) == whole(through)
    assert without_speed(first) + without_speed(second) == without_speed(straight)
    assert first.checkpoints + second.checkpoints == straight.checkpoints


def test_saving_does_not_change_the_run(tmp_path: Path) -> None:
    run, other = trainer(), trainer()
    for step in range(1, 6):
        run.run(Recorder(stop_at=step))
        run.save_state(tmp_path / "state")
        run.stopping = False
    run.run()
    other.run()
    assert whole(run) == whole(other)


def test_the_file_says_where_it_stands(tmp_path: Path) -> None:
    run = trainer()
    run.run(Recorder(stop_at=3))
    digest = run.save_state(tmp_path / "state", {"parent": "run 3"})
    header = read_header(tmp_path / "state")
    assert header["sha256"] == digest
    assert header["parent"] == "run 3"
    assert header["step"] == 3
    assert header["best"] == run.best
    assert header["training"]["steps"] == 6
    assert header["training"]["shots"] == [0, 1, 3]


def test_a_fresh_state_can_be_kept(tmp_path: Path) -> None:
    """Before the first step there are no moments and no best."""
    run, again = trainer(), trainer(small_network(seed=1))
    run.save_state(tmp_path / "state")
    again.resume(tmp_path / "state")
    assert whole(again) == whole(run)
    run.run()
    again.run()
    assert whole(again) == whole(run)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    trainer().save_state(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedFileError, match=f"{path} is truncated"):
        trainer().resume(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        trainer().resume(tmp_path / "nothing")


def test_a_model_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "model"
    metadensity.save(small_network(), path)
    with pytest.raises(DamagedFileError, match=f"{path} is no state of a training run"):
        trainer().resume(path)


@pytest.mark.parametrize("model", [attention(), small_network(planes=6)], ids=["other kind", "other size"])
def test_the_state_of_another_model_is_named(model: FewShotModel, tmp_path: Path) -> None:
    path = tmp_path / "state"
    trainer().save_state(path)
    run = trainer(model)
    before = whole(run)
    with pytest.raises(ValueError, match=f"{path} is the state of another model: of .*Build the model"):
        run.resume(path)
    assert whole(run) == before, "half of a state was loaded"


def test_the_state_of_another_optimizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    run = trainer(validate=False, steps=2)
    run.run()
    run.save_state(path)
    with pytest.raises(ValueError, match=r"optimizer='rmsprop', but .*'adamw'"):
        trainer(optimizer="rmsprop").resume(path)


def test_state_and_model_hold_the_same_weights(tmp_path: Path) -> None:
    run = trainer()
    run.run()
    run.save_state(tmp_path / "state")
    metadensity.save(run.averaged_model, tmp_path / "model")
    state, model = read_tensors(tmp_path / "state")[0], read_tensors(tmp_path / "model")[0]
    assert all(torch.equal(tensor, state[f"average/module.{name}"]) for name, tensor in model.items())

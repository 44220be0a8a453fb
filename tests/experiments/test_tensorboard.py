"""What TensorBoard is given: curves, grids, attention maps, and settings beside final metrics, all in one run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from experiments import train
from experiments.figures.attention_maps import attention_maps, attention_picture, patch_attention, pixel_picture
from experiments.recording.event_files import read_events
from experiments.recording.folder_observer import FolderObserver
from experiments.recording.run_folder import RunFolder
from metadensity import Episode
from metadensity.models import AttentionPixelCNN, ConditionalPixelCNN


@pytest.fixture(scope="module")
def trained(script: Any) -> RunFolder:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12})
    return RunFolder(run.result["folder"])


@pytest.fixture(scope="module")
def events(trained: RunFolder) -> EventAccumulator:
    return read_events(trained.path / "tensorboard")


def test_curves(events: EventAccumulator, trained: RunFolder) -> None:
    for record in trained.metrics():
        for name in record.keys() - {"step"}:
            (value,) = [event.value for event in events.Scalars(name) if event.step == record["step"]]
            assert value == pytest.approx(record[name], rel=1e-6)
    assert [event.step for event in events.Scalars("train/images_per_second")] == [1, 2, 3, 4]


def test_grids_and_attention_maps(events: EventAccumulator) -> None:
    tags = ["support beside samples", "attention of the query over its supports"]
    assert sorted(events.Tags()["images"]) == sorted(tags)
    for tag in tags:
        (event,) = events.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            assert (picture.width, picture.height) == (event.width, event.height)
            assert event.height == 6 * 14
            assert np.asarray(picture).std() > 1, "the picture is blank"


def test_settings_stand_beside_final_metrics(events: EventAccumulator, trained: RunFolder) -> None:
    data = events.summary_metadata
    assert {EXPERIMENT_TAG, SESSION_START_INFO_TAG, SESSION_END_INFO_TAG} <= set(data)
    found = HParamsPluginData.FromString(data[SESSION_START_INFO_TAG].plugin_data.content).session_start_info.hparams
    assert found["model.name"].string_value == "attention"
    assert found["training.learning_rate"].number_value == trained.config()["training"]["learning_rate"]
    assert found["training.shots"].string_value == "[0, 1]"
    named = HParamsPluginData.FromString(data[EXPERIMENT_TAG].plugin_data.content).experiment.metric_infos
    last = trained.metrics()[-1]
    for info in named:
        (event,) = events.Scalars(info.name.tag)
        name = info.name.tag.removeprefix("final/")
        if name in last:
            assert event.value == pytest.approx(last[name], rel=1e-6)
    assert {"final/best", "final/validation/nats_per_dim_1_shots"} <= {info.name.tag for info in named}
    files = [path for path in (trained.path / "tensorboard").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"tensorboard"}, "no run within the run"


def small(kind: type = AttentionPixelCNN, **more: Any) -> Any:
    torch.manual_seed(0)
    return kind((1, 8, 8), 2, layers=2, planes=4, penultimate=4, **more)


def episode(shots: int = 3) -> Episode:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randint(2, (count, 2, 1, 8, 8), generator=generator) for count in (shots, 1))
    return Episode(support, query)


def test_attention_maps_are_the_weights_spread_over_the_pixels() -> None:
    model, given = small(), episode()
    found = attention_maps(model, given, ink=True)
    assert found is not None
    maps, null = found
    assert maps.shape == (3, 2, 8, 8)
    torch.testing.assert_close(maps.sum((0, 2, 3)) + null, torch.ones(2))
    density = model(given.support)
    weights = density.network.attention_weights(given.query[0], density.condition)[0]
    ink = given.query[0].float()  # (tasks, 1, H, W)
    expected = (weights * ink).sum((2, 3)) / ink.sum((1, 2, 3))[:, None]
    patches = expected[:, :-1].view(2, 3, *model.patches.grid)
    torch.testing.assert_close(maps.sum((2, 3)), patches.sum((2, 3)).T)
    best = int(patches[0, 1].argmax())
    place = divmod(int(maps[1, 0].argmax()), 8)
    rows, columns = model.patches.grid
    assert (place[0] * rows // 8, place[1] * columns // 8) == divmod(best, columns)
    picture = attention_picture(model, given, ink=True)
    assert picture is not None
    assert picture.shape == (2 * 10, 4 * 10 + 1, 3)
    assert (picture[..., 0] > picture[..., 1]).any(), "nothing is marked in red"


def test_where_chosen_pixels_look() -> None:
    model, given = small(), episode()
    picture = pixel_picture(model, given, pixels=2, ink=True)
    assert picture is not None
    block = 4 * 10 + 1  # the query, a line, three supports
    assert picture.shape == (2 * 10, 2 * block + 6, 3)
    patches, _ = patch_attention(model, given.support, given.query[0]) or pytest.fail("no attention")
    for task in range(2):
        inked = given.query[0, task, 0].flatten().nonzero().flatten().tolist()
        for k in range(2):
            place = divmod(inked[(2 * k + 1) * len(inked) // 4], 8)
            row = picture[10 * task : 10 * (task + 1), (block + 6) * k : (block + 6) * k + block]
            query, supports = row[1:9, 1:9], [row[1:9, 10 * (s + 1) + 2 :][:, :8] for s in range(3)]
            assert query[place].tolist() == [220, 30, 30]
            later = query.reshape(64, 3)[place[0] * 8 + place[1] + 1 :]
            assert (later >= 191).all(), "what is still to come is pale"
            shares = patches[(task, ..., *place)]
            strongest = [int(share.max() == shares.max()) for share in shares]
            marked = [int((support[..., 0].astype(int) - support[..., 1] > 120).any()) for support in supports]
            assert marked[strongest.index(1)] == 1
    with pytest.raises(ValueError, match="pixels=0; show at least 1"):
        pixel_picture(model, given, pixels=0)
    assert pixel_picture(small(ConditionalPixelCNN), given, pixels=1) is None


def test_where_there_is_nothing_to_attend_to() -> None:
    assert attention_maps(small(ConditionalPixelCNN), episode()) is None
    assert attention_maps(small(), episode(shots=0)) is None
    torch.manual_seed(0)
    assert attention_picture(AttentionPixelCNN((1, 8), 2, layers=2, planes=4, penultimate=4), line()) is None
    empty = episode()
    found = attention_maps(small(), Episode(empty.support, torch.zeros_like(empty.query)))
    assert found is not None
    assert torch.isfinite(found[0]).all()


def line() -> Episode:
    return Episode(torch.zeros(2, 1, 1, 8, dtype=torch.long), torch.zeros(1, 1, 1, 8, dtype=torch.long))


def test_metrics_cost_the_same_in_a_long_run(tmp_path: Path) -> None:
    """Bytes moved for one more line, at the beginning and after 3,000; TensorBoard's queue writes in its own time."""

    def moved() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"]) + int(counts["wchar"])

    observer = FolderObserver(tmp_path, None, {})

    def one() -> int:
        observer.writer.flush()
        before = moved()
        observer.metrics(7, {"train/nats_per_dim": 0.5, "train/images_per_second": 3.0})
        observer.writer.flush()
        return moved() - before

    few = one()
    for step in range(3000):
        observer.metrics(step, {"train/nats_per_dim": 0.5, "train/images_per_second": 3.0})
    assert one() < few + 4000
    observer.close()
    with pytest.raises(ValueError, match="keep=0; at least 1 state must stay"):
        FolderObserver(tmp_path, None, {}, keep=0)

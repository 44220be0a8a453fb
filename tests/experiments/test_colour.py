"""Colour from end to end: what works for drawings works for 8-bit RGB, with its own numbers and its true colours.

The images are written by the test: a class is a colour, so levels and colours of every picture are known.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from experiments import classify, compare, episodes, evaluate, memorisation, sample, train
from experiments.figures.attention_maps import attention_maps, patch_attention
from experiments.figures.images import image_array, support_beside_samples
from experiments.ingredients import build_task
from experiments.recording.event_files import read_events
from experiments.recording.lineage import joined_lines
from experiments.recording.run_folder import RunFolder
from experiments.run_page.page import TEMPLATE, write_report
from metadensity.files import read_tensors
from tasks import TASKS, DataError
from tasks.media import as_shown

MODELS: dict[str, tuple[str, ...]] = {
    "categorical": ("attention",),
    "logistic": ("attention", "logistic"),
    "multiscale": ("multiscale",),
}
OPTIONS: dict[str, Any] = {"multiscale": {"model": {"base": 4, "upscaler_layers": 2}}}
SIDE, PER_CLASS = 8, 5
each = pytest.mark.parametrize("kind", MODELS)
LN256 = math.log(256)


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour whose channels differ, and differ between classes."""
    return 40 + 9 * number, 230 - 8 * number, 15 + 3 * number


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty classes of five images: a square of the class's colour on white, and a pixel that is not quite white."""
    root = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.data.roots.user_cache", lambda: root.parent)
        names = [f"kind{number % 3}/class{number:02}" for number in range(20)]
        for number, name in enumerate(names):
            for image in range(PER_CLASS):
                pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
                pixels[2:7, 2:6], pixels[0, image] = colour_of(number), 250
                (root / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / name / f"{image}.png")
        parts = {"train": names[:10], "validation": names[10:14], "test": names[14:]}
        (root / "splits.json").write_text(json.dumps(parts))
        yield root


@pytest.fixture(scope="module")
def trained(script: Any, pictures: Path) -> dict[str, RunFolder]:
    """A run of each kind, all on the same images."""
    task = {"folder": str(pictures), "size": SIDE, "splits": str(pictures / "splits.json")}
    found = {}
    for kind, named in MODELS.items():
        run = script(train.experiment, "folder", *named, "fast", task=task, **OPTIONS.get(kind, {}))
        found[kind] = RunFolder(run.result["folder"])
    return found


@pytest.fixture(scope="module")
def evaluated(script: Any, trained: dict[str, RunFolder]) -> dict[str, dict[str, Any]]:
    return {
        kind: script(evaluate.experiment, run=str(run.path), baseline_steps=3).result for kind, run in trained.items()
    }


def pixel_identity(path: str | Path) -> NDArray[np.uint8]:
    """The pixels of a PNG that was written three times as large; it must be RGB."""
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)[1::3, 1::3]


def colours(pixels: NDArray[np.uint8]) -> set[tuple[int, ...]]:
    return {tuple(int(channel) for channel in pixel) for pixel in pixels.reshape(-1, 3)}


@each
def test_training_starts_at_the_uniform_distribution_of_256_levels(kind: str, trained: dict[str, RunFolder]) -> None:
    run = trained[kind]
    model, first = run.model(), run.metrics()[0]
    assert (model.event_shape, model.levels) == ((3, SIDE, SIDE), 256)
    assert model.config["likelihood"] == ("logistic" if kind == "logistic" else "categorical")
    nats = first["train/nats_per_dim"]
    if kind == "logistic":  # white, the last level, holds a tail of the mixture: it is cheap from the start
        assert 1 < nats < LN256
    else:
        assert nats == pytest.approx(LN256, abs=0.1)


@each
def test_evaluation_takes_what_the_classes_have_and_gives_bits(
    kind: str, evaluated: dict[str, dict[str, Any]], trained: dict[str, RunFolder]
) -> None:
    """Classes of five images: up to four supports, one query; every number in its unit."""
    rows = [row for row in evaluated[kind]["rows"] if row["model"] == trained[kind].config()["model"]["name"]]
    assert [row["shots"] for row in rows] == [0, 1, 2, 4]
    dims = 3 * SIDE * SIDE
    for row in rows:
        assert row["images"] == 6 * PER_CLASS, "each image is a query once"
        assert row["nats_per_dim"] == pytest.approx(row["nats_per_image"] / dims)
        assert row["bits_per_dim"] == pytest.approx(row["nats_per_dim"] / math.log(2))
        if kind != "logistic":
            assert row["bits_per_dim"] == pytest.approx(8, abs=0.15), "hardly trained: 8 bits a channel"
    assert {"independent", "support_mean", "support_mixture"} <= {row["model"] for row in evaluated[kind]["rows"]}


def test_the_support_tells_the_colour_to_who_looks(evaluated: dict[str, dict[str, Any]]) -> None:
    """The mixture over supports knows the levels of the class from one support on; it tests that episodes are right."""
    scores = {
        row["shots"]: row["bits_per_dim"]
        for row in evaluated["categorical"]["rows"]
        if row["model"] == "support_mixture"
    }
    assert scores[0] > 7
    assert scores[4] < 0.75 * scores[0]


def test_all_are_scored_on_one_set_which_can_be_written_and_compared(
    script: Any, evaluated: dict[str, dict[str, Any]], trained: dict[str, RunFolder]
) -> None:
    hashes = {result["episodes_sha256"] for result in evaluated.values()}
    written = script(episodes.experiment, task=trained["logistic"].config()["task"]).result
    assert hashes == {written["episodes_sha256"]}
    assert written["pixels"]["levels"] == 256
    again = script(evaluate.experiment, run=str(trained["logistic"].path), episodes=written["path"], baselines=False)
    assert again.result["rows"] == [row for row in evaluated["logistic"]["rows"] if row["model"] == "attention"]
    found = script(compare.experiment, runs=[result["folder"] for result in evaluated.values()]).result
    assert [row["shots"] for row in found["rows"]] == [0, 1, 2, 4] * 2
    assert {"model.likelihood"} == set(next(iter(found["config_differences"].values())))


@each
def test_samples_are_shown_in_their_own_colours(kind: str, script: Any, trained: dict[str, RunFolder]) -> None:
    result = script(sample.experiment, run=str(trained[kind].path), tasks=3, samples=4).result
    held, _ = read_tensors(result["tensors"])
    assert held["support"].shape == (4, 3, 3, SIDE, SIDE), "four supports, as far as the classes have images for them"
    drawn = held["samples"]
    assert drawn.shape == (4, 3, 3, SIDE, SIDE)
    assert drawn.min() < 20
    assert drawn.max() > 235
    assert (drawn[:, :, 0] != drawn[:, :, 1]).float().mean() > 0.9, "channels of their own"
    shown = pixel_identity(result["picture"])
    cell = shown[1 : 1 + SIDE, 1 : 1 + SIDE]  # the first support of the first task
    np.testing.assert_array_equal(cell, held["support"][0, 0].permute(1, 2, 0).numpy())
    last = shown[-1 - SIDE : -1, -1 - SIDE : -1]
    np.testing.assert_array_equal(last, drawn[-1, -1].permute(1, 2, 0).numpy().astype(np.uint8))
    few = script(sample.experiment, run=str(trained[kind].path), tasks=3, samples=2, images_at_once=3).result
    assert torch.equal(read_tensors(few["tensors"])[0]["samples"], drawn[:2]), "an image has a seed of its own"


@each
def test_completion_says_which_part_it_can_complete(kind: str, script: Any, trained: dict[str, RunFolder]) -> None:
    """The upper half comes first in raster order; of a multiscale image every second pixel does."""
    run, exact = str(trained[kind].path), "small" if kind == "multiscale" else "top"
    other = "top" if kind == "multiscale" else "small"
    with pytest.raises(
        ValueError, match=r"come first in (raster order|the order of a multiscale image).*approximate=True"
    ):
        script(sample.experiment, "fast", run=run, observed=other)
    for observed, approximate in ((exact, False), (other, True)):
        result = script(sample.experiment, "fast", run=run, observed=observed, approximate=approximate).result
        held, header = read_tensors(result["tensors"])
        assert (header["observed"], header["approximate"]) == (observed, approximate)
        known: Any = (
            (..., slice(SIDE // 2), slice(None))
            if observed == "top"
            else (..., slice(None, None, 2), slice(None, None, 2))
        )
        same = held["samples"] == held["query"]
        assert same[known].all()
        assert same.float().mean() < (0.5 if observed == "top" else 0.25) + 0.1, "the rest is drawn"


@each
def test_classification_and_memorisation(kind: str, script: Any, trained: dict[str, RunFolder]) -> None:
    run = str(trained[kind].path)
    found = script(classify.experiment, run=run, ways=5, episodes=3).result
    assert found["queries"] == 3 * 5 * (PER_CLASS - 1), "as many queries as a class has images for"
    assert found["nll"] == pytest.approx(math.log(5), abs=0.5), "hardly trained"
    assert found["nearest_neighbour"]["accuracy"] > 0.5
    checked = script(memorisation.experiment, run=run, permutations=50).result
    assert checked["shots"] == 3, "a support, and an unseen and a held-out image of each class"
    assert checked["closer"] is False, "samples are noise"
    assert checked["tests"]["support"]["sample_distance"] > checked["tests"]["support"]["heldout_distance"]
    own = {colour_of(number) for number in range(14, 20)}
    assert len(own & colours(pixel_identity(checked["picture"]))) == 6


@each
def test_a_stopped_run_goes_on_to_the_same_bits(
    kind: str, script: Any, trained: dict[str, RunFolder], tmp_path: Path
) -> None:
    whole = trained[kind]
    shutil.copytree(whole.path, tmp_path / "half")
    (tmp_path / "half" / "checkpoints" / "state-00000004.safetensors").unlink()
    more = {"resume": str(tmp_path / "half"), "task": whole.config()["task"], **OPTIONS.get(kind, {})}
    resumed = RunFolder(script(train.experiment, "folder", *MODELS[kind], "fast", **more).result["folder"])
    one, other = (read_tensors(folder.states()[-1])[0] for folder in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert joined_lines(resumed) == (whole.path / "metrics.jsonl").read_bytes()


@each
def test_attention_maps_and_grids(kind: str, trained: dict[str, RunFolder]) -> None:
    run = trained[kind]
    model, task = run.model(), build_task(run.config()["task"], "test")
    episode = task.episode(0, tasks=3, shots=2, queries=1)
    found = attention_maps(model, episode)
    assert found is not None
    maps, nowhere = found
    assert maps.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(maps.sum((0, 2, 3)) + nowhere, torch.ones(3))
    patches, null = patch_attention(model, episode.support, episode.query[0]) or (torch.empty(0), torch.empty(0))
    assert patches.shape == (3, 2, 2, 2, SIDE, SIDE)
    # Of the pixels the square counts, not the white paper.
    weight = (255 - episode.query[0].float()).mean(1)
    weight = weight / weight.sum((1, 2), keepdim=True)
    torch.testing.assert_close((null * weight).sum((1, 2)), nowhere)
    curves = read_events(run.path / "tensorboard")
    own = {colour_of(number) for number in range(10, 14)}  # of the validation classes
    for tag in ("support beside samples", "attention of the query over its supports"):
        (event,) = curves.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            assert picture.mode == "RGB"
            shown = np.asarray(picture)
        assert shown.shape == (event.height, event.width, 3)
        assert len(own & colours(shown)) >= 2, tag
    np.testing.assert_array_equal(pixel_identity(run.path / "samples" / "attention.png"), shown)


def in_process(folder: RunFolder, progress: bool) -> str:
    """The outputs of the cells of the page's notebook, without a kernel of their own."""
    cells = [cell for cell in json.loads(TEMPLATE.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if source.startswith("page."):
            parts.append(eval(source, names).data)
        else:
            exec(source, names)
            names["run"] = folder.path
    return "".join(parts)


def test_the_page_of_a_run(script: Any, trained: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation and check are made for it, with as many images as the classes have."""
    monkeypatch.setattr("experiments.run_page.page.LIMIT", 4)
    monkeypatch.setattr("experiments.run_page.page._executed", in_process)
    said: list[str] = []
    run = trained["multiscale"]
    script(sample.experiment, "fast", run=str(run.path))
    made = shutil.copytree(run.path, run.path.parent / "again")  # nothing was evaluated of this one
    page = write_report(made, say=said.append).read_text()
    assert [line.split(" was not ")[1] for line in said] == ["evaluated yet.", "checked for memorisation yet."]
    for text in ("multiscale on folder", "bits/dim", "distance to", "split test", "Closest pairs", "<td>2</td>"):
        assert text in page
    assert "has no attention" not in page
    embedded = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    found: set[tuple[int, ...]] = set()
    for data in embedded:
        with Image.open(io.BytesIO(data)) as picture:
            found |= colours(np.asarray(picture.convert("RGB")))
    assert len(embedded) >= 5
    assert len({colour_of(number) for number in range(10, 20)} & found) >= 6, "classes are shown in their colours"


def test_emoji_train_and_are_evaluated(data_root: Path, script: Any) -> None:
    """Real drawings on white: their white is known at once, so a support saves bits."""
    task = {"data_root": str(data_root), "size": 8}
    run = script(train.experiment, "emoji", "attention", "logistic", "fast", task=task).result["folder"]
    result = script(evaluate.experiment, run=run, limit=6, baseline_steps=3).result
    assert {row["shots"] for row in result["rows"]} == {0, 1, 2, 4}
    drawn = script(sample.experiment, "fast", run=run, observed="top").result
    assert (pixel_identity(drawn["picture"]) == 255).all(-1).mean() > 0.2


def test_mirror_images_are_the_smallest_classes(pictures: Path, script: Any) -> None:
    """Two images a class: all but the check for copies, which needs three, has defaults that fit."""
    task = {"folder": str(pictures), "size": SIDE}
    run = script(train.experiment, "fast", "mirror", "attention", task=task).result["folder"]
    result = script(evaluate.experiment, "fast", run=run, baselines=False).result
    assert [row["shots"] for row in result["rows"]] == [0, 1]
    held = read_tensors(script(sample.experiment, run=run, tasks=2, samples=2, observed="top").result["tensors"])[0]
    assert torch.equal(held["support"], held["query"].flip(-1))
    assert script(classify.experiment, "fast", run=run).result["queries"] == 4 * 3
    with pytest.raises(ValueError, match=r"2 images of its smallest class; .* cannot be made for this task"):
        script(memorisation.experiment, run=run)


@pytest.mark.parametrize("ink", [False, True])
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 2), (1, 17), (3, 8), (3, 256)])
def test_pictures_are_neither_grey_nor_stretched(channels: int, levels: int, ink: bool) -> None:
    """The first and the last level are black and white, whatever else the image holds; of ink, white and black."""
    low, high = (255, 0) if ink else (0, 255)
    ends = torch.tensor([0, levels - 1]).view(1, 1, 2).expand(channels, 1, 2)
    assert image_array(ends, levels, ink).tolist() == [[[low] * 3, [high] * 3]]
    dark = torch.zeros(channels, 2, 2, dtype=torch.uint8)
    assert (as_shown(dark, levels, ink) == low).all(), "an image of one level keeps it"
    if channels == 3 and not ink:
        red = torch.tensor([levels - 1, 0, 0]).view(3, 1, 1)
        assert image_array(red, levels).tolist() == [[[255, 0, 0]]]
        grid = support_beside_samples(red[None, None], red[None, None], levels)
        assert (grid[1, 1].tolist(), grid[1, -2].tolist()) == ([255, 0, 0], [255, 0, 0])
    if levels == 17:
        assert image_array(torch.tensor([[[8]]]), levels).tolist() == [[[128] * 3]]  # 127.5 to the even one
    with pytest.raises(ValueError, match="are no picture"):
        image_array(torch.zeros(2, 3, 3), levels)


def test_other_images_than_the_split_names_are_refused(pictures: Path, script: Any) -> None:
    with pytest.raises(DataError, match="no class of test has 6 images"):
        TASKS["folder"](
            split="test", folder=str(pictures), size=SIDE, splits=str(pictures / "splits.json"), min_images=6
        )

"""``experiments.compress``, whole: files as long as the likelihood says, that decode to the images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import compress, evaluate, train
from experiments.recording.trained_model import find_model
from metadensity.coding import CHECKSUM_BITS, MOST_CONSTANT_BITS, decode


@pytest.fixture(scope="module")
def trained(script: Any) -> str:
    run = script(train.experiment, "hershey", "attention", "fast", task={"size": 12})
    return str(run.result["folder"])


@pytest.fixture(scope="module")
def coded(trained: str, script: Any) -> Any:
    return script(compress.experiment, "fast", run=trained, shots=2, queries=2, tasks_per_file=2)


def test_the_files_are_as_long_as_the_likelihood_says(coded: Any, trained: str, script: Any) -> None:
    result = coded.result
    assert coded.status == "COMPLETED"
    assert (result["shots"], result["images"], len(result["files"])) == (2, 6, 2)
    folder = Path(result["folder"])
    sizes = [8 * path.stat().st_size for path in sorted((folder / "codes").iterdir())]
    assert sizes == [file["bits"] for file in result["files"]]
    for file in result["files"]:
        assert 0 < file["bits"] - file["information"] < MOST_CONSTANT_BITS + 0.1
        assert CHECKSUM_BITS < file["bits"] - file["symbols"] <= MOST_CONSTANT_BITS
        assert abs(file["symbols"] - file["information"]) < 5e-4 * 144 * file["images"]
    constant, rounding = result["constant_bits_per_file"], result["rounding_bits_per_symbol"]
    assert constant + rounding * 144 * 6 / 2 == pytest.approx(result["excess_bits_per_file"])
    said = f"Of these {constant:.1f} a file are constant (32 of checksum, up to 64 for the coder's end), and "
    assert f"{said}{rounding:.5f} for each" in (folder / "compression.md").read_text()
    scores = script(
        evaluate.experiment, "fast", run=trained, shots=[2], queries=2, limit=3, baselines=False, split="test"
    ).result
    assert scores["episodes_sha256"] == result["episodes_sha256"]
    bits = sum(file["information"] for file in result["files"]) / result["images"]
    assert bits * math.log(2) == pytest.approx(scores["rows"][0]["nats_per_image"], rel=1e-5)


def test_a_file_is_read_by_the_model_and_the_supports(coded: Any, trained: str) -> None:
    from experiments.ingredients import build_task
    from experiments.ingredients.evaluation_episodes import choose_episodes

    subject = find_model(trained)
    task, model = build_task(subject.config()["task"], "test"), subject.model("cpu")
    chosen = choose_episodes(task, None, [2], 2, 1, 3, 0, 3)
    first = next(iter(chosen.episodes(task, 2, 2)))
    code = sorted((Path(coded.result["folder"]) / "codes").iterdir())[0].read_bytes()
    assert torch.equal(decode(model(first.support), code, (2,)), first.query.long())


def test_what_it_writes(coded: Any) -> None:
    folder = Path(coded.result["folder"])
    kept = json.loads((folder / "compression.json").read_text(), parse_constant=pytest.fail)
    assert kept == json.loads(json.dumps(coded.result))
    text = (folder / "compression.md").read_text()
    for line in (
        "| attention, -log2 p |",
        "| attention, its files |",
        "| PNG, an image each |",
        "all 6 images are equal",
    ):
        assert line in text
    assert "| levels as they are | 144.00 | 1.0000 |" in " ".join(text.split())


def test_the_other_codes_hold_the_pixels() -> None:
    """What the model's files are compared with is no worse than it should be: both read back."""
    import io
    import lzma

    from PIL import Image

    for shape, levels in (((1, 7, 5), 2), ((1, 7, 5), 17), ((3, 6, 4), 256), ((1, 9), 4)):
        image = torch.randint(levels, shape, generator=torch.Generator().manual_seed(levels))
        read = np.asarray(Image.open(io.BytesIO(compress.as_png(image, levels))))
        back = read.astype(int).reshape(-1, shape[0] if len(shape) == 3 else 1)
        assert (back == image.reshape(shape[0] if len(shape) == 3 else 1, -1).T.numpy()).all(), shape
        assert len(compress.packed(image, levels)) == -(-image.numel() // 8) if levels == 2 else image.numel()
        assert lzma.decompress(lzma.compress(compress.packed(image, levels))) == compress.packed(image, levels)


def test_a_png_is_as_small_as_its_strategies_make_it() -> None:
    """A baseline that is larger than it needs to be would flatter the model."""
    import io

    from PIL import Image

    image = (torch.rand(1, 26, 26, generator=torch.Generator().manual_seed(0)) < 0.15).long()
    picture = Image.fromarray((255 * image[0]).to(torch.uint8).numpy()).convert("1")

    def size(**how: Any) -> int:
        file = io.BytesIO()
        picture.save(file, "PNG", **how)
        return file.tell()

    ours = len(compress.as_png(image, 2))
    assert ours == min(size(compress_level=9, compress_type=strategy) for strategy in range(5))
    assert ours < size(optimize=True)


def test_a_model_without_an_order_is_refused(script: Any) -> None:
    run = script(train.experiment, "hershey", "independent", "fast", task={"size": 12})
    with pytest.raises(TypeError, match="does not go through an image pixel by pixel"):
        script(compress.experiment, "fast", run=run.result["folder"])

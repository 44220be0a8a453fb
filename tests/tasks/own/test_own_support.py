"""Examples of one's own as a model expects them: any size, paper, pen and file; and what cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks import TASKS
from tasks.data.roots import DataError
from tasks.own import OwnSupport, own_support
from tasks.own.drawings import pen_width
from tasks.own.thinning import thinned
from tasks.speech import mu_law
from tasks.speech.sound_files import wav


def like(shape: tuple[int, ...], levels: int, **recipe: Any) -> Any:
    """What ``own_support`` asks of a model."""
    return SimpleNamespace(event_shape=shape, levels=levels, provenance={"task": recipe})


INK = like((1, 26, 26), 2, task="omniglot", size=26, shrink="maxpool", threshold=None)
COLOUR = like((3, 16, 16), 256, task="emoji", size=16)
SPEECH = like((1, 400), 256, task="speech", rate=8000, length=400, lengths=True, centred=False)
NAMES = like((1, 6), 4, task="names", length=6, alphabet="abc")
WINDOWS = like((1, 4), 3, task="text", length=4, alphabet="abc")


def house(size: tuple[int, int] = (500, 400), pen: int = 3, mode: str = "L", ink: Any = 0, paper: Any = 255) -> Any:
    """A house in the middle of a sheet of paper, half as high as it."""
    image = Image.new(mode, size, paper)
    side = min(size) / 2
    x, y = size[0] / 2 - side / 2, size[1] / 2 - side / 2
    at = [(0, 0.45), (0.5, 0), (1, 0.45), (1, 1), (0, 1), (0, 0.45), (1, 0.45)]
    points = [(x + side * right, y + side * down) for right, down in at]
    ImageDraw.Draw(image).line(points, fill=ink, width=pen, joint="curve")
    return image


def alike(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Pixels of ink that both have, as a part of those that either has."""
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def reference() -> NDArray[np.uint8]:
    return own_support([house(pen=14)], INK).support[0, 0, 0].numpy()


STYLES = {
    "thin": house(pen=1),
    "thick": house(pen=40),
    "small": house((60, 60), pen=2),
    "large": house((3000, 2400), pen=20),
    "grey": house(ink=140, paper=215, pen=6),
    "white on black": house(ink=255, paper=0, pen=6),
    "red on transparent": house(mode="RGBA", ink=(200, 30, 30, 255), paper=(0, 0, 0, 0), pen=6),
    "yellow on blue": house(mode="RGB", ink=(240, 240, 60), paper=(30, 40, 160), pen=6),
}


@pytest.mark.parametrize("style", STYLES)
def test_any_pen_and_paper_gives_about_the_same_drawing(style: str, reference: NDArray[np.uint8]) -> None:
    found = own_support([STYLES[style]], INK).support
    assert found.shape == (1, 1, 1, 26, 26)
    assert found.dtype == torch.uint8
    assert set(found.unique().tolist()) == {0, 1}
    assert alike(found[0, 0, 0].numpy(), reference) > 0.75
    rows, columns = (np.flatnonzero(found[0, 0, 0].numpy().any(axis)) for axis in (1, 0))
    assert 15 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 19  # Omniglot's fill 0.63 of the side, shrunk 0.67


def test_one_pixel_strokes_stay_whole_and_a_plain_resize_breaks_them() -> None:
    thin = house(pen=1)
    own = own_support([thin], INK)
    assert own.support.sum() > 60
    assert any("thickened" in note for note in own.notes)
    plain = np.asarray(thin.resize((26, 26))) < 128
    assert plain.sum() < 10, "the negative control: halved pixel by pixel, nothing is left of the strokes"
    with pytest.raises(DataError, match="drawing 0 holds strokes too thin for 26 x 26 pixels; leave pen=True"):
        own_support([house((200, 200), pen=1)], like((1, 26, 26), 2, task="hershey"), fit="whole", pen=False)


def test_a_photograph_with_uneven_light_and_noise_is_read() -> None:
    drawn = np.asarray(house((600, 450), pen=8), dtype=float) / 255
    rows, columns = np.mgrid[:450, :600]
    light = 110 + 80 * columns / 600 + 30 * rows / 450
    noisy = drawn * light + np.random.default_rng(0).normal(size=drawn.shape) * 7
    photo = noisy.clip(0, 255).astype(np.uint8)
    own = own_support([photo], INK)
    flat = own_support([house((600, 450), pen=8)], INK)
    assert alike(own.support[0, 0, 0].numpy(), flat.support[0, 0, 0].numpy()) > 0.8
    assert any("evened out" in note for note in own.notes)
    assert not any("evened out" in note for note in flat.notes)


def test_omniglots_own_drawings_become_the_tasks_pixels(data_root: Path) -> None:
    whole, small = (
        task.pixels(range(0, task.images, task.images // 40))
        for task in (TASKS["omniglot"]("validation", data_root, size=size) for size in (105, 26))
    )
    scans = 255 - 255 * whole[:, 0].numpy()
    own = own_support(scans, INK, fit="whole", pen=False)
    assert torch.equal(own.support[:, 0], small)
    assert own.notes == ["inverted: dark ink on light paper, and 1 is ink to the model"]
    boxed = own_support(scans, INK).support[:, 0]
    assert 0.85 < float(boxed.float().mean() / small.float().mean()) < 1.15


def test_pixels_of_the_models_own_shape_are_taken_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (3, 26, 26))
    for given in (pixels, torch.from_numpy(pixels), [*pixels[:, None]], pixels.astype(bool)):
        own = own_support(given, INK)
        assert torch.equal(own.support[:, 0, 0], torch.from_numpy(pixels).to(torch.uint8))
        assert own.notes == ["taken as they are: of the model's own shape and levels"]
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    assert torch.equal(own_support(colour, COLOUR).support[:, 0], torch.from_numpy(colour))


def test_colour_is_prepared_as_the_task_prepares_it(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    own = own_support(tmp_path, COLOUR)
    assert np.array_equal(own.support[0, 0].numpy(), wide[:, 2:18].transpose(2, 0, 1))
    assert own.notes == ["the largest square in the middle", "resized to 16 x 16"]
    assert "squeezed into a square" in own_support(tmp_path, COLOUR, fit="stretch").notes
    assert torch.equal(own_support([wide], COLOUR).support, own.support)


def test_files_lists_and_arrays_are_one_and_the_same(tmp_path: Path) -> None:
    images = [house(pen=pen) for pen in (4, 9)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("none of it")
    arrays = np.stack([np.asarray(image) for image in images])
    np.save(tmp_path / "arrays.npy", arrays)
    np.savez(tmp_path / "arrays.npz", one=arrays[0], other=arrays[1] / 255)
    expected = own_support(images, INK)
    for given in (
        tmp_path,
        [tmp_path / "0.png", str(tmp_path / "1.png")],
        arrays,
        tmp_path / "arrays.npy",
        tmp_path / "arrays.npz",
    ):
        assert torch.equal(own_support(given, INK).support, expected.support)
    assert own_support(tmp_path, INK).names == ["0.png", "1.png"]
    assert own_support(tmp_path / "arrays.npz", INK).names == ["one", "other"]


def test_each_is_scored_given_the_others() -> None:
    own = own_support(np.eye(26, dtype=int)[None] * np.array([1, 1, 1])[:, None, None], INK)
    support = torch.stack([torch.full((1, 1, 26, 26), level, dtype=torch.uint8) for level in (0, 1, 1)])
    own = OwnSupport(support, ["a", "b", "c"], [], own.medium, [])
    episode = own.leave_one_out()
    assert episode.support[:, :, 0, 0, 0].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert episode.query[:, :, 0, 0, 0].tolist() == [[0, 1, 1]]
    assert episode.support_ids is not None
    assert episode.support_ids.tolist() == [[1, 0, 0], [2, 2, 1]]
    assert own.episode().shots == 3
    alone = own_support(np.eye(26, dtype=int), INK)
    assert (alone.leave_one_out().shots, len(alone)) == (0, 1)


def test_a_mirror_model_is_asked_for_mirror_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    own = own_support(pixels, like((3, 16, 16), 256, task="mirror", how={"fit": "crop"}))
    episode = own.leave_one_out()
    assert torch.equal(episode.query, own.support.transpose(0, 1).flip(-1))
    assert torch.equal(episode.support, own.support.transpose(0, 1))


def test_recordings_come_at_the_models_rate_and_length(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(300) / 5)
    (tmp_path / "a.wav").write_bytes(wav(tone, 8000))
    (tmp_path / "b.wav").write_bytes(wav(np.repeat(np.r_[tone, tone], 2), 16000))
    own = own_support(tmp_path, SPEECH)
    assert own.support.shape == (2, 1, 1, 400)
    assert own.lengths is not None
    assert own.lengths.tolist() == [[300], [400]]
    assert np.array_equal(own.support[0, 0, 0, :300].numpy(), mu_law.encode(np.rint(tone * 2**15) / 2**15).codes)
    assert own.notes[:2] == [
        "1 of 2 resampled from 16,000 to 8,000 samples a second",
        "1 of 2 cut to 0.05 s, the first 400 samples",
    ]
    assert own.leave_one_out().support_lengths is not None
    fixed = like((1, 400), 256, task="speech", rate=8000, length=400)
    with pytest.raises(DataError, match=re.escape("these are shorter at that rate: a.wav (300)")):
        own_support(tmp_path, fixed)
    with pytest.raises(TypeError, match="does not say how many samples a second has"):
        own_support(np.zeros((2, 400)), SPEECH)


def test_strings_are_lines_or_windows(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("abc\r\ncab\n\nabcabc\n")
    for given in (tmp_path / "names.txt", [str(tmp_path / "names.txt")], ["abc", "cab", "abcabc"]):
        own = own_support(given, NAMES)
        assert own.support[:, 0, 0].tolist() == [[0, 1, 2, 3, 3, 3], [2, 0, 1, 3, 3, 3], [0, 1, 2, 0, 1, 2]]
        assert own.lengths is not None
        assert own.lengths[:, 0].tolist() == [4, 4, 6]
        assert own.leave_one_out().support_lengths is None  # the end tells
    windows = own_support(["abca", "bca"], WINDOWS)
    assert windows.support[:, 0, 0].tolist() == [[0, 1, 2, 0]]
    assert windows.notes == ["cut into windows of 4 characters; the last 3 are left out"]


def test_lines_of_one_pixel_hang_together_and_lie_in_the_ink() -> None:
    ink = np.asarray(house(pen=20)) < 128
    lines = thinned(ink)
    assert (lines <= ink).all()
    assert pen_width(lines) == 1
    assert abs(pen_width(ink) - 20) < 3
    assert np.array_equal(thinned(lines), lines)


BAD: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    ("nowhere", INK, {}, DataError, "there is no nowhere. Name a folder, a file, or a list"),
    ([], INK, {}, DataError, "holds no examples; give one at least"),
    (7, INK, {}, TypeError, "support is int; give a folder, files, images or arrays"),
    ([7], INK, {}, TypeError, "support[0] is int; give a file, an image or an array"),
    (np.zeros(4), INK, {}, ValueError, "support is an array of shape (4,)"),
    (np.full((1, 9, 9), 300), INK, {}, ValueError, "array 0 holds int64 from 300 to 300; give whole numbers from 0"),
    (np.full((1, 9, 9), 1.5), INK, {}, ValueError, "from 1.5 to 1.5"),
    (np.full((1, 9, 9), np.nan), INK, {}, ValueError, "from nan to nan"),
    (np.zeros((1, 2, 9, 9)), INK, {}, ValueError, "array 0 has shape (2, 9, 9); an image is"),
    (np.full((1, 50, 50), 200), INK, {}, DataError, "array 0 holds no drawing: nothing in it stands out"),
    (
        [house()],
        INK,
        {"fit": "crop"},
        ValueError,
        "fit='crop', but the model is one of drawings; give one of box, w",
    ),
    ([house()], COLOUR, {"fit": "box"}, ValueError, "fit='box', but the model is one of images; give one of crop, str"),
    ([house()], INK, {"fit": "round"}, ValueError, "fit='round'; give one of box, whole, crop, stretch, or None"),
    (["a"], like((1, 9), 4, task="chains"), {}, DataError, "trained on chains, of events (1, 9): there is no way"),
    ([house()], like((1, 8, 9), 2), {}, DataError, "the model's images are 8 x 9, and no square"),
    (["abd"], NAMES, {}, DataError, "the characters 'd', the first of them in 'abd'; it knows 'abc'"),
    (["abcabca"], NAMES, {}, DataError, "strings of at most 6 characters; longer are 'abcabca'"),
    (["abc"], WINDOWS, {}, DataError, "reads windows of 4 characters, and there are 3; give more"),
]


@pytest.mark.parametrize(("given", "model", "options", "error", "says"), BAD, ids=[case[-1][:30] for case in BAD])
def test_what_cannot_be_is_a_sentence(
    given: Any, model: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        own_support(given, model, **options)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken.png is no image that can be read"):
        own_support(tmp_path, INK)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"broken.npy is no file of arrays that can be read"):
        own_support(tmp_path / "broken.npy", INK)
    with pytest.raises(DataError, match=r"broken.png is of a kind that is not read here; give .wav, .flac"):
        own_support([tmp_path / "broken.png"], SPEECH)
    (tmp_path / "classes" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match=r"it holds cats. Its folders are classes: name one of them"):
        own_support(tmp_path / "classes", INK)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.txt is no text in UTF-8"):
        own_support(tmp_path / "latin.txt", NAMES)

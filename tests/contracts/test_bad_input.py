"""Every model says of bad input what was given, what is allowed, and what to do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from metadensity import Episode
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.models import MODELS
from metadensity.testing.subjects import Case, arguments

from .subjects import NETWORKS, RECIPES, SMALL, Recipe

EVENT = Case((1, 3, 3))
each_subject = pytest.mark.parametrize("recipe", RECIPES, ids=str)
each_network = pytest.mark.parametrize("recipe", NETWORKS, ids=str)
each_model = pytest.mark.parametrize("name", MODELS)

NO_PIXELS = [
    (torch.zeros(2, 3, 1, 3, 3), "torch.float32", "Binarise or quantise"),
    (torch.zeros(2, 3, 1, 3, 3, dtype=torch.bool), "torch.bool", "Type NAME.to(torch.uint8)."),
    (torch.zeros(2, 3, 1, 3, 3, dtype=torch.uint16), "torch.uint16", "Type NAME.to(torch.int64)."),
    (np.zeros((2, 3, 1, 3, 3), np.int64), "ndarray", "Type torch.from_numpy(NAME)."),
    (np.zeros((2, 3, 1, 3, 3), bool), "ndarray", "Type torch.from_numpy(NAME.astype(np.uint8))."),
    (np.zeros((2, 3, 1, 3, 3), np.uint16), "ndarray", "Type torch.from_numpy(NAME.astype(np.int64))."),
    (np.zeros((2, 3, 1, 3, 3)), "ndarray", "Binarise or quantise"),
    ([[0, 1]], "list", "Type torch.tensor(NAME)."),
    (Episode(*torch.zeros(2, 2, 3, 1, 3, 3, dtype=torch.uint8)), "Episode", "Type episode."),
    (None, "NoneType", ""),
]


def says(*parts: str) -> str:
    """A pattern for messages that hold these parts in order."""
    return "(?s)" + ".*".join(map(re.escape, parts))


@each_subject
def test_pixels_that_are_no_integers(recipe: Recipe) -> None:
    subject = recipe.build(EVENT)
    density = subject(subject.images(0, 3, seed=0))
    for pixels, given, advice in NO_PIXELS:
        first, then = (
            says(f"{name} holds", given, "integers in [0, levels)", advice.replace("NAME", name))
            for name in ("support", "value")
        )
        with pytest.raises(TypeError, match=first):
            subject.model(pixels)
        for score in (density.log_prob, density.conditional_log_probs):
            with pytest.raises(TypeError, match=then):
                score(pixels)


@each_subject
@pytest.mark.parametrize("shape", [(3, 3), (3, 1, 3, 3), (2, 3, 1, 3, 4), (2, 3, 2, 3, 3), (2, 1, 3, 1, 3, 3), ()])
def test_support_of_a_wrong_shape(recipe: Recipe, shape: tuple[int, ...]) -> None:
    expected = says(f"support has shape {shape}", "(shots, tasks, channels, *space) = (shots, tasks, 1, 3, 3)")
    with pytest.raises(ValueError, match=expected):
        recipe.build(EVENT).model(torch.zeros(shape, dtype=torch.uint8))


@each_subject
@pytest.mark.parametrize("shape", [(3, 3), (2, 1, 3, 3), (2, 3, 1, 3, 4), (1, 3, 3), ()])
def test_value_of_a_wrong_shape(recipe: Recipe, shape: tuple[int, ...]) -> None:
    subject = recipe.build(EVENT)
    density = subject(subject.images(0, 3, seed=0))
    expected = says(f"value has shape {shape}", "(*samples, 3, 1, 3, 3)", "pass exactly (3, 1, 3, 3)")
    with pytest.raises(ValueError, match=expected):
        density.log_prob(torch.zeros(shape, dtype=torch.uint8))


@each_subject
@pytest.mark.parametrize("level", [2, 255, -1])
def test_levels_out_of_range(recipe: Recipe, level: int) -> None:
    subject = recipe.build(EVENT)
    pixels = torch.zeros(2, 3, 1, 3, 3, dtype=torch.int64)
    pixels[1, 2, 0, 2, 1] = level
    density = subject(subject.images(0, 3, seed=0))
    low, high = min(level, 0), max(level, 0)
    expected = says(f"holds pixels from {low} to {high}", "levels=2", "[0, 1]", "Rescale")
    for act in (subject.model, density.log_prob):
        with pytest.raises(ValueError, match=expected) as caught:
            act(pixels)
        advice = f"build the model with levels={level + 1}"  # which helps where no pixel is negative, and only there
        assert (advice in str(caught.value)) == (level > 0) == ("build" in str(caught.value))


@each_network
def test_uniforms_of_a_wrong_shape(recipe: Recipe) -> None:
    subject = recipe.build(EVENT)
    density = subject(subject.images(1, 3, seed=0))
    assert isinstance(density, RasterDensity)
    for naive in (False, True):
        with pytest.raises(ValueError, match=says("uniforms have shape (2, 1, 3, 3)", "(3, 1, 3, 3)")):
            density.sample_from_uniforms(torch.rand(2, 1, 3, 3), naive=naive)


@each_model
@pytest.mark.parametrize(
    "event_shape", [(), (1,), (1, 2, 3, 4, 5), (1, 0, 3), (-1, 3, 3), (0, 3), (1, 2.5, 3), ("a", 3), 28, None], ids=str
)
def test_event_shapes_that_are_none(name: str, event_shape: Any) -> None:
    given = tuple(event_shape) if isinstance(event_shape, tuple) else event_shape
    expected = says(f"event_shape={given}", "(channels, *space)", "one to three", "for example (1, 28, 28)")
    with pytest.raises(ValueError, match=expected):
        MODELS[name](event_shape, 2)


@each_model
@pytest.mark.parametrize("levels", [1, 0, -2, 2.5, "2", None], ids=repr)
def test_levels_that_are_none(name: str, levels: Any) -> None:
    with pytest.raises(ValueError, match=says(f"levels={levels!r}", "at least 2 levels", "2 for binary")):
        MODELS[name]((1, 3, 3), levels)


@each_model
def test_event_shapes_of_other_kinds(name: str) -> None:
    """Whatever holds whole numbers will do, and config holds plain ones."""
    for event_shape in (torch.Size([1, 3, 3]), [1, 3, 3], np.array([1, 3, 3])):
        assert MODELS[name](event_shape, np.int64(2)).config["event_shape"] == [1, 3, 3]


@pytest.mark.parametrize("name", [name for name in MODELS if "kernel_size" in arguments(MODELS[name])])
@pytest.mark.parametrize("kernel_size", [4, 2, 1, 0, -3])
def test_kernels_that_have_no_middle(name: str, kernel_size: int) -> None:
    with pytest.raises(ValueError, match=says(f"kernel_size={kernel_size}", "odd", "3 or more")):
        MODELS[name]((1, 3, 3), 2, **SMALL, kernel_size=kernel_size)


SIZES = [
    (name, argument, size)
    for name in MODELS
    for argument in ("layers", "planes", "penultimate", "context")
    if argument in arguments(MODELS[name])
    for size in (0, -1, 2.5)
]


@pytest.mark.parametrize(("name", "argument", "size"), SIZES)
def test_sizes_that_are_none(name: str, argument: str, size: Any) -> None:
    small = {key: value for key, value in SMALL.items() if key in arguments(MODELS[name])}
    with pytest.raises(ValueError, match=says(f"{argument}={size}", "at least")):
        MODELS[name]((1, 3, 3), 2, **{**small, argument: size})


@pytest.mark.parametrize("stride", [0, 3, 8, "4", None], ids=repr)
def test_stride_of_patches_that_is_none(stride: Any) -> None:
    with pytest.raises(ValueError, match=says(f"patch_stride={stride!r}", "4", "2 or 1")):
        MODELS["attention"]((1, 3, 3), 2, **SMALL, patch_stride=stride)


@pytest.mark.parametrize("attention", ["cosine", "", None], ids=repr)
def test_attention_that_is_none(attention: Any) -> None:
    with pytest.raises(ValueError, match=says(f"attention={attention!r}", "'additive'", "'dot'")):
        MODELS["attention"]((1, 3, 3), 2, **SMALL, attention=attention)


@each_subject
def test_no_tasks_are_no_error(recipe: Recipe) -> None:
    """An empty batch has an empty answer, of the right shape."""
    subject = recipe.build(EVENT)
    density = subject(subject.images(2, 0, seed=0))
    assert density.log_prob(subject.images(4, 0, seed=0)).shape == (4, 0)
    assert density.sample((4,)).shape == (4, 0, 1, 3, 3)


@each_subject
def test_a_number_in_place_of_a_sample_shape(recipe: Recipe) -> None:
    subject = recipe.build(EVENT)
    density = subject(subject.images(0, 3, seed=0))
    for number in (8, np.int64(8)):
        with pytest.raises(TypeError, match=says("sample_shape=8", "sample((8,)) draws 8 images")):
            density.sample(number)  # type: ignore[arg-type]

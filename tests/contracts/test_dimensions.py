"""One formulation in one, two and three dimensions: sizes of each axis, and a net of fewer axes within one of more."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import metadensity
from metadensity.models import MODELS, AttentionPixelCNN, FewShotModel, UnconditionalPixelCNN
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import CausalConv
from metadensity.testing import checks_density, checks_model
from metadensity.testing.dimensions import in_more_dimensions
from metadensity.testing.subjects import Case, Subject, random_images

from .subjects import Recipe

NETS: dict[str, dict[str, Any]] = {
    "unconditional": {},
    "conditional": {},
    "attention": {"attention": "additive", "first_kernel": 5, "prototypes": 4},
    "aligned": {"attention": "dot", "patch_stride": 2},
    "ensemble": {"attention": "dot", "patch_stride": 1},
    "meta": {},
    "maml": {},
    "attention_meta": {"attention": "dot"},
    "wavenet": {"attention": "dot"},
    "bytenet": {"attention": "dot"},
}
SMALLER = [
    (Case((1, 9), 3), 2),
    (Case((2, 12), 2, {"dilations": (1, 2, 4), "layers": 4}), 1),
    (Case((1, 5, 6)), 1),
    (Case((2, 4, 9), 3, {"kernel_size": (3, 5), "dilations": (1, (2, 1))}), 1),
]


def difference(smaller: FewShotModel, larger: FewShotModel, ahead: int) -> float:
    """The largest of log-probabilities of the same images, given 0 and 3 supports."""
    worst = 0.0
    for shots in (0, 3):
        support = random_images(shots, 2, *smaller.event_shape, levels=smaller.levels, seed=1)
        value = random_images(5, 2, *smaller.event_shape, levels=smaller.levels, seed=2)
        small = smaller(support).log_prob(value)
        large = larger(support.unflatten(2, (-1, *[1] * ahead))).log_prob(value.unflatten(2, (-1, *[1] * ahead)))
        worst = max(worst, float((small - large).detach().abs().max()))
    return worst


@pytest.mark.parametrize(("case", "ahead"), SMALLER, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_a_net_is_one_of_more_dimensions(name: str, case: Case, ahead: int) -> None:
    """To 1e-6 nats in float32; in float64 to what rounding leaves."""
    if (name, len(case.event_shape)) in {("wavenet", 3), ("bytenet", 3), ("aligned", 2)}:
        return  # the first two are made for sequences; the map of the third is halved while its shortest side is 8
    smaller = Recipe(name, NETS[name]).build(case, torch.float64).model
    larger = in_more_dimensions(smaller, ahead)
    assert len(larger.event_shape) == len(smaller.event_shape) + ahead
    assert difference(smaller, larger, ahead) < 1e-10
    assert difference(smaller.float(), larger.float(), ahead) < 1e-5


def test_a_net_with_other_weights_is_not_the_same() -> None:
    """The negative control: the plane before the only one is padding, and what a stack makes of it must not be seen."""
    smaller = Recipe("attention", {"attention": "dot"}).build(Case((1, 5, 6)), torch.float64).model
    larger = in_more_dimensions(smaller, 1)
    with torch.no_grad():
        for part in (larger.network.layers[0].convs[0].bias, larger.network.layers[0].links[0].weight):
            part += 0.3
    assert difference(smaller, larger, 1) > 1e-3


PER_AXIS = [
    Case((1, 5, 7), options={"layers": 3, "kernel_size": (3, 5), "dilations": ((1, 2), (2, 1))}),
    Case((2, 4, 6), 3, {"layers": 4, "kernel_size": (5, 1), "first_kernel": (3, 7)}),
    Case((1, 4, 4, 5), options={"layers": 3, "kernel_size": (1, 3, 3), "first_kernel": 3}),
    Case((1, 5, 3, 4), options={"layers": 4, "kernel_size": (3, 1, 3), "first_kernel": (5, 3, 3)}),
    Case((1, 5, 4, 3), options={"layers": 4, "kernel_size": (3, 5, 3), "dilations": ((2, 1, 1), 1)}),
    Case((2, 3, 3, 4), 3, {"layers": 3, "dilations": ((1, 2, 1),)}),
]


@pytest.mark.parametrize("case", PER_AXIS, ids=str)
def test_the_field_of_each_axis_is_the_one_promised(case: Case) -> None:
    checks_density.gradients_are_causal(Recipe("conditional").build(case, torch.float64))


@pytest.mark.parametrize("case", PER_AXIS, ids=str)
def test_samplers_of_each_axis_agree(case: Case) -> None:
    checks_model.samplers_agree(Recipe("attention", {"attention": "dot"}).build(case, torch.float64))


def depends(subject: Subject) -> torch.Tensor:
    """Whether the term of place t moves with place u, ``(u, t)``, by gradients at an image."""
    network = subject.model.network
    image = subject.images(1, seed=5).double().requires_grad_()
    condition = subject(subject.images(2, 1, seed=6)).condition
    terms = network.head.log_prob(network.features(image, condition), image.detach().long()).flatten()
    rows = [torch.autograd.grad(term, image, retain_graph=True)[0].flatten() for term in terms]
    return torch.stack(rows, 1) != 0


@pytest.mark.parametrize("kernel_size", [3, (3, 5, 3)], ids=str)
def test_every_voxel_of_3x3x3_sees_all_before_it_and_none_after(kernel_size: Any) -> None:
    subject = Recipe("attention", {"attention": "dot"}).build(
        Case((1, 3, 3, 3), options={"layers": 4, "kernel_size": kernel_size}), torch.float64
    )
    before = torch.ones(27, 27).triu(1).bool()
    assert torch.equal(depends(subject), before)
    assert torch.equal(checks_density.field(subject.model.network), before)


def test_a_frame_independent_voxel_sees_the_frames_before_it_and_none_of_its_own() -> None:
    options = {"layers": 4, "frame_independent": True}
    subject = Recipe("attention", {"attention": "dot"}).build(Case((1, 3, 3, 3), options=options), torch.float64)
    frame = torch.arange(27) // 9
    before = frame[:, None] < frame
    assert torch.equal(depends(subject), before)
    assert torch.equal(checks_density.field(subject.model.network), before)


@pytest.mark.parametrize("name", ["aligned", "ensemble", "meta", "maml", "attention_meta"])
def test_frames_are_independent_in_every_model(name: str) -> None:
    """Another voxel moves the terms of later frames, and in its own frame none but its own."""
    case = Case((1, 3, 3, 3), options={"frame_independent": True})
    subject = Recipe(name, {"attention": "dot"} if "meta" not in name and name != "maml" else {}).build(
        case, torch.float64
    )
    density, one = subject(subject.images(2, 1, seed=6)), subject.images(1, 1, seed=5)
    other = one.clone()
    other[..., 1, 1, 1] = 1 - other[..., 1, 1, 1]
    moved = (density.conditional_log_probs(one) != density.conditional_log_probs(other))[0, 0, 0]
    expected = torch.zeros(3, 3, 3, dtype=torch.bool)
    expected[1, 1, 1] = expected[2] = True
    assert not (moved & ~expected).any()
    assert moved[2].any()


def test_a_leak_along_one_axis_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the matrix: the plane stack of one layer also sees the plane after."""
    subject = Recipe("attention", {"attention": "dot"}).build(Case((1, 3, 3, 3), options={"layers": 4}), torch.float64)
    convolve = CausalConv.forward

    def leaky(conv: CausalConv, x: torch.Tensor) -> torch.Tensor:
        return convolve(conv, x.roll(-1, 2) if conv.stack == 0 and not conv.excludes_current else x)

    monkeypatch.setattr(CausalConv, "forward", leaky)
    for layer in subject.model.network.layers:
        layer.register_forward_hook(lambda *_: None)  # so that its parts are called
    assert depends(subject).tril().any()


FRAMES = [
    Case((1, 4, 3, 4), options={"frame_independent": True}),
    Case((2, 3, 2, 2), 3, {"frame_independent": True, "kernel_size": (3, 5, 3)}),
    Case((1, 4, 5), options={"frame_independent": True}),
    Case((1, 9), options={"frame_independent": True}),
]


@pytest.mark.parametrize("case", FRAMES, ids=str)
@pytest.mark.parametrize("name", ["attention", "ensemble"])
def test_samplers_of_independent_frames_agree(name: str, case: Case) -> None:
    subject = Recipe(name, {"attention": "dot"}).build(case, torch.float64)
    checks_model.samplers_agree(subject)
    checks_model.completions_agree(subject)


def test_independent_frames_sum_to_one_and_are_drawn_as_they_say() -> None:
    subject = Recipe("conditional").build(Case((1, 2, 2, 2), options={"frame_independent": True}))
    checks_density.sums_to_one(subject)
    checks_density.samples_follow(subject)
    table = subject(subject.images(1, 1, seed=0)).conditional_log_probs(subject.images(64, 1, seed=1))
    assert len(table[:, 0, 0, 0, 1, 1].exp().round(decimals=6).unique()) <= 2, "a place of the first frame sees others"


def test_a_sequence_of_independent_frames_is_a_sequence() -> None:
    """In one dimension a frame is a place, which does not see itself anyway."""
    made = [UnconditionalPixelCNN((1, 9), 2, layers=3, planes=6, frame_independent=each) for each in (False, True)]
    made[1].load_state_dict(made[0].state_dict())
    image = random_images(4, 1, 1, 9, levels=2, seed=0)
    empty = image[:0]
    assert torch.equal(made[0](empty).log_prob(image), made[1](empty).log_prob(image))


def test_arguments_of_each_axis_are_kept_in_a_file(tmp_path: Any) -> None:
    options = {"kernel_size": (1, 3, 5), "first_kernel": (5, 3, 3), "dilations": ((1, 2, 1), 1), "layers": 3}
    model = AttentionPixelCNN((1, 3, 4, 5), 2, planes=4, penultimate=4, frame_independent=True, **options)
    metadensity.save(model, tmp_path / "model.safetensors")
    loaded = metadensity.load(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert loaded.config["kernel_size"] == [1, 3, 5]
    assert loaded.config["dilations"] == [[1, 2, 1], 1]
    network = loaded.network
    assert isinstance(network, PixelCNN)
    assert network.frame_independent
    assert [conv.reaches for conv in (layer.convs[0] for layer in network.layers)] == [(2, 1, 1), (0, 2, 2), (0, 1, 2)]
    assert [conv.dilations for conv in (layer.convs[0] for layer in network.layers)] == [(1,) * 3, (1, 2, 1), (1,) * 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"kernel_size": (3, 3)},
            r"kernel_size=\(3, 3\) with 3 space dimensions; give one number for all of",
        ),
        ({"dilations": ((1, 2),)}, r"dilation=\(1, 2\) with 3 space dimensions"),
        ({"kernel_size": (3, 2, 3)}, r"kernel_size=\(3, 2, 3\); give one odd number for each space dimension"),
        ({"kernel_size": (1, 1, 1)}, "3 or more for one of them at least"),
        ({"kernel_size": (1, 3, 3)}, "without first_kernel; the first layer sees 3 places or more"),
        ({"first_kernel": (3, 1, 3)}, r"first_kernel=\(3, 1, 3\); give an odd number of 3 or more, or one for each"),
        ({"kernel_size": "333"}, "kernel_size='333'"),
        ({"dilations": ((1, 0, 1),)}, r"dilations=\(\(1, 0, 1\),\); give whole numbers of at least 1"),
        ({"frame_independent": 1}, "frame_independent=1; give True or False"),
        ({"frame_independent": True, "prototypes": 3}, "prototypes=3 with frame_independent=True"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AttentionPixelCNN((1, 3, 4, 5), 2, layers=3, planes=4, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bytenet", {"first_kernel": (3,)}),
        ("bytenet", {"dilations": ((1,), 2)}),
        ("bytenet", {"frame_independent": True}),
        ("aligned_bytenet", {"frame_independent": True}),
        ("multiscale", {"frame_independent": True}),
    ],
    ids=str,
)
def test_models_without_axes_refuse_sizes_of_axes(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ByteNet reads places in one row|multiscale image has no frames"):
        MODELS[name]((1, 8), 3, **options)


def test_a_multiscale_net_takes_a_kernel_of_each_axis() -> None:
    options = {"kernel_size": (3, 5), "first_kernel": (5, 3), "base": 4, "layers": 2, "upscaler_layers": 2, "planes": 4}
    model = MODELS["multiscale"]((1, 8, 8), 2, **options)
    assert {tuple(layer.conv.kernel_size) for layer in model.upscalers[0].layers} == {(3, 5)}
    value = random_images(3, 1, 1, 8, 8, levels=2, seed=0)
    assert model(value[:1]).log_prob(value).isfinite().all()


def test_every_option_of_nets_is_tried() -> None:
    assert {len(case.event_shape) - 1 for case, _ in SMALLER} == {1, 2}
    assert {len(case.event_shape) - 1 for case in itertools.chain(PER_AXIS, FRAMES)} == {1, 2, 3}

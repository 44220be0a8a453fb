"""Heads: exact over all levels, stable in the tails, the same at one place as over an image."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from metadensity.likelihoods import LIKELIHOODS, Categorical, Likelihood, LogisticMixture, build_likelihood
from metadensity.likelihoods.logistic_mixture import Mixture, log_mass
from metadensity.models import MODELS

FEATURES, COMPONENTS = 7, 4
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["float64", "float32"]
)


def made(likelihood: str, channels: int, levels: int, space_dims: int = 2, spread: float = 1.0) -> Likelihood:
    head = build_likelihood(likelihood, FEATURES, channels, levels, space_dims, components=COMPONENTS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return head


def inputs(channels: int, levels: int, *space: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, FEATURES, *space, generator=generator)
    return features, torch.randint(levels, (batch, channels, *space), generator=generator)


@each_likelihood
@DTYPES
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 3000.0])
def test_every_channel_sums_to_one(
    likelihood: str, dtype: torch.dtype, tolerance: float, levels: int, channels: int, spread: float
) -> None:
    head = made(likelihood, channels, levels, spread=spread).to(dtype)
    features, pixels = inputs(channels, levels, 4, 5)
    table = head(features.to(dtype), pixels)
    assert table.shape == (3, levels, channels, 4, 5)
    if likelihood == "logistic":  # normalised as they are: not by a softmax that would hide a fault
        assert table.logsumexp(1).abs().max() < tolerance
    assert (table.log_softmax(1).logsumexp(1)).abs().max() < tolerance


@DTYPES
@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("centre", [0.0, 1 / 256, 0.999, -1.0, 1.5, -40.0, 1e6, -1e30])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, 0.0, 9.0])
def test_tails(dtype: torch.dtype, tolerance: float, levels: int, centre: float, log_scale: float) -> None:
    """Log-probabilities and gradients are finite at the far ends, and probabilities still sum to one."""
    centres, scales = (torch.tensor([value], dtype=dtype, requires_grad=True) for value in (centre, log_scale))
    mass = log_mass(torch.arange(levels), centres, scales, levels)
    assert mass.isfinite().all()
    assert mass.logsumexp(0).abs() < tolerance
    for gradient in torch.autograd.grad(mass.sum(), (centres, scales)):
        assert gradient.isfinite().all()


def test_far_off_the_loss_still_pulls() -> None:
    """A level far from the mean has a gradient of full strength, where sigmoid(b) - sigmoid(a) rounds to nothing."""
    centre, log_scale = torch.tensor(-1.0, requires_grad=True), torch.tensor(-6.0)
    log_mass(torch.tensor(200), centre, log_scale, 256).backward()
    assert centre.grad is not None
    assert centre.grad == pytest.approx(math.exp(6), rel=1e-3)
    low, high = ((torch.tensor(200 + edge) / 128 - 1 + 1) * math.exp(6) for edge in (0, 1))
    assert torch.sigmoid(high) - torch.sigmoid(low) == 0  # the plain difference, which has none


def test_log_mass_is_a_difference_of_logistic_functions() -> None:
    """Against the definition in float64, where nothing cancels badly yet."""
    levels = torch.arange(16, dtype=torch.float64)[:, None, None]
    centres = torch.linspace(-1.2, 1.2, 9, dtype=torch.float64)[:, None]
    scales = torch.linspace(-2, 2, 5, dtype=torch.float64)
    edges = [(levels + k) / 8 - 1 for k in (0, 1)]
    low, high = (torch.sigmoid((edge - centres) / scales.exp()) for edge in edges)
    expected = torch.where(levels < 15, high, 1.0) - torch.where(levels > 0, low, 0.0)
    assert torch.allclose(log_mass(levels, centres, scales, 16).exp(), expected, atol=1e-14)


def test_channels_share_their_component() -> None:
    """p(x) = sum_k pi_k prod_c p_k(x_c | x_<c), the mean of a channel linear in those before it (section 2.2)."""
    head = made("logistic", 3, 5).double()
    features, pixels = inputs(3, 5, 2, 2)
    raw = head.parameters_of(nn.functional.elu(features.double()))
    mixture = Mixture.of(raw, 3, COMPONENTS)
    scaled = pixels.double() / 2 - 1
    joint = mixture.logits.softmax(1)
    first, second, third = mixture.coefficients.unbind(2)
    means = [
        mixture.means[:, :, 0],
        mixture.means[:, :, 1] + first * scaled[:, None, 0],
        mixture.means[:, :, 2] + second * scaled[:, None, 0] + third * scaled[:, None, 1],
    ]
    for channel, mean in enumerate(means):
        low, high = (
            torch.sigmoid(((pixels[:, None, channel] + k) * 0.4 - 1 - mean) / mixture.log_scales[:, :, channel].exp())
            for k in (0, 1)
        )
        level = pixels[:, None, channel]
        joint = joint * (torch.where(level < 4, high, 1.0) - torch.where(level > 0, low, 0.0))
    assert torch.allclose(head.log_prob(features.double(), pixels).sum(1).exp(), joint.sum(1), rtol=1e-10)


@each_likelihood
@pytest.mark.parametrize("space", [(6,), (3, 4), (2, 2, 3)])
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 256), (4, 5)])
def test_a_place_is_the_image_at_that_place(
    likelihood: str, space: tuple[int, ...], channels: int, levels: int
) -> None:
    head = made(likelihood, channels, levels, len(space)).double()
    features, pixels = inputs(channels, levels, *space)
    table = head(features.double(), pixels)
    index = tuple(size // 2 for size in space)
    for channel in range(channels):
        at = (slice(None), slice(None), *index)
        place = head.logits_at(features.double()[at], pixels[at], channel)
        assert torch.allclose(place, table[:, :, channel][at], atol=1e-12)
        # Channels that are not drawn yet hold whatever they hold.
        later = pixels[at].clone()
        later[:, channel:] = (later[:, channel:] + 1) % levels
        assert torch.equal(head.logits_at(features.double()[at], later, channel), place)
    expected = table.log_softmax(1).gather(1, pixels.unsqueeze(1)).squeeze(1)
    assert torch.allclose(head.log_prob(features.double(), pixels), expected, atol=1e-12)


def test_channels_before_are_heard() -> None:
    """The place would pass the test above if no channel heard another."""
    for likelihood in LIKELIHOODS:
        head = made(likelihood, 3, 4)
        features, pixels = inputs(3, 4)
        for channel in (1, 2):
            for before in range(channel):
                other = pixels.clone()
                other[:, before] = (other[:, before] + 1) % 4
                moved = head.logits_at(features, other, channel) - head.logits_at(features, pixels, channel)
                assert moved.abs().amax(1).min() > 1e-3


def test_the_sharpest_component_costs_nothing() -> None:
    """A model that knows the level says so: at most 1e-6 nats, where the bound of PixelCNN++ costs 0.03."""
    level, centre = torch.tensor(100), torch.tensor(100.5 / 128 - 1)
    assert log_mass(level, centre, torch.tensor(-8.5), 256) > -1e-6
    assert log_mass(level, centre, torch.tensor(-7.0), 256) < -0.02


def test_it_learns_two_modes() -> None:
    """Level 40 or 200, one as likely as the other: ln 2 nats."""
    torch.manual_seed(0)
    head = LogisticMixture(1, 1, 256, 1, 5)
    features, pixels = torch.ones(2, 1, 1), torch.tensor([40, 200]).view(2, 1, 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.995)
    for _ in range(800):
        optimiser.zero_grad()
        loss = -head.log_prob(features, pixels).mean()
        loss.backward()
        optimiser.step()
        schedule.step()
    assert math.log(2) - 1e-4 < loss < math.log(2) + 0.01


def test_an_untrained_head_is_near_uniform() -> None:
    """Noise costs it at most a nat more than a uniform distribution: no level starts out of reach."""
    torch.manual_seed(0)
    features, pixels = inputs(3, 256, 16, 16)
    for levels in (2, 256):
        head = build_likelihood("logistic", FEATURES, 3, levels, 2)
        assert isinstance(head, LogisticMixture)
        assert -head.log_prob(0.3 * features, pixels % levels).mean() < math.log(levels) + 1


def test_a_feature_that_is_off_everywhere_can_come_back() -> None:
    """As a rectifier's cannot: most were lost for good in the first steps on drawings with a white ground."""
    head = made("logistic", 3, 256)
    features, pixels = inputs(3, 256, 4, 4)
    features = (-features.abs()).requires_grad_()
    head.log_prob(features, pixels).sum().backward()
    assert features.grad is not None
    assert (features.grad.abs().amax((0, 2, 3)) > 1e-3).all()


def test_logistic_parameters_do_not_grow_with_levels() -> None:
    counts = {
        levels: sum(p.numel() for p in build_likelihood("logistic", 8, 3, levels, 2).parameters())
        for levels in (2, 256)
    }
    assert counts[2] == counts[256] == (8 + 1) * 10 * (1 + 3 + 3 + 3)
    assert isinstance(build_likelihood("categorical", 8, 3, 256, 2), Categorical)


@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention"])
@pytest.mark.parametrize("likelihood", ["gaussian", "", None], ids=repr)
def test_a_likelihood_that_is_none(name: str, likelihood: str) -> None:
    with pytest.raises(ValueError, match=f"likelihood={likelihood!r}; choose 'categorical' .* or 'logistic'"):
        MODELS[name]((1, 3, 3), 2, layers=2, planes=4, penultimate=4, likelihood=likelihood)


@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention"])
@pytest.mark.parametrize("components", [0, -1, 2.5])
def test_components_that_are_none(name: str, components: int) -> None:
    with pytest.raises(ValueError, match=f"components={components}; it must be a whole number"):
        MODELS[name]((1, 3, 3), 2, likelihood="logistic", components=components)


def test_training_memory_does_not_hold_the_levels() -> None:
    """The largest tensor of scoring 8-bit colour is that of the components, not of the 256 levels."""
    head = build_likelihood("logistic", FEATURES, 3, 256, 2)
    features, pixels = inputs(3, 256, 8, 8, batch=2)
    largest = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        head.log_prob(features, pixels).sum().backward()  # type: ignore[operator]
    assert largest <= 2 * 8 * 8 * Mixture.width(3, 10)


@each_likelihood
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_terms_are_float32_and_near_those_of_float64(likelihood: str, dtype: torch.dtype) -> None:
    head = made(likelihood, 2, 16)
    features, pixels = inputs(2, 16, 3, 4)
    exact = copy.deepcopy(head).double().log_prob(features.double(), pixels)
    with torch.autocast("cpu", dtype):
        rough = head.log_prob(features, pixels)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()

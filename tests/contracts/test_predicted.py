"""A WaveNet relative to a linear prediction keeps every contract: it is another density, with a sampler of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metadensity.densities.pixelcnn import PredictedDensity
from metadensity.likelihoods.levels import at_least_float32
from metadensity.models import LinearPrediction, WaveNet
from metadensity.testing import checks_density, checks_model
from metadensity.testing.subjects import Case, Subject, random_images, randomise

from .subjects import Recipe

OPTIONS = {"prediction": 3, "likelihood": "logistic", "dilations": (1, 2)}
KINDS = [Recipe("wavenet", {**OPTIONS, "attention": attention}) for attention in (None, "dot")]
CHECKS: list[tuple[Callable[[Subject], None], Case, torch.dtype]] = [
    (checks_density.sums_to_one, Case((1, 9)), torch.float32),
    (checks_density.sums_to_one, Case((1, 5), 4), torch.float32),
    (checks_density.is_causal, Case((1, 12)), torch.float64),
    (checks_density.is_causal, Case((1, 12), 256), torch.float64),
    (checks_density.samples_follow, Case((1, 6)), torch.float32),
    (checks_density.draws_are_reproducible, Case((1, 9), 3), torch.float32),
    (checks_model.order_does_not_matter, Case((1, 9), 3), torch.float64),
    (checks_model.zero_shots_work, Case((1, 9), 3), torch.float64),
    (checks_model.tasks_are_separate, Case((1, 9), 3), torch.float64),
    (checks_model.batches_have_shapes, Case((1, 9), 3), torch.float64),
    (checks_model.its_parameters_are_those_it_was_made_with, Case((1, 6), 3), torch.float64),
    (checks_model.samplers_agree, Case((1, 7)), torch.float64),
    (checks_model.samplers_agree, Case((1, 50), 256), torch.float64),  # longer than the window of the running scale
    (checks_model.samplers_agree, Case((1, 9), 3), torch.float32),
    (checks_model.completions_agree, Case((1, 20), 3), torch.float64),
    (checks_model.codes_are_as_long_as_log_prob, Case((1, 8), 3), torch.float32),
    (checks_model.bfloat16_is_close, Case((1, 9), 3), torch.float32),
    (checks_model.a_file_keeps_it, Case((1, 9), 3), torch.float32),
]


@pytest.mark.parametrize(("check", "case", "dtype"), CHECKS, ids=lambda each: getattr(each, "__name__", str(each)))
@pytest.mark.parametrize("recipe", KINDS, ids=["vector", "attention"])
def test_contracts(recipe: Recipe, check: Callable[[Subject], None], case: Case, dtype: torch.dtype) -> None:
    check(recipe.build(case, dtype))


def untrained(places: int = 60, **options: object) -> tuple[WaveNet, LinearPrediction]:
    torch.manual_seed(0)
    small = {"layers": 3, "planes": 6, "penultimate": 8, **OPTIONS, **options}
    net = WaveNet((1, places), 256, **small).double()  # type: ignore[arg-type]
    assert net.predictor is not None
    return net, net.predictor


def test_before_training_it_says_what_linear_prediction_says() -> None:
    """With one component, to rounding; gradients reach the network, the likelihood and the numbers of prediction."""
    net, prediction = untrained(components=1)
    torch.nn.init.zeros_(net.network.head.parameters_of.bias)
    support, value = (random_images(count, 2, 1, 60, levels=256, seed=count) for count in (3, 4))
    torch.testing.assert_close(net(support).log_prob(value), prediction(support).log_prob(value))
    randomise(net, 0)
    net(support).log_prob(value).sum().backward()
    assert [name for name, each in net.named_parameters() if each.grad is None or not each.grad.any()] == []


def test_loudness_of_a_speaker_is_known_without_the_network() -> None:
    """The same clip at half its amplitude: the network is given the same errors and, but for scale, the same."""
    net, _ = untrained(200)
    density = net(random_images(2, 1, 1, 200, levels=256, seed=0))
    assert isinstance(density, PredictedDensity)
    network, condition = density.network, density.condition
    assert condition.predictor is not None
    x = torch.randn(200, generator=torch.Generator().manual_seed(1)).double() * 0.2
    features = []
    for loud in (1.0, 0.5):
        codes = torch.zeros(1, 1, 200, dtype=torch.long)
        companded = (x * loud).sign() * torch.log1p(255 * (x * loud).abs()) / torch.log(torch.tensor(256.0).double())
        codes[0, 0] = ((companded + 1) / 2 * 255 + 0.5).floor().long().clamp(0, 255)
        features.append(network.inputs(codes, condition)[0, :, 60:])
    loud, soft = features
    assert (loud[0] - soft[0]).abs().max() < 0.05  # codes round, and the floor of the scale is little
    assert ((loud[1] - soft[1]) - torch.log(torch.tensor(2.0)) / 2).abs().max() < 0.05


def test_float32_sums_to_one_in_the_tails() -> None:
    """256 codes of each place, given a loud past and a silent one."""
    net, _ = untrained(40)
    randomise(net, 3)
    density = net.float()(random_images(2, 1, 1, 40, levels=256, seed=5))
    for past in (torch.full((40,), 128), torch.tensor([0, 255] * 20)):
        logits = at_least_float32(density.logits(past.view(1, 1, 1, 40)))
        assert logits.double().logsumexp(2).abs().max() < 1e-5


def test_what_it_is_not_for() -> None:
    for shape in ((2, 9), (1, 4, 4)):
        with pytest.raises(ValueError, match=r"prediction=3 with events .*; linear prediction is of sequences"):
            WaveNet(shape, 16, **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prediction=3 with likelihood='categorical'; .* Give likelihood='logistic'"):
        WaveNet((1, 9), 16, prediction=3)
    with pytest.raises(ValueError, match="prediction=-1; give a number of taps"):
        WaveNet((1, 9), 16, prediction=-1)

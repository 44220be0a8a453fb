"""Every check of the suite catches a model that breaks its contract: the negative controls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metadensity import FewShotModel
from metadensity.models import MODELS
from metadensity.testing import checks_density, checks_model
from metadensity.testing.contracts import CONTRACTS
from metadensity.testing.subjects import Case, Subject, randomise

from . import broken

IMAGES, VOLUMES, TWO_CHANNELS = Case((1, 3, 3)), Case((1, 2, 2, 2)), Case((2, 2, 2))
small = broken.small

# A model that is wrong, the images, the check that has to say so, and what it has to say.
CONTROLS: list[tuple[Callable[..., FewShotModel], Case, Callable[[Subject], None], str]] = [
    (small(broken.MaskOffByOne), IMAGES, checks_density.sums_to_one, "sum over all images"),
    (small(broken.MaskOffByOne), IMAGES, checks_density.is_causal, "later pixels move"),
    (small(broken.MaskOffByOne), IMAGES, checks_density.gradients_are_causal, "its own pixel or a later one"),
    (small(broken.MaskOffByOne), Case((1, 9)), checks_density.gradients_are_causal, "its own pixel or a later one"),
    (small(broken.MaskOffByOne), VOLUMES, checks_density.gradients_are_causal, "its own pixel or a later one"),
    (small(broken.ChannelsSeeThemselves), TWO_CHANNELS, checks_density.sums_to_one, "sum over all images"),
    (small(broken.ChannelsSeeThemselves), TWO_CHANNELS, checks_density.is_causal, "later pixels move"),
    (small(broken.ChannelsSeeThemselves), TWO_CHANNELS, checks_density.gradients_are_causal, "its own pixel or a"),
    (small(broken.BlindSpot), IMAGES, checks_density.is_causal, "no influence"),
    (small(broken.BlindSpot), IMAGES, checks_density.gradients_are_causal, "no gradient in pixels of the past"),
    (small(broken.BlindSpot), VOLUMES, checks_density.gradients_are_causal, "no gradient in pixels of the past"),
    (small(broken.HasAHole), Case((1, 9)), checks_density.gradients_are_causal, "no gradient in pixels of the past"),
    (small(broken.LooksTooFar), Case((1, 9)), checks_density.gradients_are_causal, "outside the field"),
    (small(broken.NormalisesOverTime), Case((1, 9)), checks_density.sums_to_one, "sum over all images"),
    (small(broken.NormalisesOverTime), Case((1, 9)), checks_density.is_causal, "later pixels move"),
    (small(broken.NormalisesOverTime), Case((1, 9)), checks_density.gradients_are_causal, "its own pixel or a later"),
    (broken.DependentPixels, IMAGES, checks_density.is_causal, "said to be independent"),
    (broken.TooLikely, IMAGES, checks_density.sums_to_one, "sum over all images"),
    (small(broken.TooHot), Case((1, 2, 3)), checks_density.samples_follow, "do not follow the density"),
    (broken.IgnoresGenerator, IMAGES, checks_density.draws_are_reproducible, "same generator gives other draws"),
    (small(broken.OrderMatters), IMAGES, checks_model.order_does_not_matter, "in the order"),
    (small(broken.TasksLeak), IMAGES, checks_model.tasks_are_separate, "not the tasks one by one"),
    (small(broken.BatchStatistics), IMAGES, checks_model.tasks_are_separate, "not the tasks one by one"),
    (small(broken.QueriesLeak), IMAGES, checks_model.tasks_are_separate, "not the tasks one by one"),
    (small(broken.NothingOfNothing), IMAGES, checks_model.zero_shots_work, "not finite at zero shots"),
    (small(broken.DeafToSupport), IMAGES, checks_model.zero_shots_work, "leave the density as it was"),
    (broken.WrongShape, IMAGES, checks_model.batches_have_shapes, "do not add up"),
    (small(broken.Detached), IMAGES, checks_model.gradients_reach_parameters, "get no gradient"),
    (
        small(broken.ReadsLate),
        IMAGES,
        checks_model.its_parameters_are_those_it_was_made_with,
        "within a functional call",
    ),
    (small(broken.StaleCache), IMAGES, checks_model.samplers_agree, "pixels differ"),
    (small(broken.ForgetsWhatIsKnown), IMAGES, checks_model.completions_agree, "comes out as another"),
    (small(broken.StaleCache), IMAGES, checks_model.codes_are_as_long_as_log_prob, "more than -log2 p"),
    (broken.OtherInBfloat16, IMAGES, checks_model.bfloat16_is_close, "bfloat16 moves"),
    (broken.KeepsSomethingBack, IMAGES, checks_model.a_file_keeps_it, "the loaded model differs"),
    (broken.ForgetsAnArgument, IMAGES, checks_model.a_file_keeps_it, "config names"),
]


def name_of(part: object) -> str:
    return str(part) if isinstance(part, Case) else getattr(part, "__name__", "-")


@pytest.mark.parametrize(("kind", "case", "check", "message"), CONTROLS, ids=name_of)
def test_a_broken_model_is_caught(
    kind: Callable[..., FewShotModel],
    case: Case,
    check: Callable[[Subject], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODELS, "broken", kind)  # as if it were listed, so that it can be saved
    model = kind(case.event_shape, case.levels)
    randomise(model, seed=0)
    dtype = next(contract.dtype for contract in CONTRACTS if contract.check is check)
    with pytest.raises(AssertionError, match=message):
        check(Subject(model.to(dtype)))


def test_every_check_has_a_control() -> None:
    assert {contract.check for contract in CONTRACTS} == {check for _, _, check, _ in CONTROLS}


def test_a_model_that_reads_supports_on_the_sly_is_caught() -> None:
    model = MODELS["support_mean"]((1, 3, 3), 2)
    with pytest.raises(AssertionError, match="said not to read"):
        checks_model.zero_shots_work(Subject(model, reads_support=False))


def test_goodness_of_fit_has_the_false_alarm_rate_it_says() -> None:
    """p-values of true draws are uniform, cells with small expectations and all; 5 standard errors."""
    generator = np.random.default_rng(0)
    probabilities = np.sort(generator.dirichlet(np.full(40, 0.3)))
    draws = generator.multinomial(2000, probabilities, size=4000)
    alarms = np.mean([checks_density.goodness_of_fit(counts, probabilities * 2000) < 0.05 for counts in draws])
    assert abs(alarms - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 4000)

"""Densities as torch.distributions and torch.func know them, and in every precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent

from metadensity import Density, FewShotModel
from metadensity.models import MODELS
from tests.metadensity.toys import BASELINES, OURS

EVENT = (1, 4, 4)
SIZES: dict[str, Any] = {"layers": 2, "planes": 4, "penultimate": 4}


def images(*shape: int, seed: int, levels: int = 2, event: tuple[int, ...] = EVENT) -> Tensor:
    return torch.randint(levels, (*shape, *event), generator=torch.Generator().manual_seed(seed))


def build(name: str, levels: int = 2, event: tuple[int, ...] = EVENT, **options: Any) -> FewShotModel:
    sizes = (
        {} if name in BASELINES else {**SIZES, **({"base": 2, "upscaler_layers": 2} if name == "multiscale" else {})}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name](event, levels, **sizes, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def density(name: str = "conditional", tasks: int = 3) -> Density:
    return build(name)(images(2, tasks, seed=1))


@pytest.mark.parametrize("name", ["conditional", "independent"])
def test_a_larger_batch_has_draws_of_its_own(name: str) -> None:
    one, value = density(name), images(7, 5, 3, seed=2)
    wide = one.expand((5, 3))
    assert (tuple(wide.batch_shape), tuple(wide.event_shape)) == ((5, 3), EVENT)
    assert torch.equal(wide.log_prob(value), one.log_prob(value))
    assert wide.log_prob(value[0, 0]).shape == (5, 3)  # one image for all of the batch
    drawn = wide.sample((2,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, one.sample((2, 5), generator=torch.Generator().manual_seed(0)))
    assert drawn.shape == (2, 5, 3, *EVENT)
    assert tuple(wide.expand((4, 5, 3)).batch_shape) == (4, 5, 3)
    assert Independent(wide, 1).log_prob(value).shape == (7, 5)  # type: ignore[no-untyped-call]


def test_one_task_expands_to_many() -> None:
    one, value = density(tasks=1), images(4, 6, seed=2)
    wide = one.expand((6,))
    assert torch.equal(wide.log_prob(value), one.log_prob(value.unsqueeze(2)).squeeze(2))
    assert wide.sample((2,)).shape == (2, 6, *EVENT)
    for shape in ((), (3, 2)):
        with pytest.raises(ValueError, match=r"a density of 3 tasks expands to \(\*more, 3\)"):
            density().expand(shape)


def test_what_there_is_no_formula_for_says_how_to_estimate_it() -> None:
    one = density()
    with pytest.raises(NotImplementedError, match=r"PixelCNNDensity does not give its entropy. An estimate: -density"):
        one.entropy()
    for name in ("mean", "variance", "stddev"):
        with pytest.raises(
            NotImplementedError, match=r"does not give its (mean|variance). An estimate: density.sample"
        ):
            getattr(one, name)
    for name in ("cdf", "icdf"):
        with pytest.raises(NotImplementedError, match="no order"):
            getattr(one, name)(images(3, seed=0))
    with pytest.raises(NotImplementedError, match="Pixels are integers: take sample"):
        one.rsample((2,))
    # The estimates that are given are right.
    table = build("independent")(images(0, 1, seed=0))
    drawn = table.sample((20_000,), generator=torch.Generator().manual_seed(0))
    chances = table.log_probs.exp()  # type: ignore[attr-defined]
    assert (drawn.double().mean(0)[0] - chances[0, 1]).abs().max() < 5 * 0.5 / 20_000**0.5
    exact = -(chances * chances.log()).sum()
    assert -table.log_prob(drawn).mean(0).item() == pytest.approx(exact.item(), abs=0.1)


def test_the_support_ends_at_the_levels() -> None:
    one = build("conditional", levels=5)(images(2, 3, seed=1, levels=5))
    for constraint in (one.support, one.expand((2, 3)).support):
        assert constraint.is_discrete
        assert constraint.event_dim == 3
        inside = images(4, 3, seed=2, levels=5)
        outside = inside.clone()
        outside[1, 2, 0, 3, 3], outside[2, 0, 0, 0, 0] = 5, -1
        assert constraint.check(inside).all()
        assert constraint.check(outside).shape == (4, 3)
        assert constraint.check(outside).logical_not().nonzero().tolist() == [[1, 2], [2, 0]]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("shape", [8, None, 2.5], ids=repr)
def test_a_sample_shape_that_is_none_says_what_to_type(name: str, shape: Any) -> None:
    with pytest.raises(TypeError, match=rf"sample_shape={shape!r}; give a tuple.*sample\(\(8,\)\) draws 8 images"):
        density(name).sample(shape)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_likelihoods_in_half_the_precision_are_not_rounded_to_it(name: str, dtype: torch.dtype) -> None:
    """Of a colour image: its sum is beyond what float16 holds, and bfloat16 has whole hundreds there."""
    if name not in BASELINES:
        half = build(name).to(dtype)
        found = half(images(2, 3, seed=1)).log_prob(images(4, 3, seed=2))
        precise = build(name).to(dtype).float()(images(2, 3, seed=1)).log_prob(images(4, 3, seed=2))
        assert found.dtype == torch.float32
        assert (found - precise).abs().max() / 16 < 0.1
        return
    event = (3, 64, 64)
    half = build(name, 256, event).to(dtype)
    support, query = images(2, 2, seed=1, levels=256, event=event), images(2, 2, seed=2, levels=256, event=event)
    found, terms = half(support).log_prob(query), half(support).conditional_log_probs(query)  # type: ignore[attr-defined]
    precise = half.float()(support).log_prob(query)
    assert found.dtype == terms.dtype == torch.float32
    assert found.detach().numpy() == pytest.approx(precise.detach().numpy(), rel=1e-6)
    assert (precise < -65_504).all()


def test_levels_are_looked_at_though_torch_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile, once used, switches off what torch's own distributions validate, for good."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    with pytest.raises(ValueError, match="value holds pixels from 2 to 2"):
        density().log_prob(torch.full((3, *EVENT), 2))


@pytest.mark.parametrize("name", OURS)
def test_gradients_of_each_task_by_vmap(name: str) -> None:
    """As users of torch.func write them; pixels are looked at there too."""
    model, support, query = build(name), images(2, 3, seed=1), images(4, 3, seed=2)
    parameters = {key: tensor.detach() for key, tensor in model.named_parameters()}

    def loss(given: dict[str, Tensor], support: Tensor, query: Tensor) -> Tensor:
        one = torch.func.functional_call(model, given, (support.unsqueeze(1),))
        return -one.log_prob(query.unsqueeze(1)).mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 1, 1))(parameters, support, query)
    (-model(support).log_prob(query).mean(0).sum()).backward()
    for key, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(each[key].sum(0), expected, rtol=1e-3, atol=1e-3)
    query[1, 2, 0, 0, 0] = 2
    with pytest.raises(ValueError, match="value holds pixels from 0 to 2"):
        torch.func.vmap(loss, (None, 1, 1))(parameters, support, query)


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("name", ["unconditional", "conditional", "attention", "aligned", "multiscale"])
def test_derivatives_in_forward_mode(name: str, attention: str) -> None:
    """A directional derivative by torch.func.jvp is the gradient's product with the direction."""
    options = {"attention": attention} if name in ("attention", "aligned", "multiscale") else {}
    options |= {"prototypes": 3} if name in ("attention", "aligned") else {}
    model, support, query = build(name, **options).double(), images(2, 3, seed=1), images(4, 3, seed=2)
    parameters = {key: tensor.detach() for key, tensor in model.named_parameters()}
    direction = {key: torch.ones_like(tensor) for key, tensor in parameters.items()}

    def score(given: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(model, given, (support,)).log_prob(query).sum()

    _, slope = torch.func.jvp(score, (parameters,), (direction,))
    gradients = torch.func.grad(score)(parameters)
    assert slope.item() == pytest.approx(sum(gradient.sum().item() for gradient in gradients.values()), rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["independent", "support_mixture", "conditional", "multiscale"])
def test_samples_do_not_depend_on_the_default_dtype(name: str, dtype: torch.dtype) -> None:
    """Uniform numbers of half the precision are so few that levels come too often or hardly at all."""
    model = build(name, levels=256)
    sampled = model(images(2, 3, seed=1, levels=256))
    expected = sampled.sample((4,), torch.Generator().manual_seed(0))
    torch.set_default_dtype(dtype)
    try:
        found = sampled.sample((4,), torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)

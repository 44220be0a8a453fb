"""Constructor arguments: recorded once, and none of a model is missing in one that is made of it."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from metadensity.model import FewShotModel
from metadensity.models import MODELS, AttentionPixelCNN, IndependentPixels, UnconditionalPixelCNN
from metadensity.testing.subjects import arguments
from tests.contracts.subjects import SMALL

EVENT = (1, 4, 4)
# Networks of a model's own, made as those of another: what they take of it, but for what has no meaning there.
ALIKE = {("aligned", "attention"): set[str](), ("multiscale", "attention"): {"prototypes"}}


def lacks(kind: type[FewShotModel], base: type[FewShotModel]) -> set[str]:
    """Options of ``base`` that ``kind`` does not take."""
    return {*arguments(base)} - {*arguments(kind)}


def wrapped(kind: type[FewShotModel]) -> set[type[FewShotModel]]:
    """The models that one of this kind is made of."""
    model = kind(EVENT, 2, **{name: size for name, size in SMALL.items() if name in arguments(kind)})
    return {type(module) for module in model.modules() if module is not model and isinstance(module, FewShotModel)}


@pytest.mark.parametrize("name", MODELS)
def test_a_wrapper_lacks_no_option_of_its_base(name: str) -> None:
    for base in wrapped(MODELS[name]):
        assert not lacks(MODELS[name], base), f"{name} cannot set what {base.__name__} takes"


def test_wrappers_are_found() -> None:
    found = {name for name in MODELS if wrapped(MODELS[name])}
    assert found == {"meta", "maml", "attention_meta", "ensemble"}
    for (name, base), without in ALIKE.items():
        assert lacks(MODELS[name], MODELS[base]) == without


def test_a_wrapper_that_lacks_one_is_seen() -> None:
    class Narrow(FewShotModel):
        def __init__(self, event_shape: Any, levels: int, *, layers: int = 3) -> None:
            super().__init__(event_shape, levels)
            self.base = UnconditionalPixelCNN(event_shape, levels, layers=layers, planes=4)

    (base,) = wrapped(Narrow)
    assert {"planes", "first_kernel", "likelihood"} <= lacks(Narrow, base)


@pytest.mark.parametrize("name", MODELS)
def test_every_option_reaches_the_base(name: str) -> None:
    """An option that a wrapper takes and forgets would leave the base at its default."""
    kind = MODELS[name]
    others = {"layers": 4, "planes": 5, "penultimate": 7, "kernel_size": 5, "first_kernel": 7, "likelihood": "logistic"}
    others |= {"components": 3, "context": 6, "prototypes": 4, "attention": "dot", "patch_stride": 2}
    given = {key: value for key, value in others.items() if key in arguments(kind)}
    model = kind(EVENT, 2, **given)
    assert {key: model.config[key] for key in given} == given
    for module in model.modules():
        if module is not model and isinstance(module, FewShotModel):
            assert {key: module.config[key] for key in given} == given


def test_arguments_are_recorded_whatever_the_constructor_does() -> None:
    class Mine(FewShotModel):
        def __init__(self, event_shape: Any, levels: int, width: int = 3, *, names: tuple[str, ...] = ("a",)) -> None:
            super().__init__(event_shape, levels)
            self.layer = nn.Linear(width, len(names))

    class Fixed(Mine):
        def __init__(self, side: int = 2) -> None:
            super().__init__((1, side, side), 2, width=side)

    class PassesOn(Mine):
        def __init__(self, *positional: Any, extra: float = 0.5, **others: Any) -> None:
            super().__init__(*positional, **others)

    assert Mine(EVENT, 2).config == {"event_shape": [1, 4, 4], "levels": 2, "width": 3, "names": ["a"]}
    assert Mine(EVENT, 2, 5, names=("b", "c")).config["names"] == ["b", "c"]
    assert Fixed().config == {"side": 2}
    assert Fixed(side=3).event_shape == (1, 3, 3)
    assert PassesOn(EVENT, 2, extra=1.5, width=7).config == {**Mine(EVENT, 2, 7).config, "extra": 1.5}
    assert list(inspect.signature(PassesOn).parameters) == ["event_shape", "levels", "width", "names", "extra"]
    with pytest.raises(TypeError, match=r"Mine: got an unexpected keyword argument 'depth'\. It takes event_shape"):
        Mine(EVENT, 2, depth=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument: 'levels'"):
        Mine(EVENT)  # type: ignore[call-arg]


def test_copies_keep_their_arguments() -> None:
    model = AttentionPixelCNN(EVENT, 2, layers=2, planes=4)
    again = copy.deepcopy(model)
    assert again.config == model.config
    assert again.config is not model.config
    assert copy.deepcopy(IndependentPixels(EVENT, 2)).config == {"event_shape": [1, 4, 4], "levels": 2}


def test_a_likelihood_is_a_name_or_a_mapping() -> None:
    """Both spellings, and both kinds of arguments, are one configuration."""
    torch.manual_seed(0)
    one = UnconditionalPixelCNN(EVENT, 2, **SMALL, likelihood="logistic", components=4)
    torch.manual_seed(0)
    other = UnconditionalPixelCNN(EVENT, 2, **SMALL, likelihood={"name": "logistic", "components": 4})
    assert one.config == other.config
    assert other.config["likelihood"] == "logistic"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"'logistic' has no option 'parts': it takes 'components'\."):
        UnconditionalPixelCNN(EVENT, 2, likelihood={"name": "logistic", "parts": 4})
    with pytest.raises(ValueError, match="components=0; it must be a whole number"):
        UnconditionalPixelCNN(EVENT, 2, likelihood={"name": "logistic", "components": 0})

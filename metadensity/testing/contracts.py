"""The contracts and the images each is checked on; ``model_contracts`` has them of one's own model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metadensity.adaptation import AdaptiveModel
from metadensity.density import Density
from metadensity.model import FewShotModel
from metadensity.models import MODELS
from metadensity.testing import checks_density, checks_model
from metadensity.testing.subjects import (
    ADAPTATIONS,
    Case,
    Subject,
    is_any,
    is_bound,
    is_exact,
    is_factorised,
    is_network,
    is_sequential,
    small_model,
)

# Few enough images that all of them can be enumerated: one to three dimensions, levels, channels.
ENUMERABLE = (
    Case((1, 3, 3)),  # all 512 binary 3x3 images
    Case((1, 9)),
    Case((1, 2, 2, 2)),
    Case((1, 2, 2), 3),
    Case((2, 4)),
    Case((2, 2, 2)),
    Case((3, 1, 2), 3),
    Case((2, 2, 1, 2)),
)
# Wider than one layer sees, so that a blind spot would show, and with a kernel of 5 and more layers.
WIDE = (
    Case((1, 12)),
    Case((1, 5, 6)),
    Case((1, 5, 6), options={"layers": 6}),
    Case((2, 4, 4), 3, {"kernel_size": 5}),
    Case((1, 3, 4, 3)),
    Case((2, 3, 2, 2), options={"kernel_size": 5}),
)
ONE_OF_EACH_DIMENSION = (Case((1, 9), 3), Case((2, 4, 5)), Case((1, 3, 2, 3), 4))
SAMPLERS = tuple(
    Case(shape, levels, {"kernel_size": kernel_size})
    for kernel_size in (3, 5)
    for shape, levels in {
        (1, 7): 2,
        (2, 5): 3,
        (1, 4, 5): 2,
        (3, 3, 3): 256,
        (1, 3, 2, 3): 5,
        (2, 2, 2, 2): 2,
    }.items()
)


@dataclass(frozen=True)
class Contract:
    """A check, the images it is made on, in which precision, and to which kinds of density it applies.

    heads: whether it is made with every likelihood; otherwise with the first.
    """

    check: Callable[[Subject], None]
    cases: tuple[Case, ...]
    dtype: torch.dtype = torch.float32
    applies: Callable[[Density], bool] = is_exact
    heads: bool = True


CONTRACTS = (
    Contract(checks_density.sums_to_one, ENUMERABLE),
    Contract(checks_density.is_causal, (*ENUMERABLE, *WIDE), torch.float64, is_factorised),
    Contract(checks_density.gradients_are_causal, (*ENUMERABLE, *WIDE), torch.float64, is_network),
    Contract(checks_density.samples_follow, (Case((1, 2, 3)), Case((2, 3)), Case((1, 2, 2), 3), Case((1, 2, 1, 3)))),
    Contract(checks_density.draws_are_reproducible, ONE_OF_EACH_DIMENSION, applies=is_any),
    Contract(checks_model.order_does_not_matter, ONE_OF_EACH_DIMENSION, torch.float64),
    Contract(checks_model.zero_shots_work, ONE_OF_EACH_DIMENSION, torch.float64),
    Contract(checks_model.tasks_are_separate, ONE_OF_EACH_DIMENSION, torch.float64),
    Contract(checks_model.batches_have_shapes, ONE_OF_EACH_DIMENSION, torch.float64),
    Contract(checks_model.gradients_reach_parameters, ONE_OF_EACH_DIMENSION, applies=is_any),
    Contract(checks_model.its_parameters_are_those_it_was_made_with, (Case((1, 2, 2), 3),), torch.float64, heads=False),
    # Twice: in float64 nothing but a mistake makes them differ; float32 is what is used.
    Contract(checks_model.samplers_agree, SAMPLERS, torch.float64, is_network),
    Contract(checks_model.samplers_agree, ONE_OF_EACH_DIMENSION, torch.float32, is_network),
    Contract(checks_model.completions_agree, (Case((1, 20), 3), *ONE_OF_EACH_DIMENSION[1:]), torch.float64, is_network),
    Contract(checks_model.codes_are_as_long_as_log_prob, (Case((2, 2, 3), 3),), applies=is_sequential),
    Contract(checks_model.bfloat16_is_close, ONE_OF_EACH_DIMENSION),
    Contract(checks_model.a_file_keeps_it, ONE_OF_EACH_DIMENSION),
)
BOUNDS = (
    Contract(checks_density.bound_sums_to_one_at_most, ENUMERABLE, torch.float64, is_bound),
    Contract(checks_density.bound_grows_with_samples, ONE_OF_EACH_DIMENSION, torch.float64, is_bound),
    Contract(checks_density.bound_draws_from_its_generator, ONE_OF_EACH_DIMENSION, torch.float64, is_bound),
)


@dataclass(frozen=True)
class ModelContract:
    """One contract of one model, on one kind of image; called, it raises AssertionError where the model breaks it."""

    kind: type[FewShotModel]
    contract: Contract
    case: Case
    adaptation: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reads_support: bool = True
    sees_whole_past: bool = True

    def __str__(self) -> str:
        dtype = str(self.contract.dtype).removeprefix("torch.")
        way = [] if self.adaptation == "unadapted" else [self.adaptation]
        return "-".join([self.contract.check.__name__, str(self.case), dtype, *way])

    def __call__(self) -> None:
        with _listed(self.kind):
            self.contract.check(self.subject(self.contract.dtype))

    def subject(self, dtype: torch.dtype = torch.float32) -> Subject:
        """The model with random parameters, in its adaptation."""
        reads = self.reads_support or self.adaptation != "unadapted"  # steps read it whatever the model
        model = small_model(self.kind, self.case, self.options, dtype)
        return Subject(model, ADAPTATIONS[self.adaptation], reads, self.sees_whole_past)


def model_contracts(
    kind: type[FewShotModel],
    options: Mapping[str, Any] | None = None,
    takes: Callable[[Case], bool] = lambda case: True,
    reads_support: bool = True,
    sees_whole_past: bool = True,
    adaptations: Sequence[str] | None = None,
) -> list[ModelContract]:
    """What a model has to keep, as pytest's parameters: each is called, and says by ``str`` what it is.

    options: arguments of the constructor that keep it small, so that a check takes no longer than it must.
    takes: whether the model is made for the images of a case (``event_shape``, ``levels``); all are taken by default.
    reads_support: False for one that gives every task the same density, by design.
    sees_whole_past: False for one in which a pixel depends on some of those before it alone, by design.
    adaptations: of ``ADAPTATIONS``; None: the model as it is and, unless it adapts by itself, after one step of
        gradient descent on the support.

    Which contracts there are depends on the kind of its density: an exact one sums to one, and one that is a product
    over places is causal besides. Raises ValueError where ``takes`` leaves none.
    """
    if adaptations is None:
        adaptations = ["unadapted"] if issubclass(kind, AdaptiveModel) else list(ADAPTATIONS)
    found = []
    for adaptation in adaptations:
        all_of_them = [
            ModelContract(kind, contract, case, adaptation, options or {}, reads_support, sees_whole_past)
            for contract in (*CONTRACTS, *BOUNDS)
            for case in contract.cases
            if takes(case)
        ]
        if not all_of_them:
            raise ValueError(f"takes= takes none of the images that {kind.__name__} could be checked on.")
        subject = all_of_them[0].subject()
        density = subject(subject.images(0, 1, seed=0))  # to see of what kind it is
        found += [each for each in all_of_them if each.contract.applies(density)]
    return found


@contextlib.contextmanager
def _listed(kind: type[FewShotModel]) -> Iterator[None]:
    """Within this, a model can be saved and loaded, whether or not it is listed in ``MODELS``."""
    if kind in MODELS.values():
        yield
        return
    MODELS["under test"] = kind
    try:
        yield
    finally:
        del MODELS["under test"]

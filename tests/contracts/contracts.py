"""The contracts and the images each is checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from metadensity import Density

from . import checks_density, checks_model
from .subjects import (
    FIRST,
    KINDS,
    RECIPES,
    Case,
    Recipe,
    Subject,
    is_any,
    is_bound,
    is_exact,
    is_factorised,
    is_network,
    is_sequential,
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


# Of these, what an adapted density is checked on, which is the same network with other weights: each number of
# dimensions, several channels, several levels, larger kernels.
OF_ADAPTED = (
    *ONE_OF_EACH_DIMENSION,
    *(Case((1, 3, 3)), Case((1, 2, 2), 3), Case((2, 4)), Case((2, 2, 1, 2)), Case((2, 3)), Case((1, 20), 3)),
    Case((1, 2, 1, 3)),
    *(Case((1, 12)), Case((2, 4, 4), 3, {"kernel_size": 5}), Case((1, 3, 4, 3)), Case((2, 2, 3), 3)),
    *(Case((2, 5), 3, {"kernel_size": 3}), Case((1, 4, 5), 2, {"kernel_size": 5})),
    Case((2, 2, 2, 2), 2, {"kernel_size": 5}),
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

    @property
    def recipes(self) -> list[Recipe]:
        """Those of the suite that it applies to."""
        alike = [recipe for recipe in RECIPES if self.heads or recipe.options.get("likelihood", FIRST) == FIRST]
        return [recipe for recipe in alike if self.applies(KINDS[str(recipe)])]

    def cases_of(self, recipe: Recipe) -> list[Case]:
        """The images it is made on with a recipe: all of them with a model as it is, in the first likelihood.

        Adapted, those of ``OF_ADAPTED``. Another likelihood is another head, which has nothing to do for one channel of
        two levels: it is made on others, where there are any of as many dimensions.
        """
        if recipe.adaptation != "unadapted":
            return [case for case in self.cases if case in OF_ADAPTED]
        if recipe.options.get("likelihood", FIRST) == FIRST:
            return list(self.cases)
        rich = [case for case in self.cases if case.event_shape[0] > 1 or case.levels > 2]
        dimensions = {len(case.event_shape) for case in rich}
        return [case for case in self.cases if case in rich or len(case.event_shape) not in dimensions]


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

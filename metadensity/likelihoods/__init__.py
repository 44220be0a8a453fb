"""The likelihood of a pixel given the features of its past.

A new one is a file in this folder, a subclass of ``Likelihood``, and a line in ``LIKELIHOODS``; every network then
takes it by its name, and it inherits every contract test.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from metadensity.likelihoods.base import Likelihood
from metadensity.likelihoods.categorical import Categorical
from metadensity.likelihoods.logistic_mixture import COMPONENTS, LogisticMixture

__all__ = ["COMPONENTS", "LIKELIHOODS", "Likelihood", "build_likelihood", "likelihood_options"]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "categorical": Categorical,
    "logistic": LogisticMixture,
}


def build_likelihood(
    likelihood: str | Mapping[str, Any], features: int, channels: int, levels: int, space_dims: int, **beside: Any
) -> Likelihood:
    """The likelihood that a name, or a mapping with a name and options, describes; see ``likelihood_options``."""
    options = likelihood_options(likelihood, **beside)
    return LIKELIHOODS[options.pop("name")](features, channels, levels, space_dims, **options)


def likelihood_options(likelihood: str | Mapping[str, Any], **beside: Any) -> dict[str, Any]:
    """The name of a likelihood with all its options: those given, else those of ``beside`` that it has, else defaults.

    likelihood: a name in ``LIKELIHOODS``, or ``{"name": "logistic", "components": 5}``.
    Raises ValueError for a name there is not, and for an option that it does not take.
    """
    given = dict(likelihood) if isinstance(likelihood, Mapping) else {"name": likelihood}
    name = given.pop("name", None)
    if name is None and given:
        raise ValueError(
            f"likelihood={likelihood!r} has no 'name', which decides what options there are. Give "
            f"{{'name': {' or '.join(map(repr, LIKELIHOODS))}, ...}}."
        )
    if not isinstance(name, str) or name not in LIKELIHOODS:
        *first, last = (f"{known!r} ({_summary(kind)})" for known, kind in LIKELIHOODS.items())
        raise ValueError(f"likelihood={likelihood!r}; choose {', '.join(first)}{' or ' if first else ''}{last}.")
    takes = {
        option: parameter.default
        for option, parameter in list(inspect.signature(LIKELIHOODS[name]).parameters.items())[4:]
    }
    if unknown := given.keys() - takes.keys():
        raise ValueError(
            f"likelihood={likelihood!r}; {name!r} has no option {', '.join(map(repr, sorted(unknown)))}: it takes "
            f"{', '.join(map(repr, takes)) or 'none'}."
        )
    return {"name": name, **{option: given.get(option, beside.get(option, takes[option])) for option in takes}}


def _summary(kind: type[Likelihood]) -> str:
    """The first line of a class's docstring, as part of a sentence."""
    first = (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")
    return first[0].lower() + first[1:]

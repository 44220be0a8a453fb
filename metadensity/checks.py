"""What counts, seeds, pixels, sizes and temperatures must be. Imports nothing of ours."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor


def is_whole(number: Any) -> bool:
    """Whether this is an integer of Python's or numpy's."""
    return isinstance(number, Integral)


def require_sizes(**sizes: Any) -> None:
    """Raise ValueError unless every size is a whole number of at least 1."""
    for name, size in sizes.items():
        if not is_whole(size) or size < 1:
            raise ValueError(f"{name}={size!r}; it must be a whole number of at least 1.")


def require_count(name: str, value: Any, minimum: int) -> int:
    """``value`` as an int of at least ``minimum``; TypeError or ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        given = type(value).__name__
        raise TypeError(f"{name}={value!r} is a {given}; give an integer of at least {minimum}.") from None
    if number < minimum:
        raise ValueError(f"{name}={number}; give at least {minimum}.")
    return number


def require_uint64(name: str, value: Any) -> int:
    """``value`` as an int in [0, 2**64), the range of a random key; TypeError or ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; give an integer from 0 to 2**64 - 1.") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{name}={number}; give an integer from 0 to 2**64 - 1.")
    return number


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require_integer_pixels(name: str, pixels: Any) -> None:
    """Raise TypeError unless ``pixels`` is a tensor of an integer dtype."""
    if not isinstance(pixels, Tensor) or pixels.dtype not in _INTEGERS:
        given = str(pixels.dtype) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise TypeError(
            f"{name} holds {given}; pixels are integers in [0, levels), in a tensor of torch.uint8 for example. "
            f"{_advice(name, pixels)}"
        )


def _advice(name: str, pixels: Any) -> str:
    """What to type in place of ``pixels``, which are no tensor of integers."""
    if isinstance(pixels, np.ndarray) and pixels.dtype.kind in "biu":
        unsigned = pixels.dtype in (np.uint16, np.uint32, np.uint64)  # which torch hardly knows
        cast = ".astype(np.uint8)" if pixels.dtype.kind == "b" else ".astype(np.int64)" if unsigned else ""
        return f"Type torch.from_numpy({name}{cast})."
    if isinstance(pixels, Tensor) and not (pixels.is_floating_point() or pixels.is_complex()):
        return f"Type {name}.to({'torch.uint8' if pixels.dtype == torch.bool else 'torch.int64'})."
    if isinstance(getattr(pixels, "support", None), Tensor):  # an Episode
        return f"Type episode.{'support' if name == 'support' else 'query'}."
    if isinstance(pixels, list | tuple):
        return f"Type torch.tensor({name})."
    return "Binarise or quantise the images first."


def require_levels(name: str, pixels: Tensor, levels: int) -> None:
    """Raise ValueError unless every pixel lies in ``[0, levels)``.

    While a CUDA graph is recorded or a program exported nothing is known of the pixels, and nothing is asked.
    """
    low, high = _bounds(pixels)
    if low < 0 or high >= levels:
        more = "" if low < 0 else f", or build the model with levels={high + 1}"
        raise ValueError(
            f"{name} holds pixels from {low} to {high}; with levels={levels} they must lie in [0, {levels - 1}]. "
            f"Rescale the pixels{more}."
        )


def _bounds(numbers: Tensor) -> tuple[int, int]:
    """The smallest and the largest, of all tasks where torch.func.vmap shows one; 0 and 0 where none is known."""
    while not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(numbers):
        numbers = torch._C._functorch.get_unwrapped(numbers)
    recorded = torch.compiler.is_exporting() or (numbers.is_cuda and torch.cuda.is_current_stream_capturing())
    if recorded or not numbers.numel():
        return 0, 0
    low, high = torch.aminmax(numbers)
    return int(low), int(high)


def require_temperature(temperature: float) -> None:
    """Raise ValueError unless ``temperature`` is a positive number."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}; it must be a positive number (1 draws from the density itself).")


def expand_known(known: Tensor, shape: torch.Size, levels: int) -> Tensor:
    """``known`` as int64 of this shape; ValueError where it does not broadcast, or holds other than -1 or a level."""
    require_integer_pixels("known", known)
    try:
        expanded = known.long().expand(shape)
    except RuntimeError as error:
        raise ValueError(f"known has shape {tuple(known.shape)}; it must broadcast to {tuple(shape)}.") from error
    low, high = _bounds(known)
    if low < -1 or high >= levels:
        raise ValueError(
            f"known holds pixels from {low} to {high}; give levels 0 to {levels - 1}, and -1 "
            "where a pixel is to be drawn."
        )
    return expanded


def require_lengths(name: str, lengths: Any, shape: Sequence[int], places: int) -> None:
    """Raise TypeError unless ``lengths`` is an integer tensor, ValueError unless of this shape and in [0, places]."""
    if not isinstance(lengths, Tensor) or lengths.dtype not in _INTEGERS:
        given = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{name} holds {given}; lengths are integers, for example torch.int64.")
    if tuple(lengths.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(lengths.shape)}; one length a sequence is {tuple(shape)}.")
    low, high = _bounds(lengths)
    if low < 0 or high > places:
        raise ValueError(f"{name} holds {low} to {high}; of sequences with {places} places, 0 to {places} can be real.")


def real_places(lengths: Tensor, places: int) -> Tensor:
    """Which places are real, ``(*lengths.shape, places)`` bool: the first ``lengths`` of each sequence."""
    return torch.arange(places, device=lengths.device) < lengths.unsqueeze(-1)


def largest(numbers: Tensor, most: int) -> int:
    """The largest of numbers in [0, most], or ``most`` where it is not known: while a CUDA graph is recorded."""
    return _bounds(numbers)[1] or most

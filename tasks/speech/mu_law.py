"""Mu-law with 256 codes, by the formula of the literature (van den Oord et al. 2016), which is not G.711's table.

Code u is the interval of amplitudes whose f(x) = sign(x) ln(1 + 255 |x|) / ln 256 rounds to u on [0, 255] scaled from
[-1, 1]; halves go up. Of G.711, the mu-law of telephones and files, 26 of the 256 codes stand for other amplitudes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS = 256
MU = LEVELS - 1


def encode(samples: ArrayLike) -> NDArray[np.uint8]:
    """The codes of samples in [-1, 1], of their shape; samples beyond are clipped. Raises ValueError for NaN."""
    x = np.clip(np.asarray(samples, dtype=np.float64), -1.0, 1.0)
    if np.isnan(x).any():
        raise ValueError("samples hold NaN, which has no code. Leave such recordings out.")
    companded = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log(LEVELS)
    return ((companded + 1) / 2 * MU + 0.5).astype(np.uint8)


def decode(codes: ArrayLike) -> NDArray[np.float64]:
    """The sample in [-1, 1] in the middle of each code, as f has it; ``encode`` gives the code back."""
    companded = np.asarray(codes, dtype=np.float64) * (2 / MU) - 1
    return np.asarray(np.sign(companded) * np.expm1(np.abs(companded) * np.log(LEVELS)) / MU)

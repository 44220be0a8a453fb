"""8-bit mu-law by the formula of the literature: samples in [-1, 1] as codes from 0 to 255, and back.

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = 255;   code = floor((f(x) + 1) / 2 * 255 + 1/2)

(van den Oord et al. 2016, "WaveNet", section 2.2). Codes rise with the sample. The mu-law of files, G.711, is another
alphabet, with straight lines in place of the logarithm: counted from the lowest, 137 of its 256 samples have another
code here, and 17 codes are those of none.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MU, LEVELS = 255, 256
ENCODING = "mu-law-256"
"""What recipes call this alphabet. Data in another is not to be compared with it."""


def _expanded(halves: int) -> float:
    """The sample that lies at ``halves`` / 2 on the scale of codes, to the last bit on every machine."""
    with localcontext() as context:
        context.prec = 40
        y = Decimal(halves) / (LEVELS - 1) - 1
        return float(((1 + Decimal(MU)) ** abs(y) - 1) / MU * (1 if y > 0 else -1))


SAMPLES = np.array([_expanded(2 * code) for code in range(LEVELS)])
"""What each code stands for, float64."""
_FIRST = np.array([_expanded(2 * code - 1) for code in range(1, LEVELS)])  # the least sample of each code but 0


class Encoded(NamedTuple):
    """Codes, uint8, and how many samples were beyond [-1, 1] and became the first or the last of them."""

    codes: NDArray[np.uint8]
    clipped: int


def encode(samples: NDArray[Any]) -> Encoded:
    """Codes of samples of any shape. A sample just between two codes has the higher one: 0 has 128.

    Infinite samples are clipped as others are. Raises TypeError for samples that are no floats, ValueError for those
    that are not a number.
    """
    if not isinstance(samples, np.ndarray) or samples.dtype.kind != "f":
        given = samples.dtype if isinstance(samples, np.ndarray) else type(samples).__name__
        raise TypeError(f"samples hold {given}; give an array of floats in [-1, 1], of 16 bits: samples / 32768.")
    if np.isnan(samples).any():
        raise ValueError(f"{int(np.isnan(samples).sum())} samples are not a number; leave such recordings out.")
    codes = np.searchsorted(_FIRST, samples.astype(np.float64), side="right")
    return Encoded(codes.astype(np.uint8), int((np.abs(samples) > 1).sum()))


def decode(codes: NDArray[Any]) -> NDArray[np.float64]:
    """The samples that codes stand for. Raises ValueError for codes that are not whole numbers from 0 to 255."""
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu" or (codes.size and not 0 <= codes.min() <= codes.max() < LEVELS):
        raise ValueError(f"codes hold {codes.dtype}, or others than 0 to {LEVELS - 1}; give what encode gives.")
    return SAMPLES[codes]

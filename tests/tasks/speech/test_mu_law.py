"""8-bit mu-law by the formula: every code, its edges, clipping, and that G.711 is another alphabet."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from tasks.speech.mu_law import LEVELS, MU, SAMPLES, decode, encode

DIGEST = "3ea1368a9f319435"  # of what the codes stand for, the same on every machine


def g711() -> np.ndarray:
    """The 256 samples of G.711's mu-law, of 16 bits, from the lowest to the highest; -0 stands before 0."""
    bits = ~np.arange(256) & 0xFF
    size = ((((bits & 0xF) << 3) + 0x84) << ((bits >> 4) & 7)) - 0x84
    return np.concatenate([-size[:128], size[:127:-1]])


def test_every_code_comes_back() -> None:
    codes = np.arange(LEVELS, dtype=np.uint8)
    again = encode(decode(codes))
    assert np.array_equal(again.codes, codes)
    assert again.codes.dtype == np.uint8
    assert again.clipped == 0


def test_samples_rise_with_codes_and_mirror() -> None:
    assert (np.diff(SAMPLES) > 0).all()
    assert np.array_equal(SAMPLES, -SAMPLES[::-1])
    assert (SAMPLES[0], SAMPLES[-1]) == (-1, 1)


def test_known_values() -> None:
    samples = np.array([-1, -0.5, 0, 1e-9, -1e-9, 0.5, 1])
    assert encode(samples).codes.tolist() == [0, 16, 128, 128, 127, 239, 255]
    assert decode(np.array([128]))[0] == pytest.approx((256 ** (1 / 255) - 1) / 255, abs=1e-18)
    assert hashlib.sha256(SAMPLES.astype("<f8").tobytes()).hexdigest()[:16] == DIGEST


def test_it_is_the_formula() -> None:
    """On samples that are not within rounding of an edge between two codes; and at each edge the next code begins."""
    x = np.random.default_rng(0).uniform(-1, 1, 100_000)
    place = (np.sign(x) * np.log1p(MU * np.abs(x)) / math.log(1 + MU) + 1) / 2 * 255 + 0.5
    assert np.array_equal(encode(x).codes, np.floor(place).astype(np.uint8))
    assert np.array_equal(encode(x.astype(np.float32)).codes, encode(x.astype(np.float32).astype(np.float64)).codes)


def test_what_is_beyond_is_clipped_and_counted() -> None:
    found = encode(np.array([[1.01, -2.0, np.inf], [1.0, -1.0, 0.25]]))
    assert found.codes[0].tolist() == [255, 0, 255]
    assert found.codes[1, :2].tolist() == [255, 0]
    assert found.clipped == 3


def test_g711_is_another_alphabet() -> None:
    samples = g711()
    assert samples[[0, -1]].tolist() == [-32124, 32124]
    codes = encode(samples / 32768).codes
    assert (codes != np.arange(256)).sum() == 137
    assert len(np.unique(codes)) == 256 - 17


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match=r"samples hold int16; .* samples / 32768"):
        encode(np.zeros(3, np.int16))
    with pytest.raises(TypeError, match="samples hold list"):
        encode([0.5])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 samples are not a number"):
        encode(np.array([0.0, np.nan]))
    for codes in (np.array([256]), np.array([-1]), np.array([0.5])):
        with pytest.raises(ValueError, match="give what encode gives"):
            decode(codes)

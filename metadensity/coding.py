"""Lossless compression with a density: each pixel is entropy-coded by its conditional, given the pixels before it.

A code of n bits for an image of probability 2^-n: the likelihood as a file. The coder is the range coder of
``constriction`` (Bamler 2022, "Understanding Entropy Coding With Asymmetric Numeral Systems"), which rounds
conditionals to 24 bits. A code is read back by the same weights, in a batch of the same shape, on a machine that rounds
the same way (processor, threads, version of torch): a checksum in it tells where that does not hold.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.density import Density, SequentialDensity
from metadensity.drawing import Draws
from metadensity.files import DamagedFileError

CHECKSUM_BITS = 32
WORD_BITS = 32
MOST_CONSTANT_BITS = CHECKSUM_BITS + 2 * WORD_BITS
"""What a code has at most beyond the information in its rounded conditionals: a checksum, and the coder's end."""


@dataclass(frozen=True)
class _Coded(Draws):
    """Pixels that ``code`` decides, from conditionals ``(N, levels)`` and, where they are known, the N levels."""

    native: ClassVar[bool] = False
    code: Callable[[NDArray[np.float64], NDArray[np.int32]], NDArray[np.int32]] = lambda _, known: known

    def levels(self, logits: Tensor) -> Tensor:
        assert self.known is not None
        conditionals = logits.double().softmax(-1).reshape(-1, logits.shape[-1]).cpu().numpy()
        known = self.known.flatten().to("cpu", torch.int32).numpy()
        self.decided()
        return torch.from_numpy(self.code(conditionals, known)).to(self.known).view(self.known.shape)


def encode(density: SequentialDensity, value: Tensor, report: Callable[[int], object] | None = None) -> bytes:
    """The code of images ``(*sample, tasks, C, *space)``: 4 bytes of checksum, and whole words of 4 bytes.

    report: told how many pixels were coded, each time that some were.
    Raises as ``density.log_prob`` does, ValueError for images of probability 0, TypeError for densities that do not go
    through an image pixel by pixel, and ModuleNotFoundError, saying what to install, where ``constriction`` is missing.
    """
    return encode_measured(density, value, report)[0]


def encode_measured(
    density: SequentialDensity, value: Tensor, report: Callable[[int], object] | None = None
) -> tuple[bytes, float]:
    """``encode``, and how many bits of the code its symbols took: -log2 p, and what their rounding costs.

    The rest of its length is constant: CHECKSUM_BITS, and up to two words for the coder's end. The length itself is
    that of the bytes: a coder's own count may leave out what its state holds (AnsCoder: 0 bits after 1,000 zeros).
    """
    stream, family = _coder(density)
    density.check_value(value)
    encoder = stream.queue.RangeEncoder()

    def write(conditionals: NDArray[np.float64], known: NDArray[np.int32]) -> NDArray[np.int32]:
        if not conditionals[np.arange(len(known)), known].all():  # the coder would take them at 24 bits each
            raise ValueError("An image has probability 0 and no code. Code images that the density can give.")
        encoder.encode(known, family, conditionals)
        return known

    _go_through(density, value.long(), write, report)
    words, (_, width) = encoder.pos()  # width: of the interval, of 2^64, that is left to tell the symbols by
    took = WORD_BITS * words + 64 - math.log2(width)
    return _checksum(value) + encoder.get_compressed().astype("<u4").tobytes(), took


def decode(
    density: SequentialDensity,
    code: bytes,
    sample_shape: Sequence[int] = (),
    report: Callable[[int], object] | None = None,
) -> Tensor:
    """The images ``(*sample_shape, tasks, C, *space)`` int64 of a code of that many. report: as ``encode`` takes it.

    Raises DamagedFileError where the code is not one of such images by such a density on such a machine; and as
    ``encode`` does.
    """
    stream, family = _coder(density)
    if len(code) % 4 or len(code) < 4:
        raise DamagedFileError(f"The code has {len(code)} bytes; it is a checksum and whole words of 4 bytes each.")
    decoder = stream.queue.RangeDecoder(np.frombuffer(code, "<u4", offset=4).astype(np.uint32))
    unknown = torch.zeros(*sample_shape, *density.batch_shape, *density.event_shape, dtype=torch.long)
    try:
        images = _go_through(
            density, unknown.to(density.device), lambda conditionals, _: decoder.decode(family, conditionals), report
        )
    except AssertionError as error:  # what the coder raises for words that no encoder wrote
        raise DamagedFileError(f"The code is damaged, or of another density: {error}") from error
    if _checksum(images) != code[:4]:
        raise DamagedFileError(
            "The decoded images do not have the checksum of those that were encoded. A code is read by the same "
            "weights and support, for as many images at once, with as many threads, on a machine of the same kind."
        )
    return images


def _go_through(density: SequentialDensity, known: Tensor, code: Any, report: Callable[[int], object] | None) -> Tensor:
    """Let ``code`` decide pixel after pixel; encoder and decoder come by the same conditionals, to the bit."""
    uniforms = torch.zeros((), device=known.device).expand(known.shape)
    return density.drawn(_Coded(uniforms, known, report=report, code=code))


def _coder(density: Density) -> tuple[Any, Any]:
    """The coders of ``constriction``, and its family of categorical distributions."""
    if not isinstance(density, SequentialDensity):
        raise TypeError(
            f"{type(density).__name__} does not go through an image pixel by pixel, each given those before it, so its "
            "pixels cannot be coded one by one. Take an autoregressive model."
        )
    try:
        from constriction import stream
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Coding takes the package constriction. Install it: pip install constriction"
        ) from error
    return stream, stream.model.Categorical(perfect=False)


def _checksum(images: Tensor) -> bytes:
    return zlib.crc32(images.to("cpu", torch.int64).numpy().astype("<i8").tobytes()).to_bytes(4, "little")

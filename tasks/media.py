"""What an event of a task is to a person: a picture to look at, a sound to hear, a string to read, and its units.

A task states it as ``TaskDistribution.medium``; everything that shows events asks that one object and knows no task. A
medium says what it can in three forms, and None in the others; a new one is a subclass that gives one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]  # (H, W, 3)
_BETWEEN_FRAMES = 190  # the grey of the lines
_WIDE, _WAVE, _BANDS, _WINDOW = 160, 40, 40, 128  # pixels of the picture of a sound; samples of a window


@dataclass(frozen=True)
class Words:
    """What numbers are numbers of. noun: an event, such as "image". dim: one of its dimensions, such as "character".

    A string's end is one of its characters, as it has to be told.
    """

    noun: str = "image"
    dim: str = "dim"

    @property
    def nouns(self) -> str:
        """Several events."""
        return f"{self.noun}s"

    @property
    def one(self) -> str:
        """An event with its article."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    @property
    def nats(self) -> str:
        """The unit of a likelihood, such as nats/image."""
        return f"nats/{self.noun}"

    @property
    def nats_per_dim(self) -> str:
        """The unit of a likelihood by dimension in nats, such as nats/dim."""
        return f"nats/{self.dim}"

    @property
    def bits_per_dim(self) -> str:
        """The unit of a likelihood by dimension in bits, such as bits/dim."""
        return f"bits/{self.dim}"

    def record(self) -> dict[str, str]:
        """The same as JSON values."""
        return {"noun": self.noun, "dim": self.dim}

    @classmethod
    def of_record(cls, record: Any) -> Words:
        """What ``record`` made; of a report from before there was one, an image's."""
        known = record if isinstance(record, Mapping) else {}
        return cls(**{key: str(known[key]) for key in ("noun", "dim") if key in known})


OF_IMAGES = Words()


class Medium:
    """The medium of events ``(C, *space)`` that are neither seen, read nor heard, and what others build on.

    zoom: how many pixels of a file a pixel of a picture is wide.
    """

    words: ClassVar[Words] = OF_IMAGES
    zoom: ClassVar[int] = 1

    def picture(self, event: Tensor, length: int | None = None) -> Picture | None:
        """The event as a picture, all of one medium of one size. length: how many of its first places are real."""
        return None

    def film(self, event: Tensor) -> NDArray[np.uint8] | None:
        """The event in motion, pictures ``(frames, H, W, 3)``, all of one medium of one size."""
        return None

    def sound(self, event: Tensor, length: int | None = None) -> tuple[NDArray[np.float64], int] | None:
        """Samples ``(n,)`` in [-1, 1] and how many there are in a second, of the real places."""
        return None

    def text(self, event: Tensor, length: int | None = None) -> str | None:
        """The event as a string, up to its end."""
        return None


def as_shown(pixels: Tensor, levels: int, ink: bool = False) -> Tensor:
    """Pixels ``(..., C, H, W)`` as they are shown, uint8 0 to 255; no picture is stretched to its own range."""
    light = (pixels.float() * (255 / (levels - 1))).round().to(torch.uint8)
    return 255 - light if ink else light


@dataclass(frozen=True)
class Images(Medium):
    """Images ``(1 or 3, H, W)``. ink: whether the last level is ink, drawn black on white paper."""

    levels: int
    ink: bool = False
    zoom: ClassVar[int] = 3

    def picture(self, event: Tensor, length: int | None = None) -> Picture:
        """See ``Medium.picture``. Raises ValueError for events that are no images of 1 or 3 channels."""
        if event.ndim != 3 or event.shape[0] not in (1, 3):
            raise ValueError(f"pixels of shape {tuple(event.shape)} are no picture; give (1 or 3, height, width).")
        return as_shown(event, self.levels, self.ink).expand(3, -1, -1).permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Volumes(Medium):
    """Volumes ``(1 or 3, frames, H, W)``, such as films and scans: the frames side by side, or one after the other."""

    levels: int
    ink: bool = False
    words: ClassVar[Words] = Words("volume", "voxel")
    zoom: ClassVar[int] = 3

    def film(self, event: Tensor) -> NDArray[np.uint8]:
        """See ``Medium.film``. Raises ValueError for events that are no volumes of 1 or 3 channels."""
        if event.ndim != 4 or event.shape[0] not in (1, 3):
            raise ValueError(f"voxels of shape {tuple(event.shape)} are no film; give (1 or 3, frames, height, width).")
        frames = as_shown(event.transpose(0, 1), self.levels, self.ink)
        return frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()

    def picture(self, event: Tensor, length: int | None = None) -> Picture:
        """The frames from left to right, a grey line between them."""
        first, *others = self.film(event)
        line = np.full((len(first), 1, 3), _BETWEEN_FRAMES, np.uint8)
        return np.concatenate([first, *(piece for frame in others for piece in (line, frame))], axis=1)


@dataclass(frozen=True)
class Sequences(Medium):
    """Sequences ``(C, T)`` of nothing that is known: their levels as numbers, those of several channels by commas."""

    words: ClassVar[Words] = Words("sequence")

    def text(self, event: Tensor, length: int | None = None) -> str:
        """See ``Medium.text``."""
        return " ".join(",".join(map(str, place)) for place in event[:, :length].T.tolist())


@dataclass(frozen=True)
class Strings(Medium):
    """Strings ``(1, T)``: level k is character k of ``alphabet``. end: the level that ends a string, or None."""

    alphabet: str
    end: int | None = None
    words: ClassVar[Words] = Words("string", "character")

    def text(self, event: Tensor, length: int | None = None) -> str:
        """The characters before the first end. Raises ValueError for a level that stands for none."""
        levels = event[0, :length].tolist()
        levels = levels[: levels.index(self.end)] if self.end in levels else levels
        if levels and max(levels) >= len(self.alphabet):
            raise ValueError(f"level {max(levels)} is none of the {len(self.alphabet)} characters, nor the end.")
        return "".join(self.alphabet[level] for level in levels)


@dataclass(frozen=True, eq=False)
class Sounds(Medium):
    """Sound ``(1, T)``, ``rate`` samples a second. amplitudes: ``(levels,)`` in [-1, 1], what each level stands for."""

    rate: int
    amplitudes: Sequence[float] | NDArray[np.float64]
    words: ClassVar[Words] = Words("recording", "sample")

    def sound(self, event: Tensor, length: int | None = None) -> tuple[NDArray[np.float64], int]:
        """See ``Medium.sound``."""
        return np.asarray(self.amplitudes)[event[0, :length].cpu().numpy().astype(np.int64)], self.rate

    def picture(self, event: Tensor, length: int | None = None) -> Picture:
        """The waveform, and below it the spectrogram from 0 to half the rate: dark is loud, over 80 decibels.

        As wide as all places; what is not real is white.
        """
        samples, _ = self.sound(event, length)
        places = event.shape[-1]
        wide = max(1, round(_WIDE * len(samples) / places))
        seen = np.full((_WAVE + _BANDS, _WIDE), 255, np.uint8)
        seen[_WAVE // 2] = 200
        rows = np.rint((1 - samples) / 2 * (_WAVE - 1)).astype(int)
        columns = np.minimum(np.arange(len(samples)) * wide // max(1, len(samples)), wide - 1)
        for column in range(wide):
            here = rows[columns == column]
            if len(here):
                seen[here.min() : here.max() + 1, column] = 60
        if not len(samples):
            return np.repeat(seen[..., None], 3, axis=2)
        strength, _, _ = spectrogram(samples, self.rate)
        band = np.arange(_BANDS)[::-1] * len(strength) // _BANDS
        when = np.arange(wide) * strength.shape[1] // wide
        seen[_WAVE:, :wide] = np.rint(-255 * strength[np.ix_(band, when)] / 80).astype(np.uint8)
        return np.repeat(seen[..., None], 3, axis=2)


@dataclass(frozen=True, eq=False)
class Drawings(Medium):
    """Sequences ``(1, T)`` of moves of a pen. render: the ink ``(H, W)``, bool, of levels ``(n,)``, all of one size."""

    render: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    words: ClassVar[Words] = Words("drawing", "move")

    def picture(self, event: Tensor, length: int | None = None) -> Picture:
        """What is drawn, black on white paper."""
        ink = self.render(event[0, :length].cpu().numpy().astype(np.int64))
        return np.repeat(np.where(ink, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def spectrogram(
    samples: NDArray[np.float64], rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Decibels ``(bands, windows)`` below the loudest, -80 at least, the bands' Hz, and the windows' seconds."""
    from scipy import signal  # takes a second to import

    size = min(_WINDOW, len(samples))
    overlap = size - max(1, size // 4)
    frequencies, seconds, power = signal.spectrogram(samples, rate, "hann", size, overlap, mode="psd")
    loudest = max(power.max(), 1e-8)  # or silence would be as loud as can be
    return 10 * np.log10(np.clip(power / loudest, 1e-8, 1)), frequencies, seconds


def usual_medium(event_shape: Sequence[int], levels: int, ink: bool = False) -> Medium:
    """The medium of events of which nothing but their shape is known."""
    if len(event_shape) == 3 and event_shape[0] in (1, 3):
        return Images(levels, ink)
    if len(event_shape) == 4 and event_shape[0] in (1, 3):
        return Volumes(levels, ink)
    return Sequences() if len(event_shape) == 2 else Medium()

"""Other voices made of recorded ones: the same words faster or slower, louder or softer, by another microphone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadensity.episode import Episode
from tasks.images import ImageTasks
from tasks.speech import mu_law


@dataclass(frozen=True)
class Voice:
    """What is done to the samples of a recording.

    speed: samples of the recording to one of the result, by linear interpolation: pitch and formants move as well.
    tilt: how much of the sample before is added, which lifts low frequencies or, below 0, high ones. gain: what samples
    are multiplied by. noise: deviation of white noise that is added. Samples beyond [-1, 1] are clipped.
    """

    speed: float
    tilt: float
    gain: float
    noise: float

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> Self:
        """A fifth faster or slower at most, a quarter to four times as loud, with noise of a code or two."""
        speed, gain, noise = (float(np.exp(generator.uniform(*ends))) for ends in ((-0.2, 0.2), (-1.4, 1.4), (-9, -6)))
        return cls(speed, float(generator.uniform(-0.3, 0.3)), gain, noise)

    def of(self, codes: NDArray[np.uint8], places: int, generator: np.random.Generator) -> NDArray[np.uint8]:
        """The codes of a recording in this voice, ``places`` of them at most."""
        samples = mu_law.SAMPLES[codes]
        count = min(places, max(1, int(len(samples) / self.speed)))
        samples = np.interp(np.arange(count) * self.speed, np.arange(len(samples)), samples)
        samples[1:] += self.tilt * samples[:-1].copy()
        return mu_law.encode(samples * self.gain + self.noise * generator.standard_normal(count)).codes


class VoicedTasks(ImageTasks):
    """Whole recordings, of which a part of the tasks are heard in another voice, the same in supports and queries.

    voices: the part, in (0, 1]. silence: what stands in places that are not real.
    An episode is a pure function of the seed and its index, as every other.
    """

    def __init__(self, *arguments: Any, voices: float, silence: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.voices, self.silence = voices, silence

    def _episode(self, index: int, tasks: int, shots: int, queries: int, together: int) -> Episode:
        """See ``ImageTasks._episode``; classes of one group that are drawn together are heard in one voice."""
        plain = super()._episode(index, tasks, shots, queries, together)
        support, query = plain.support.clone(), plain.query.clone()
        support_lengths, query_lengths = (
            torch.full(pixels.shape[:2], self.event_shape[-1]) if lengths is None else lengths.clone()
            for pixels, lengths in ((support, plain.support_lengths), (query, plain.query_lengths))
        )
        key, block = np.array([self.seed, index], dtype=np.uint64), max(1, together)
        voice: Voice | None = None
        for task in range(tasks):
            generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 1 + task, 1]))
            if task % block == 0:
                voice = Voice.drawn(generator) if generator.random() < self.voices else None
            if voice is None:
                continue
            for pixels, lengths in ((query, query_lengths), (support, support_lengths)):
                for number in range(len(pixels)):
                    codes = pixels[number, task, 0, : int(lengths[number, task])].numpy()
                    heard = torch.from_numpy(voice.of(codes, self.event_shape[-1], generator))
                    self._put(pixels[number, task, 0], heard)
                    lengths[number, task] = len(heard)
        return replace(
            plain, support=support, query=query, support_lengths=support_lengths, query_lengths=query_lengths
        )

    def _put(self, place: Tensor, heard: Tensor) -> None:
        place[: len(heard)] = heard
        place[len(heard) :] = self.silence

"""Autoregressive densities: p(x | support) = prod_t p(x_t | x_<t, support), in 1, 2 or 3 dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.density import Density
from metadensity.episode import require_integer_pixels
from metadensity.nn.logistic import LogisticHead
from metadensity.nn.pixelcnn import Condition, PixelCNN
from metadensity.sampling import sample_cached, sample_naive


class AutoregressiveDensity(Density):
    """The density of a network that gives the logits of every pixel from the pixels before it.

    Conditioned once, used many times: the support was encoded into ``condition``. The density reads
    the network's parameters when it is used, so use it before they change.
    """

    def __init__(self, network: PixelCNN, condition: Condition, validate_args: bool | None = None) -> None:
        self.network, self.condition = network, condition
        super().__init__(condition.tasks, network.event_shape, network.levels, validate_args)

    def logits(self, value: Tensor) -> Tensor:
        """Logits ``(*sample, tasks, levels, C, *space)`` of each pixel given its past; raises as ``log_prob``."""
        self.check_value(value)
        logits = self._logits(value.reshape(-1, *self.event_shape))
        return logits.view(*value.shape[: -len(self.event_shape)], *logits.shape[1:])

    def _logits(self, pixels: Tensor) -> Tensor:
        if not len(pixels):  # no tasks or no samples: the network cannot tell which
            return torch.zeros(0, self.levels, *self.event_shape, device=pixels.device)
        logits = self.network(pixels, self.condition)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def _pixel_log_prob(self, value: Tensor) -> Tensor:
        pixels, head = value.reshape(-1, *self.event_shape), self.network.head
        if isinstance(head, LogisticHead) and len(pixels):  # without the table of all levels, which takes the memory
            return head.log_prob(self.network.trunk(pixels, self.condition), pixels).view(value.shape)
        return -F.cross_entropy(self._logits(pixels), pixels.long(), reduction="none").view(value.shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw with the cached sampler; see ``Density.sample``."""
        device = self.network.input.positions.device
        return self.sample_from(torch.rand(self._extended(sample_shape), generator=generator, device=device))

    @torch.no_grad()
    def sample_from(
        self, uniforms: Tensor, naive: bool = False, known: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The images that these uniform numbers in [0, 1) stand for, by inverting each pixel's CDF in turn.

        uniforms: ``(*sample, tasks, C, *space)``. The map is deterministic: equal numbers, equal images.
        naive: run the whole network once a pixel and channel, the slow oracle of the cached sampler.
        known: pixels that are given, of a shape that broadcasts to that of ``uniforms``; -1 where one is to be drawn.
            Each pixel is drawn given those before it in raster order alone (see ``metadensity.completion``).
        temperature: what logits are divided by; below 1 likely pixels become likelier still. 1 is the density.

        Raises ValueError for another shape, a known pixel out of range or a temperature that is not positive.
        """
        expected = (*self.batch_shape, *self.event_shape)
        if tuple(uniforms.shape[-len(expected) :]) != expected:
            raise ValueError(f"uniforms have shape {tuple(uniforms.shape)}; they must end in {expected}.")
        require_temperature(temperature)
        given = None if known is None else expand_known(known, uniforms.shape, self.levels)
        if not uniforms.numel():
            return torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
        return self._sample_from(uniforms, naive, given, temperature)

    def _sample_from(self, uniforms: Tensor, naive: bool, known: Tensor | None, temperature: float) -> Tensor:
        """``sample_from`` of arguments that were checked, of one image at least."""
        draw = sample_naive if naive else sample_cached
        given = None if known is None else known.reshape(-1, *self.event_shape)
        flat = uniforms.reshape(-1, *self.event_shape)
        return draw(self.network, self.condition, flat, given, temperature).view(uniforms.shape)


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
    if known.numel() and not -1 <= int(known.min()) <= int(known.max()) < levels:
        raise ValueError(
            f"known holds pixels from {int(known.min())} to {int(known.max())}; give levels 0 to {levels - 1}, and -1 "
            "where a pixel is to be drawn."
        )
    return expanded

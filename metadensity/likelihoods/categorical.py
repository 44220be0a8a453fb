"""Any distribution over the levels of a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.likelihoods.base import Likelihood
from metadensity.nn.convolution import CONV, CONVOLVE, is_plain, pointwise
from metadensity.nn.inputs import to_unit_range


class Categorical(Likelihood):
    """Any distribution over the levels, channels autoregressive within a pixel.

    Channel c sees the features of the pixel's past, and the channels before c of the same pixel
    through weights masked by multiplication. Departure: the PixelCNN splits all its planes into
    channel groups instead; here the trunk sees past pixels alone and the head does the channels,
    so a pixel costs one trunk step whatever its number of channels.
    """

    mask: Tensor

    def __init__(self, features: int, channels: int, levels: int, space_dims: int) -> None:
        super().__init__(features, channels, levels, space_dims)
        self.hidden = pointwise(features, channels * features, space_dims)
        self.previous = pointwise(channels, channels * features, space_dims, bias=False) if channels > 1 else None
        self.logits = CONV[space_dims](channels * features, channels * levels, 1, groups=channels)
        mask = torch.ones(channels, channels).tril(-1).repeat_interleave(features, 0)
        self.register_buffer("mask", mask[(...,) + (None,) * space_dims], persistent=False)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """See ``Likelihood.forward``."""
        hidden = self.hidden(F.relu(features))
        if self.previous is not None:
            seen = to_unit_range(pixels, self.levels, hidden.dtype)
            if not is_plain(self.previous, CONV[self.space_dims]):
                self.previous(seen[:0])  # so that hooks set the weight, which is masked here
            hidden = hidden + CONVOLVE[self.space_dims](seen, self.previous.weight * self.mask)
        return self.logits(F.relu(hidden)).unflatten(1, (self.channels, self.levels)).transpose(1, 2)

    @property
    def _is_plain(self) -> bool:
        kind = CONV[self.space_dims]
        parts = [part for part in (self.hidden, self.previous, self.logits) if part is not None]
        return is_plain(self, Categorical) and all(is_plain(part, kind) for part in parts)

    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        """See ``Likelihood.logits_at``."""
        if not self._is_plain:
            space = (None,) * self.space_dims
            logits: Tensor = self(features[(..., *space)], pixels[(..., *space)])
            return logits[:, :, channel].flatten(1)
        width = features.shape[1]
        rows = slice(channel * width, (channel + 1) * width)
        hidden = F.linear(F.relu(features), self.hidden.weight[rows].flatten(1), self.hidden.bias[rows])
        if self.previous is not None and channel:  # what the mask leaves of these rows is the channels before
            seen = to_unit_range(pixels[:, :channel], self.levels, hidden.dtype)
            hidden = hidden + F.linear(seen, self.previous.weight[rows, :channel].flatten(1))
        rows = slice(channel * self.levels, (channel + 1) * self.levels)
        return F.linear(F.relu(hidden), self.logits.weight[rows].flatten(1), self.logits.bias[rows])

    def kernel_weights(self) -> dict[str, Tensor] | None:
        """What the native line sampler takes, channel by channel, inputs first.

        hidden ``(C, features, features)``, logits ``(C, features, levels)``, hidden_bias ``(C, features)``, logits_bias
        ``(C, levels)``; previous ``(C, C, features)``, of which it reads the channels before, or ``(1,)`` for none.
        """
        if not self._is_plain:
            return None
        channels, features = self.channels, self.features

        def inputs_first(weight: Tensor) -> Tensor:
            return weight.flatten(1).unflatten(0, (channels, -1)).mT

        previous = self.hidden.weight.new_zeros(1) if self.previous is None else inputs_first(self.previous.weight)
        return {
            "hidden": inputs_first(self.hidden.weight),
            "hidden_bias": self.hidden.bias.view(channels, features),
            "previous": previous,
            "logits": inputs_first(self.logits.weight),
            "logits_bias": self.logits.bias.view(channels, -1),
        }

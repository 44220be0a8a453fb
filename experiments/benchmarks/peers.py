"""A gated PixelCNN as it is usually written, the peer of sampling and of the training step.

Masked convolutions with square kernels, a full forward pass for every pixel drawn. It computes the same function as our
unconditional network of the same sizes and takes its weights, so that the two can be asserted equal.

Parameters are counted as they count: a weight under a zero of a mask has no effect and is not one. So counted, the two
networks have equally many; as stored, the masked one has more.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.likelihoods.categorical import Categorical
from metadensity.likelihoods.levels import invert_cdf
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.causal import CausalConv, GatedLayer


class MaskedConv2d(nn.Conv2d):
    """A convolution whose weight is multiplied with a mask; "same" padding."""

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, mask: Tensor) -> None:
        height, width = mask.shape
        super().__init__(in_features, out_features, (height, width), padding=(height // 2, width // 2))
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)

    @property
    def effective_parameters(self) -> int:
        """Weights that the mask lets through, and biases."""
        assert self.bias is not None
        return self.weight.shape[0] * self.weight.shape[1] * int(self.mask.sum()) + self.bias.numel()


class MaskedLayer(nn.Module):
    """A vertical and a horizontal stack with gates, a link between them, residual and skip output."""

    def __init__(self, in_features: int, planes: int, skip: int, kernel_size: int, first: bool) -> None:
        super().__init__()
        reach = kernel_size // 2
        above = torch.zeros(kernel_size, kernel_size)
        above[: reach if first else reach + 1] = 1
        left = torch.zeros(1, kernel_size)
        left[:, : reach if first else reach + 1] = 1
        self.first, self.planes, self.skip = first, planes, skip
        self.vertical = MaskedConv2d(in_features, 2 * planes, above)
        self.horizontal = MaskedConv2d(in_features, 2 * planes, left)
        self.link = nn.Conv2d(2 * planes, 2 * planes, 1, bias=False)
        self.out = nn.Conv2d(planes, planes + skip, 1)

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = self.vertical(vertical)
        h = self.horizontal(horizontal) + self.link(v)
        residual, skip = self.out(self._gate(h)).split([self.planes, self.skip], 1)
        if self.first:
            return self._gate(v), residual, skip
        return self._gate(v) + vertical, residual + horizontal, skip

    @staticmethod
    def _gate(z: Tensor) -> Tensor:
        a, b = z.chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)


class PlainPixelCNN(nn.Module):
    """The masked network of one-channel images, with the sizes and the weights of ``network``.

    Raises ValueError for a network that is conditioned, or of other than one channel, two dimensions and a categorical
    likelihood.
    """

    positions: Tensor

    def __init__(self, network: PixelCNN) -> None:
        super().__init__()
        head = network.head
        layers = [cast(GatedLayer, layer) for layer in network.layers]
        plain = not layers[0].contexts and network.attention is None and isinstance(head, Categorical)
        if not plain or network.space_dims != 2 or network.event_shape[0] != 1:
            raise ValueError("The plain PixelCNN is unconditional, categorical, and of one channel in two dimensions.")
        kernel_size = 2 * layers[0].conv(0).reach + 1
        self.levels = network.levels
        self.register_buffer("positions", network.input.positions.clone())
        self.layers = nn.ModuleList()
        for i, layer in enumerate(layers):
            inputs = layer.conv(0).weight.shape[1]
            masked = MaskedLayer(inputs, layer.planes, layer.skip, kernel_size, first=i == 0)
            _fill(masked.vertical, layer.conv(0))
            _fill(masked.horizontal, layer.conv(1))
            masked.link.load_state_dict(layer.links[0].state_dict())
            masked.out.load_state_dict(layer.out.state_dict())
            self.layers.append(masked)
        width = network.penultimate
        parts: list[Any] = [nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, self.levels, 1)]
        for part, ours in zip(parts, (network.penult, head.hidden, head.logits), strict=True):
            part.load_state_dict(ours.state_dict())
        self.head = nn.Sequential(*(module for part in parts for module in (nn.ReLU(), part)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(batch, levels, 1, H, W)`` of images ``(batch, 1, H, W)``."""
        x = pixels.float() * (2 / (self.levels - 1)) - 1
        x = torch.cat([x, self.positions.expand(len(x), -1, -1, -1)], 1)
        vertical, horizontal, total = x, x, torch.zeros(())
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal)
            total = total + skip
        logits: Tensor = self.head(total)
        return logits.unsqueeze(2)

    @torch.no_grad()
    def sample(self, uniforms: Tensor) -> Tensor:
        """Draw ``(batch, 1, H, W)`` pixel by pixel, a forward pass each."""
        pixels = torch.zeros(uniforms.shape, dtype=torch.long)
        for i in range(uniforms.shape[2]):
            for j in range(uniforms.shape[3]):
                pixels[:, 0, i, j] = invert_cdf(self(pixels)[:, :, 0, i, j], uniforms[:, 0, i, j])
        return pixels

    @property
    def effective_parameters(self) -> int:
        """Parameters as they count: without those under a zero of a mask."""
        masked = [module for module in self.modules() if isinstance(module, MaskedConv2d)]
        stored = sum(parameter.numel() for parameter in self.parameters())
        hidden = sum(sum(p.numel() for p in module.parameters()) - module.effective_parameters for module in masked)
        return stored - hidden


def _fill(masked: MaskedConv2d, ours: CausalConv) -> None:
    """Put the weights of a cropped kernel where the mask lets them through."""
    height, width = ours.weight.shape[2:]
    with torch.no_grad():
        assert masked.bias is not None
        masked.weight[:, :, :height, :width] = ours.weight
        masked.bias.copy_(ours.bias)

"""What the two nets of PixelRNN share as few-shot models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from metadensity.densities.pixelrnn import PixelRNNDensity
from metadensity.model import FewShotModel
from metadensity.networks.config import PixelRNNConfig
from metadensity.networks.pixelrnn import PixelRNN
from metadensity.nn.encoders import SupportPatchEncoder, SupportVectorEncoder
from metadensity.nn.recurrent import RecurrentLayer


class PixelRNNModel(FewShotModel):
    """A PixelRNN given f(s), one vector of the support, and with attention what places read from its patches.

    kind: of the sizes, whose fields are the model's options. beyond: see ``PixelRNN``.
    """

    kind: ClassVar[type[PixelRNNConfig]]
    beyond: ClassVar[int] = 0

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes, shape = self.take(self.kind, options), self.event_shape
        planes, normed = sizes.planes, sizes.support_norm
        self.encoder = SupportVectorEncoder(shape, levels, planes, sizes.context, normed)
        self.patches = (
            SupportPatchEncoder(shape, levels, planes, planes, planes, sizes.patch_stride, normed)
            if sizes.attention
            else None
        )
        self.network = PixelRNN(shape, levels, lambda *own: self.layer(sizes, *own), sizes, self.beyond)

    @staticmethod
    @abstractmethod
    def layer(sizes: Any, space: tuple[int, int], *own: int) -> RecurrentLayer:
        """A layer over ``space``, with the sizes of a layer."""

    def condition(self, support: Tensor) -> PixelRNNDensity:
        """Encode the support into f(s), with attention into keys and values of patches."""
        vector, patches = self.encoder(support), None if self.patches is None else self.patches(support)
        return PixelRNNDensity(self.network, self.network.conditioning(support.shape[1], vector, patches))

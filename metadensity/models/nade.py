"""NADE: no convolutions, one hidden layer over all pixels before."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from metadensity.checks import require_sizes
from metadensity.densities.nade import NADEDensity
from metadensity.model import FewShotModel
from metadensity.networks.nade import NADENetwork
from metadensity.nn.encoders import SupportVectorEncoder


class NADE(FewShotModel):
    """The neural autoregressive distribution estimator (Larochelle and Murray 2011), in raster order, given f(s).

    Every pixel has a softmax of its own on one hidden layer, which has taken in all pixels before it, wherever they
    lie; f(s) moves the hidden layer. Departures: levels in [-1, 1] are taken in, several of them as well as two, and
    the weights in and out are not tied. A sample costs one row of the hidden layer a pixel.

    hidden: units of the layer. planes: of the encoder of the support. context: size of f(s). support_norm: see
        ``ConditionalConfig``.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        hidden: int = 256,
        planes: int = 24,
        context: int = 48,
        support_norm: bool = True,
    ) -> None:
        super().__init__(event_shape, levels)
        require_sizes(hidden=hidden, planes=planes, context=context)
        self.encoder = SupportVectorEncoder(self.event_shape, levels, planes, context, support_norm)
        self.given = nn.Linear(context, hidden)
        self.network = NADENetwork(self.event_shape, self.levels, hidden)

    def condition(self, support: Tensor) -> NADEDensity:
        """Encode the support into the bias of the hidden layer."""
        return NADEDensity(self.network, self.given(self.encoder(support)))

"""The density of a ByteNet."""

from __future__ import annotations

from torch import Tensor

from metadensity.densities.pixelcnn import NetworkDensity
from metadensity.drawing import Draws
from metadensity.networks.bytenet import SymbolNetwork
from metadensity.sampling.rings import sample_with_rings


class ByteNetDensity(NetworkDensity[SymbolNetwork]):
    """The density of a network over symbols, which goes through the places in raster order."""

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return sample_with_rings(self.network, self.condition, draws)

"""The density of a ByteNet."""

from __future__ import annotations

from torch import Tensor

from metadensity.densities.pixelcnn import NetworkDensity
from metadensity.drawing import Draws
from metadensity.networks.bytenet import ByteNetDecoder
from metadensity.sampling.rings import sample_with_rings


class ByteNetDensity(NetworkDensity[ByteNetDecoder]):
    """The density of a ByteNet decoder, which goes through the places in raster order."""

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return sample_with_rings(self.network, self.condition, draws)

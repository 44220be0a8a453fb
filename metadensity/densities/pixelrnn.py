"""The density of a PixelRNN."""

from __future__ import annotations

from torch import Tensor

from metadensity.densities.pixelcnn import NetworkDensity
from metadensity.drawing import Draws
from metadensity.networks.pixelrnn import PixelRNN
from metadensity.sampling.recurrent import sample_recurrent


class PixelRNNDensity(NetworkDensity[PixelRNN]):
    """The density of a Row LSTM or a Diagonal BiLSTM."""

    def _sample_cached(self, draws: Draws) -> Tensor:
        with self.captured.restored():
            return sample_recurrent(self.network, self.condition, draws)

"""Row LSTM, conditioned on a support set: a triangle of the past above each place."""

from __future__ import annotations

from metadensity.models._pixelrnn import PixelRNNModel
from metadensity.networks.config import RowLSTMConfig
from metadensity.nn.recurrent import RowLayer


class RowLSTM(PixelRNNModel, options=[RowLSTMConfig]):
    """van den Oord et al. 2016, "Pixel Recurrent Neural Networks" (arXiv 1601.06759), section 3.1, given a support set.

    Layers of LSTM cells that go through the image a row at a time: a cell is given the states of ``kernel_size`` cells
    of the row above, and the features of its own place and of half as many to its left. It sees a triangle: what the
    layer is given d rows above comes from d columns further to both sides, and those to the left. All else, departures
    as well, is as in ``DiagonalBiLSTM``, which sees all of the past; a single row has no row above, so there it is a
    gated net of its convolutions.

    Options: see ``RowLSTMConfig``.
    """

    kind = RowLSTMConfig

    @staticmethod
    def layer(sizes: RowLSTMConfig, space: tuple[int, int], *own: int) -> RowLayer:
        """See ``PixelRNNModel``."""
        return RowLayer(space, sizes.kernel_size, *own)

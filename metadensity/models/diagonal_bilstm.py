"""Diagonal BiLSTM, conditioned on a support set: every place sees its whole past in one layer."""

from __future__ import annotations

from metadensity.models._pixelrnn import PixelRNNModel
from metadensity.networks.config import PixelRNNConfig
from metadensity.nn.recurrent import DiagonalLayer


class DiagonalBiLSTM(PixelRNNModel, options=[PixelRNNConfig]):
    """van den Oord et al. 2016, "Pixel Recurrent Neural Networks" (arXiv 1601.06759), section 3.2, given a support set.

    A 7 x 7 convolution of what lies before a place, then layers of LSTM cells that go through the image a diagonal at a
    time, from the left and from the right: a cell is given the states to its side and above, and the map from the right
    is seen a row lower. Residual connections over ``2 * planes`` features and a skip output of each layer (section
    3.3), the sum of which goes through ReLU, 1 x 1, ReLU, 1 x 1. f(s), a vector of the support, is added to all gates,
    which is where the paper's multi-scale nets have what conditions them (section 3.5). With ``attention`` the layers
    from the middle on are also given what each place reads from patches of the supports, as in ``AttentionPixelCNN``.

    Departures. Positions come in beside pixels. There are no colour masks: the head does the channels of a pixel, see
    ``Categorical``, which has one 1 x 1 layer more than the paper. There is a column to the right of the image: as
    published, a place far to the left does not see the last pixel of the row above, which no state of that row has
    seen. The state beyond the border is learned, and forget gates begin with a bias of one more. An image of one row
    has one direction. In a volume the rows of all planes are one after another, as a raster scan has them. Sizes are
    ours: the paper's for MNIST have 16 planes.

    Options: see ``PixelRNNConfig``.
    """

    kind = PixelRNNConfig
    beyond = 1

    @staticmethod
    def layer(sizes: PixelRNNConfig, space: tuple[int, int], *own: int) -> DiagonalLayer:
        """See ``PixelRNNModel``."""
        return DiagonalLayer(space, *own)

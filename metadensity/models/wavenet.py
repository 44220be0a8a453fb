"""WaveNet, conditioned on a support set: sound, and other sequences of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from metadensity.densities.pixelcnn import NetworkDensity, PixelCNNDensity, PredictedDensity
from metadensity.episode import EpisodeSource
from metadensity.model import FewShotModel
from metadensity.models.linear_prediction import LinearPrediction
from metadensity.networks.config import WaveNetConfig
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.networks.predicted import PredictedPixelCNN
from metadensity.nn.encoders import SupportSequenceEncoder


class WaveNet(FewShotModel, options=[WaveNetConfig]):
    """van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio" (arXiv 1609.03499), given a support set.

    Causal convolutions of two taps, dilated by 1, 2, 4, ..., 512 and so on again (section 2.1); gates tanh * sigmoid
    (section 2.3, equation 2) with a condition inside both, the same at all places ("global", section 2.5); residual and
    skip outputs of each layer, the sum of the latter through ReLU, 1 x 1, ReLU, 1 x 1 (section 2.4). The condition is
    f(s), a vector of the support, as of the encoder of Chen et al. 2019, "Sample Efficient Adaptive Text-to-Speech"
    (arXiv 1809.10460, SEA-ENC). With ``attention`` the second half of the layers is also given what the middle layer
    reads from stretches of the supports, as in ``AttentionPixelCNN``: T x S * patches scores, never T x T. The other
    two ways of Chen et al. to a new speaker are ``metadensity.adaptation.fine_tune`` of the vector (SEA-EMB;
    ``tuned_names=EMBEDDING``, which begins at f(s), not anywhere) and of all weights (SEA-ALL).

    Departures. A sample comes in as a number in [-1, 1], not as one of 256 inputs (the paper does not say which;
    public nets have both), beside a channel of ones that tells the places before the first from silence: the first
    samples have an exact probability, after a learned beginning. The first layer, which leaves out the current sample,
    is gated too and has a skip output; the softmax has one 1 x 1 layer more (``Categorical``), and a mixture of
    logistics (``likelihood="logistic"``) gives the codes an order. Sizes, which the paper does not give, are ours.
    There is no local conditioning and there are no context stacks.

    With ``prediction`` the mixture is around a linear prediction that was fitted to the training data and to the
    support, in units of its running scale, and the network is given errors in these units ("LP-WaveNet", Hwang et al.
    2018, arXiv 1811.11913, as recalled, where coefficients come with frames of a vocoder; ours need none). Loudness and
    microphone of a new speaker are then known before the network says a word.

    No weight depends on the number of places, see ``resized``, and lengths of supports are read. Images are taken too:
    the same net, dilated along all axes. Options: see ``WaveNetConfig``.
    """

    any_places = True

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(WaveNetConfig, options)
        patches = sizes.patches if sizes.attention else 0
        self.encoder = SupportSequenceEncoder(
            self.event_shape, levels, sizes.planes, sizes.context, patches, sizes.support_norm
        )
        self.predictor: LinearPrediction | None = None
        self.network: PixelCNN = self._network(sizes)

    def _network(self, sizes: WaveNetConfig) -> PixelCNN:
        if not sizes.prediction:
            return PixelCNN(self.event_shape, self.levels, placed=False, **sizes.network)
        if len(self.event_shape) != 2 or self.event_shape[0] != 1:
            raise ValueError(
                f"prediction={sizes.prediction} with events {self.event_shape}; linear prediction is of sequences "
                "(1, places). Give 0."
            )
        self.predictor = LinearPrediction(self.event_shape, self.levels, taps=sizes.prediction)
        options = {name: value for name, value in sizes.network.items() if name != "likelihood"}
        return PredictedPixelCNN(self.event_shape[1], self.levels, **options)

    def condition(self, support: Tensor) -> NetworkDensity[Any]:
        """Encode the support into f(s), with attention into keys and values, and fit linear prediction if asked to."""
        return self._conditioned(support, None)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> NetworkDensity[Any]:
        """The same of sequences of which the first ``lengths`` ``(S, tasks)`` places are real."""
        return self._conditioned(support, lengths)

    def _conditioned(self, support: Tensor, lengths: Tensor | None) -> NetworkDensity[Any]:
        conditioning = self.network.conditioning(support.shape[1], *self.encoder(support, lengths))
        if self.predictor is None:
            return PixelCNNDensity(self.network, conditioning)
        assert isinstance(self.network, PredictedPixelCNN)
        return PredictedDensity(
            self.network, replace(conditioning, predictor=self.predictor.predictor(support, lengths))
        )

    def initialise(self, source: EpisodeSource, tasks: int, queries: int) -> None:
        """See ``FewShotModel.initialise``; linear prediction begins with the moments of training data."""
        super().initialise(source, tasks, queries)
        if self.predictor is not None:
            self.predictor.initialise(source, tasks, queries)

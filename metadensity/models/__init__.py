"""Few-shot models.

A new one is a file in this folder and a line in ``MODELS``; it then inherits every contract test.
"""

from metadensity.model import FewShotModel
from metadensity.models.aligned import AlignedPixelCNN
from metadensity.models.aligned_bytenet import AlignedByteNet
from metadensity.models.attention import AttentionPixelCNN
from metadensity.models.attention_meta import AttentionMetaPixelCNN
from metadensity.models.bytenet import ByteNet
from metadensity.models.conditional import ConditionalPixelCNN
from metadensity.models.diagonal_bilstm import DiagonalBiLSTM
from metadensity.models.ensemble import EnsemblePixelCNN
from metadensity.models.histogram import Histogram
from metadensity.models.independent import IndependentPixels
from metadensity.models.kernel_density import KernelDensity
from metadensity.models.linear_prediction import LinearPrediction
from metadensity.models.maml import MAMLPixelCNN
from metadensity.models.meta import MetaPixelCNN
from metadensity.models.multiscale import MultiscalePixelCNN
from metadensity.models.nade import NADE
from metadensity.models.ngram import NGram
from metadensity.models.row_lstm import RowLSTM
from metadensity.models.support_mean import SupportMean
from metadensity.models.support_mixture import SupportMixture
from metadensity.models.switching_prediction import SwitchingPrediction
from metadensity.models.unconditional import UnconditionalPixelCNN
from metadensity.models.wavenet import WaveNet

MODELS: dict[str, type[FewShotModel]] = {
    "independent": IndependentPixels,
    "support_mean": SupportMean,
    "support_mixture": SupportMixture,
    "kernel_density": KernelDensity,
    "unconditional": UnconditionalPixelCNN,
    "nade": NADE,
    "conditional": ConditionalPixelCNN,
    "attention": AttentionPixelCNN,
    "aligned": AlignedPixelCNN,
    "meta": MetaPixelCNN,
    "maml": MAMLPixelCNN,
    "attention_meta": AttentionMetaPixelCNN,
    "multiscale": MultiscalePixelCNN,
    "ensemble": EnsemblePixelCNN,
    "row_lstm": RowLSTM,
    "diagonal_bilstm": DiagonalBiLSTM,
    "wavenet": WaveNet,
    "histogram": Histogram,
    "linear_prediction": LinearPrediction,
    "switching_prediction": SwitchingPrediction,
    "ngram": NGram,
    "bytenet": ByteNet,
    "aligned_bytenet": AlignedByteNet,
}
EnsemblePixelCNN.kinds = MODELS

__all__ = [
    "MODELS",
    "NADE",
    "AlignedByteNet",
    "AlignedPixelCNN",
    "AttentionMetaPixelCNN",
    "AttentionPixelCNN",
    "ByteNet",
    "ConditionalPixelCNN",
    "DiagonalBiLSTM",
    "EnsemblePixelCNN",
    "FewShotModel",
    "Histogram",
    "IndependentPixels",
    "KernelDensity",
    "LinearPrediction",
    "MAMLPixelCNN",
    "MetaPixelCNN",
    "MultiscalePixelCNN",
    "NGram",
    "RowLSTM",
    "SupportMean",
    "SupportMixture",
    "SwitchingPrediction",
    "UnconditionalPixelCNN",
    "WaveNet",
]

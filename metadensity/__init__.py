"""metadensity: few-shot density estimation with autoregressive models."""

from importlib import metadata as _metadata

from metadensity import models
from metadensity.density import Density
from metadensity.episode import Episode
from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.leaks import SupportLeakError
from metadensity.evaluation.likelihood import evaluate
from metadensity.evaluation.scores import Evaluation
from metadensity.evaluation.support_use import support_use
from metadensity.exporting import export
from metadensity.models import FewShotModel
from metadensity.persistence import load, save

try:
    __version__ = _metadata.version("metadensity")
except _metadata.PackageNotFoundError:  # a clone that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Density",
    "Episode",
    "Evaluation",
    "FewShotModel",
    "SupportLeakError",
    "__version__",
    "evaluate",
    "export",
    "load",
    "models",
    "paired_difference",
    "save",
    "support_use",
]

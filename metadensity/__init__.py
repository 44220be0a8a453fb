"""metadensity: few-shot density estimation with autoregressive models."""

from metadensity import models
from metadensity.comparison import paired_difference
from metadensity.density import Density
from metadensity.episode import Episode
from metadensity.evaluation import Evaluation, evaluate
from metadensity.leaks import SupportLeakError
from metadensity.models import FewShotModel
from metadensity.persistence import load, save
from metadensity.support_use import support_use

__all__ = [
    "Density",
    "Episode",
    "Evaluation",
    "FewShotModel",
    "SupportLeakError",
    "evaluate",
    "load",
    "models",
    "paired_difference",
    "save",
    "support_use",
]

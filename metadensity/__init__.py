"""metadensity: few-shot density estimation with autoregressive models."""

from metadensity import models
from metadensity.density import Density
from metadensity.episode import Episode
from metadensity.evaluation import Evaluation, evaluate
from metadensity.models import FewShotModel
from metadensity.persistence import load, save

__all__ = ["Density", "Episode", "Evaluation", "FewShotModel", "evaluate", "load", "models", "save"]

"""Meta-training, without any tracker: configuration, the outer loop, its state."""

from metadensity.training.config import TrainingConfig
from metadensity.training.trainer import MetaTrainer, Observer, TrainingDivergedError

__all__ = ["MetaTrainer", "Observer", "TrainingConfig", "TrainingDivergedError"]

"""Sacred ingredients (task, model, training), named configurations, and the settings of evaluation."""

from experiments.ingredients.model import build_model, model
from experiments.ingredients.named import NAMED_CONFIGS
from experiments.ingredients.recorded import read_config
from experiments.ingredients.task import build_task, task, task_of
from experiments.ingredients.training import TRAINING_DEFAULTS, training, training_config

__all__ = [
    "NAMED_CONFIGS",
    "TRAINING_DEFAULTS",
    "build_model",
    "build_task",
    "model",
    "read_config",
    "task",
    "task_of",
    "training",
    "training_config",
]

"""Numbers with intervals: few-shot likelihoods, their comparison, and what they rest on."""

from metadensity.evaluation.comparison import paired_difference
from metadensity.evaluation.likelihood import evaluate, score
from metadensity.evaluation.scores import Evaluation, GroupRow, LikelihoodRow, Scores
from metadensity.evaluation.support_use import support_use

__all__ = ["Evaluation", "GroupRow", "LikelihoodRow", "Scores", "evaluate", "paired_difference", "score", "support_use"]

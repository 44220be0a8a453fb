"""Random Markov chains, whose posterior predictive is known in closed form."""

from tasks.chains.task import ChainTasks, chains

__all__ = ["ChainTasks", "chains"]

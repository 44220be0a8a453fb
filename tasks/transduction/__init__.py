"""Strings and what a rule makes of them, whose posterior predictive is known in closed form."""

from tasks.transduction.task import TransductionTasks, transduction

__all__ = ["TransductionTasks", "transduction"]

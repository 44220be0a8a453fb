"""The Omniglot tasks."""

from tasks.omniglot.task import omniglot

__all__ = ["omniglot"]

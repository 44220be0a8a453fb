"""One's own examples as the support of a trained model."""

from tasks.own.support import OwnSupport, own_support

__all__ = ["OwnSupport", "own_support"]

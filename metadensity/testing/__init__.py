"""The contracts that every model of metadensity keeps, for models of one's own.

``model_contracts(MyModel)`` are parameters for pytest: each is called, and raises AssertionError where the model
breaks what it stands for. Those of tasks are in ``tasks.testing``.
"""

from metadensity.testing.contracts import BOUNDS, CONTRACTS, Contract, ModelContract, model_contracts
from metadensity.testing.subjects import ADAPTATIONS, Case, Subject, random_images, randomise

if not __debug__:
    raise RuntimeError("Checks are assertions, which python -O leaves out, so that all would pass. Start without -O.")

__all__ = [
    "ADAPTATIONS",
    "BOUNDS",
    "CONTRACTS",
    "Case",
    "Contract",
    "ModelContract",
    "Subject",
    "model_contracts",
    "random_images",
    "randomise",
]

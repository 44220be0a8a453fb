"""The likelihood of a pixel given the features of its past.

A head maps features of the strict past of a place to the distribution of its channels, one after the other:
``forward`` gives the logits of every level, ``place`` those of one channel at one place, for samplers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.likelihoods.categorical import CategoricalHead
from metadensity.likelihoods.logistic_mixture import LogisticHead

LIKELIHOODS = ("categorical", "logistic")


def build_head(
    likelihood: str, features: int, channels: int, levels: int, dims: int, components: int = 10
) -> CategoricalHead | LogisticHead:
    """The head of a likelihood: "categorical", or "logistic", a mixture with so many ``components``.

    Raises ValueError for another name.
    """
    require_likelihood(likelihood)
    if likelihood == "categorical":
        return CategoricalHead(features, channels, levels, dims)
    return LogisticHead(features, channels, levels, dims, components)


def require_likelihood(likelihood: str) -> None:
    """Raise ValueError unless ``likelihood`` is one there is."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(
            f"likelihood={likelihood!r}; choose 'categorical' (any distribution over the levels) or 'logistic' (the "
            "discretised mixture of logistics of PixelCNN++, for grey levels and colour)."
        )


def head_log_prob(head: CategoricalHead | LogisticHead, features: Tensor, pixels: Tensor) -> Tensor:
    """Log-probabilities in nats of pixels ``(batch, C, *space)``, in float32 at least, the shape of ``pixels``."""
    if isinstance(head, LogisticHead):
        return head.log_prob(features, pixels)  # without the table of all levels, which takes the memory
    logits = head(features, pixels)
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return -F.cross_entropy(logits, pixels.long(), reduction="none")

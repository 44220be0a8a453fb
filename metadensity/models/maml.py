"""PixelCNN with MAML: gradient steps on the likelihood of the support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.adaptation.functional import adapting_names
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import support_nll
from metadensity.model import pick
from metadensity.models.unconditional import UnconditionalPixelCNN
from metadensity.networks.config import PixelCNNConfig


class MAMLPixelCNN(AdaptiveModel, options=[PixelCNNConfig, InnerLoop]):
    """A gated PixelCNN that adapts by steps down the NLL of its support, in nats/dim (Finn et al. 2017, MAML).

    Reed et al. 2018 name it as the plain alternative to their learned loss and give no numbers.
    The defaults are the paper's Omniglot sizes.

    first_order is FOMAML.
    reptile: the meta-gradient is theta - theta' (Nichol et al. 2018; see ``reptile_parameters``); parameters that do
        not adapt, and batches without supports, are trained by the likelihood of the queries as ever.
        Departure: the inner loop takes full-batch steps on the support, Reptile stochastic ones on all of the task.
    learn_step_sizes: one step size for every number of every parameter that adapts, meta-learned from ``step_size`` on
        (Li et al. 2017, Meta-SGD). They may become negative, as there.
    The others: see ``PixelCNNConfig`` and ``InnerLoop``.
    """

    base: UnconditionalPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        *,
        reptile: bool = False,
        learn_step_sizes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(event_shape, levels)
        self.take(PixelCNNConfig, options)
        if reptile and learn_step_sizes:
            raise ValueError("reptile=True gives step sizes no gradient; leave learn_step_sizes=False with it.")
        self.reptile = reptile
        loop = InnerLoop(**pick(InnerLoop, options))
        self.loop = replace(loop, first_order=loop.first_order or reptile)
        self.base = UnconditionalPixelCNN(self.event_shape, levels, **pick(PixelCNNConfig, options))
        self.inner_loss = support_nll
        self.adapting = adapting_names(self.base, loop.adapts)
        own = dict(self.base.named_parameters())
        self.rates = nn.ParameterList(
            nn.Parameter(torch.full_like(own[name], loop.step_size))
            for name in (self.adapting if learn_step_sizes else [])
        )

    def step_sizes(self) -> Mapping[str, Tensor] | None:
        """The learned step sizes, by name of the base's parameter."""
        return dict(zip(self.adapting, self.rates, strict=True)) if len(self.rates) else None

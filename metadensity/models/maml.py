"""PixelCNN with MAML: gradient steps on the likelihood of the support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metadensity.adaptation.adaptive_model import AdaptiveModel
from metadensity.adaptation.functional import adapting_names
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import support_nll
from metadensity.checks import require_sizes
from metadensity.likelihoods import require_likelihood
from metadensity.models.unconditional import UnconditionalPixelCNN


class MAMLPixelCNN(AdaptiveModel):
    """A gated PixelCNN that adapts by steps down the NLL of its support, in nats/dim (Finn et al. 2017, MAML).

    Reed et al. 2018 name it as the plain alternative to their learned loss and give no numbers.
    The defaults are the paper's Omniglot sizes: 12 layers of 24 planes, 32 in the penultimate layer.

    steps, step_size, first_order, adapts, way, chunk, rematerialise: see ``InnerLoop``. first_order is FOMAML.
    reptile: the meta-gradient is theta - theta' (Nichol et al. 2018; see ``reptile_parameters``); parameters that do
        not adapt, and batches without supports, are trained by the likelihood of the queries as ever.
        Departure: the inner loop takes full-batch steps on the support, Reptile stochastic ones on all of the task.
    learn_step_sizes: one step size for every number of every parameter that adapts, meta-learned from ``step_size`` on
        (Li et al. 2017, Meta-SGD). They may become negative, as there.
    """

    base: UnconditionalPixelCNN

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        layers: int = 12,
        planes: int = 24,
        penultimate: int = 32,
        kernel_size: int = 3,
        steps: int = 1,
        step_size: float = 0.1,
        first_order: bool = False,
        reptile: bool = False,
        learn_step_sizes: bool = False,
        adapts: str = "",
        likelihood: str = "categorical",
        components: int = 10,
        way: str = "auto",
        chunk: int | None = None,
        rematerialise: bool = False,
    ) -> None:
        sizes: Any = {"layers": layers, "planes": planes, "penultimate": penultimate, "kernel_size": kernel_size}
        run: Any = {"way": way, "chunk": chunk, "rematerialise": rematerialise}
        step: Any = {"steps": steps, "step_size": step_size, "first_order": first_order}
        head: Any = {"likelihood": likelihood, "components": components}
        more: Any = {"reptile": reptile, "learn_step_sizes": learn_step_sizes, "adapts": adapts}
        super().__init__(event_shape, levels, **sizes, **step, **more, **head, **run)
        require_likelihood(likelihood)
        require_sizes(layers=layers, planes=planes, penultimate=penultimate, components=components)
        if reptile and learn_step_sizes:
            raise ValueError("reptile=True gives step sizes no gradient; leave learn_step_sizes=False with it.")
        self.reptile = reptile
        self.loop = InnerLoop(**(step | {"first_order": first_order or reptile}), adapts=adapts, **run)
        self.base = UnconditionalPixelCNN(self.event_shape, levels, **sizes, **head)
        self.inner_loss = support_nll
        self.adapting = adapting_names(self.base, adapts)
        own = dict(self.base.named_parameters())
        self.rates = nn.ParameterList(
            nn.Parameter(torch.full_like(own[name], step_size)) for name in (self.adapting if learn_step_sizes else [])
        )

    def step_sizes(self) -> Mapping[str, Tensor] | None:
        """The learned step sizes, by name of the base's parameter."""
        return dict(zip(self.adapting, self.rates, strict=True)) if len(self.rates) else None

"""Inner losses: what a task's parameters descend, computed from its support alone.

An inner loss is called as ``loss(model, support)`` with the support of one task, ``(S, 1, C, *space)``, S at least 1,
and gives one number. It may be a module with parameters of its own, which then are meta-learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metadensity.checks import real_places
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.density import Density, FactorisedDensity
from metadensity.model import FewShotModel
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.convolution import CONV


def without_each(support: Tensor) -> Tensor:
    """``(S - 1, S, C, *space)`` from ``(S, 1, C, *space)``: for each support image, as a task of its own, the others.

    A model that reads its support would otherwise see the image it is asked to score, and learn to copy.
    """
    one = torch.arange(len(support), device=support.device)  # made there: a recorded update copies nothing to a GPU
    other = one[:-1, None]
    return support[:, 0][other + (other >= one)]


def conditioned(model: FewShotModel, support: Tensor, lengths: Tensor | None) -> Density:
    """The density given supports ``(S, tasks, C, *space)``, of ``lengths`` ``(S, tasks)`` if any, that were checked."""
    return model.condition(support) if lengths is None else model.condition_on_lengths(support, lengths)


def support_nll(model: FewShotModel, support: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood in nats/dim of each support image given the others (MAML's inner loss).

    lengths: of sequences, ``(S, 1)``: how many of the first places of each are real; the mean is over those.
    """
    if lengths is not None:
        density = conditioned(model, without_each(support), without_each(lengths))
        return _nats(density, support[:, 0], lengths[:, 0]).sum() / _dims(support, lengths).sum()
    density, images = model.condition(without_each(support)), support[:, 0]
    if isinstance(density, FactorisedDensity):
        return -density._conditional_log_probs(images).mean()
    require_exact(model, density)
    return -density._log_prob(images, None).sum() / images.numel()


def require_exact(model: FewShotModel, density: Density) -> None:
    """Raise TypeError for a bound: its draws would be others whenever it is looked at again."""
    if not density.exact:
        raise TypeError(
            f"{type(model).__name__} gives a bound ({density.quantity}), whose draws are others each time; adapt a "
            "model with an exact density."
        )


def _nats(density: Density, value: Tensor, lengths: Tensor) -> Tensor:
    """Negative log-likelihoods ``(tasks,)`` of the real places of sequences ``(tasks, C, T)`` that were checked."""
    real = real_places(lengths, value.shape[-1]).unsqueeze(-2)
    if not isinstance(density, FactorisedDensity) or not density._first_to_last():
        return -density.prefix_log_prob(value, lengths)  # which says why there is none
    terms = density._conditional_log_probs(torch.where(real, value, 0))
    return -torch.where(real, terms, 0.0).flatten(-2).sum(-1)


def _dims(value: Tensor, lengths: Tensor) -> Tensor:
    """How many numbers each of ``(..., C, T)`` has, 1 at least: channels times real places."""
    return (value.shape[-2] * lengths).clamp(min=1)


def nats_per_dim(density: Density, value: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Negative log-likelihood in nats/dim of ``(*sample, tasks, C, *space)``: ``(*sample, tasks)`` float64.

    lengths: of sequences, ``(*sample, tasks)``: how many of the first places of each are real; others cost nothing.
    """
    if lengths is not None:
        return -density.prefix_log_prob(value, lengths).double() / _dims(value, lengths)
    if isinstance(density, FactorisedDensity):
        return -density.conditional_log_probs(value).double().flatten(-len(density.event_shape)).mean(-1)
    return -density.log_prob(value).double() / density.event_shape.numel()


class LearnedLoss(nn.Module):
    """||g(f_L(s))||, the learned inner loss of the Meta PixelCNN (Reed et al. 2018, section 3.3).

    f_L are the features of layer L of the network on the supports, and g three 3x3 convolutions of stride 2 with ReLU
    between them. Nothing forces it to be a likelihood: g is trained so that a step down it helps.
    Not known from the paper, and chosen here: the width of g (that of the layer), the ReLUs, the mean over supports of
    one norm each (the step then does not grow with S), and for networks that read their support, f_L of each support
    image given the others.

    layer: L, from 1 (the first layer) to the number of layers; the features are those of the last stack, which has
    seen all of the past within reach.
    """

    def __init__(self, planes: int, space_dims: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        convs = [CONV[space_dims](planes, planes, 3, stride=2, padding=1) for _ in range(3)]
        self.convs = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, model: FewShotModel, support: Tensor) -> Tensor:
        """The loss of the support of one task."""
        density = model.condition(without_each(support))
        assert isinstance(density, PixelCNNDensity)
        features = features_of_layer(density.network, support[:, 0], density.condition, self.layer)
        squares = self.convs(features).flatten(1).square().sum(1)
        return (squares + 1e-12).sqrt().mean()  # the norm has no gradient at 0


def features_of_layer(network: PixelCNN, pixels: Tensor, condition: Conditioning, layer: int) -> Tensor:
    """Activations ``(samples * tasks, planes, *space)`` of the last stack after ``layer`` layers, as in ``trunk``."""
    stacks, attended = [network.input(pixels)] * network.stacks, None
    for i in range(layer):
        if i == network.attention_layer and network.attention is not None and condition.memory is not None:
            attended = network.attention(condition.memory, stacks[-1])
        stacks, _ = network.layers[i](stacks, condition.biases[i], attended)
    return stacks[-1]

"""A learned memory of whole images that every place compares its past with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from metadensity.nn.functional.prototype_attention import prototype_attention
from metadensity.nn.inputs import to_unit_range


class Prototypes(nn.Module):
    """``count`` learned images, read by every place t by how well its past fits theirs:

        score_ft = prior_f + sum_{u<t} <x_u, image_fu>,   read_t = sum_f softmax_f(score_t) image_ft,

    with pixels in [-1, 1] and places in raster order. The support acts through the prior, a linear function of f(s),
    and is compared with the prototypes itself: the weights that they take for a whole support image are features of
    its class, see ``describe``.

    For binary images whose prototypes hold half the log-odds of their pixels, softmax(score_t) is the exact posterior
    of a mixture of products of Bernoullis given the past. Our own: the hidden units of NADE (Larochelle and Murray
    2011, section 3) that compete for the past, as learned inputs of a VampPrior (Tomczak and Welling 2018, section
    2.2) do, and which begin as images of the training data, as those may. Convolutions have to learn a class that
    lies here or there place by place, while a prototype is compared at all places by the same numbers.

    Every place has a score for every prototype, so they are meant for small images. The weights of a trained model hold
    what looks like training images, and may be them.

    features: of what a place gets, a linear function of its read in units of the initial pixels.
    context: features of the task vector; 0 for none. hidden: of the vectors that stand for a prototype in the prior and
        in the description of a support.
    """

    filled: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        count: int,
        features: int,
        *,
        context: int = 0,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.contrast = 4 / math.prod(event_shape) ** 0.5  # scores of unrelated images differ by 4 nats or so
        self.images = nn.Parameter(self.contrast * torch.randn(count, *event_shape))
        self.bias = nn.Parameter(torch.zeros(count))
        self.classes = _PrototypeEmbedding(count, context, hidden) if context else None
        self.to_features = nn.Linear(event_shape[0], features, bias=False)
        self.register_buffer("filled", torch.tensor(False))  # whether the images have been those of a data set

    @property
    def count(self) -> int:
        """Number of prototypes."""
        return len(self.images)

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """Begin with ``images`` ``(count, C, *space)``, integers in [0, levels). ValueError for another shape."""
        if images.shape != self.images.shape:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; these prototypes take {tuple(self.images.shape)}."
            )
        self.images.copy_(self.contrast * to_unit_range(images, self.levels, self.images.dtype))
        self.filled.fill_(True)

    def logits_before(self, tasks: int, vector: Tensor | None) -> Tensor:
        """The scores before any pixel, ``(tasks, count)``, from task vectors ``(tasks, context)``."""
        if self.classes is None or vector is None:
            return self.bias.expand(tasks, -1)
        return self.classes.scores(vector) + self.bias

    def encode_support(self, support: Tensor) -> Tensor:
        """What the supports ``(S, tasks, C, *space)`` add to f(s): ``(tasks, context)``, zero for none."""
        assert self.classes is not None
        pixels = to_unit_range(support.flatten(2), self.levels, self.images.dtype)
        with torch.autocast(pixels.device.type, enabled=False):  # as in ``recall``
            weights = (pixels @ self.images.flatten(1).T + self.bias).softmax(-1)
        return self.classes(weights).sum(0) / (len(support) + 1)

    def scores(self, here: Tensor, place: tuple[int, ...]) -> Tensor:
        """What the pixels ``(batch, C)`` of a place add to the scores of all later places: ``(batch, count)``."""
        return to_unit_range(here, self.levels, self.images.dtype) @ self._at(place).T

    def features_at(self, scores: Tensor, place: tuple[int, ...]) -> Tensor:
        """What a place with ``scores`` ``(batch, count)`` gets: ``(batch, features)``."""
        return cast(Tensor, self.to_features(scores.softmax(-1) @ self._at(place) / self.contrast))

    def forward(self, pixels: Tensor, prior: Tensor) -> Tensor:
        """What all places get: ``(batch, features, *space)``.

        pixels: ``(samples * tasks, C, *space)``, tasks fastest. prior: the scores before any, ``(tasks, count)``.
        """
        places_first = pixels.flatten(2).permute(2, 0, 1)  # (places, batch, C)
        x, images = to_unit_range(places_first, self.levels, self.images.dtype), self.images.flatten(2).permute(2, 0, 1)
        each = prior.repeat(x.shape[1] // len(prior), 1)
        attended = prototype_attention(x.unsqueeze(0), images.unsqueeze(0), each.unsqueeze(0))[0] / self.contrast
        return cast(Tensor, self.to_features(attended)).permute(1, 2, 0).unflatten(-1, pixels.shape[2:])

    def _at(self, place: tuple[int, ...]) -> Tensor:
        """The prototypes' pixels ``(count, C)`` at a place."""
        index: Any = (slice(None), slice(None), *place)
        return self.images[index]


class _PrototypeEmbedding(nn.Module):
    """Which prototypes belong together: a key for each, for task vectors, and a value, for what a support fits."""

    def __init__(self, count: int, context: int, hidden: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(0.1 * torch.randn(count, hidden))
        self.values = nn.Parameter(0.1 * torch.randn(count, hidden))
        self.query = nn.Linear(context, hidden)
        self.describe = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, context))

    def scores(self, vector: Tensor) -> Tensor:
        """How well prototypes fit task vectors ``(tasks, context)``: ``(tasks, count)``."""
        return cast(Tensor, self.query(vector) @ self.keys.T)

    def forward(self, weights: Tensor) -> Tensor:
        """Features ``(S, tasks, context)`` of images that fit the prototypes by ``weights`` ``(S, tasks, count)``."""
        return cast(Tensor, self.describe(weights @ self.values))

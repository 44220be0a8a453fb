"""Models that break one contract each: the negative controls of the suite."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metadensity import Density, FewShotModel
from metadensity.densities.independent import IndependentDensity
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.drawing import Draws
from metadensity.likelihoods import Categorical
from metadensity.models import AttentionPixelCNN, ByteNet, ConditionalPixelCNN, IndependentPixels
from metadensity.nn.causal import CausalConv
from metadensity.nn.functional.gated_layer import causal_convolution


def small(kind: type[FewShotModel]) -> Callable[..., FewShotModel]:
    """A constructor with the sizes of the suite."""
    build = partial(kind, layers=3, planes=6, penultimate=8)
    build.__name__ = kind.__name__  # type: ignore[attr-defined]
    return build


class MaskOffByOne(ConditionalPixelCNN):
    """The first layer sees the current place, and in stacks before the last the rest of the line."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        first = self.network.layers[0]
        features, planes = self.network.input.features, 2 * self.network.planes
        first.convs = nn.ModuleList(
            CausalConv(
                features, planes, self.network.space_dims, stack, 2 * first.conv(0).reach + 1, excludes_current=False
            )
            for stack in range(self.network.space_dims)
        )


class ChannelsSeeThemselves(ConditionalPixelCNN):
    """The mask of the head has its diagonal set."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.network.head.mask.fill_(1)


class LooksTooFar(ConditionalPixelCNN):
    """Its last layer is dilated by one more than it says, so that it sees further."""

    more = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        more = self.more

        class Wider(CausalConv):
            def forward(self, x: Tensor) -> Tensor:
                return causal_convolution(x, self.weight, self.bias, self.stack, False, self.dilation + more)

        for conv in self.network.layers[-1].convs:
            conv.__class__ = Wider


class HasAHole(LooksTooFar):
    """Its last layer is dilated by so much more that nothing sees what lies between two taps."""

    more = 2


class NormalisesOverTime(ByteNet):
    """Its norms are over all places of a feature, not over all features of a place: the first see the last.

    What public ByteNets do that take InstanceNorm1d for the layer norm of the paper.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

        class OverTime(nn.LayerNorm):
            def forward(self, x: Tensor) -> Tensor:
                return nn.functional.instance_norm(x.mT, weight=self.weight, bias=self.bias).mT

        for part in self.network.modules():
            if isinstance(part, nn.LayerNorm):
                part.__class__ = OverTime


class BlindSpot(ConditionalPixelCNN):
    """The last stack hears nothing from the one before it: only the current line of the past is seen."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        with torch.no_grad():
            for layer in self.network.layers:
                for link in layer.links:
                    link.weight.zero_()
        return super().condition(support)


class TooLikely(IndependentPixels):
    """Probabilities that sum to more than one."""

    def condition(self, support: Tensor) -> IndependentDensity:
        density = super().condition(support)
        density.log_probs = density.log_probs + 0.01
        return density


class TooHot(ConditionalPixelCNN):
    """Samples at a temperature of 1.25."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        class Hot(PixelCNNDensity):
            def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
                network = copy.deepcopy(self.network)
                with torch.no_grad():
                    network.head.logits.weight /= 1.25
                    network.head.logits.bias /= 1.25
                return PixelCNNDensity(network, self.condition).sample(sample_shape, generator)

        density = super().condition(support)
        return Hot(density.network, density.condition)


class DependentPixels(IndependentPixels):
    """Terms that are said to be independent, and depend on the pixel before."""

    def condition(self, support: Tensor) -> IndependentDensity:
        class Smeared(IndependentDensity):
            def _conditional_log_probs(self, value: Tensor) -> Tensor:
                before = torch.cat([torch.zeros_like(value[..., :1]), value[..., :-1]], -1)
                return super()._conditional_log_probs(value) + 0.1 * before

        return Smeared(self.logits.expand(support.shape[1], *self.logits.shape))


class IgnoresGenerator(IndependentPixels):
    """Draws from torch's own random state, whatever generator it is given."""

    def condition(self, support: Tensor) -> IndependentDensity:
        class Global(IndependentDensity):
            def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
                return super().sample(sample_shape)

        return Global(self.logits.expand(support.shape[1], *self.logits.shape))


class WithVector(ConditionalPixelCNN):
    """A ConditionalPixelCNN whose task vector is spoilt."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        raise NotImplementedError

    def condition(self, support: Tensor) -> PixelCNNDensity:
        vector = self.spoil(self.encoder(support), support)
        return PixelCNNDensity(self.network, self.network.conditioning(support.shape[1], vector))


class OrderMatters(WithVector):
    """The first support counts more."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return vector + 1e-3 * self.encoder(support[:1])


class TasksLeak(WithVector):
    """Task vectors are centred over the batch of tasks."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return vector - vector.mean(0)


class BatchStatistics(WithVector):
    """Batch normalisation of the task vectors: tasks see one another in training mode alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.norm = nn.BatchNorm1d(self.config["context"])

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return self.norm(vector) if len(vector) > 1 else vector


class NothingOfNothing(WithVector):
    """The mean over no supports is not a number."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return vector + support.to(vector.dtype).mean(0).mean() * 0


class DeafToSupport(WithVector):
    """Supports are encoded, and then thrown away."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return vector * 0


class Detached(WithVector):
    """The support encoder is cut off from the loss."""

    def spoil(self, vector: Tensor, support: Tensor) -> Tensor:
        return vector.detach()


class QueriesLeak(ConditionalPixelCNN):
    """Features are centred over the queries that happen to be scored together."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        class Centred(PixelCNNDensity):
            def _logits(self, pixels: Tensor) -> Tensor:
                logits = super()._logits(pixels)
                return logits - 1e-3 * logits.mean(0) * torch.arange(self.levels)[(...,) + (None,) * (logits.ndim - 2)]

            def _conditional_log_probs(self, value: Tensor) -> Tensor:
                pixels = value.reshape(-1, *self.event_shape)
                return self._logits(pixels).log_softmax(1).gather(1, pixels.unsqueeze(1)).view(value.shape)

        density = super().condition(support)
        return Centred(density.network, density.condition)


class WrongShape(IndependentPixels):
    """log_prob forgets that sample dimensions come first."""

    def condition(self, support: Tensor) -> IndependentDensity:
        class Transposed(IndependentDensity):
            def log_prob(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
                return super().log_prob(value, generator).transpose(0, -1)

        return Transposed(self.logits.expand(support.shape[1], *self.logits.shape))


class StaleCache(AttentionPixelCNN):
    """The cached sampler attends to nothing but the null entry."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        class Stale(PixelCNNDensity):
            def _drawn(self, draws: Draws, naive: bool = False) -> Tensor:
                return (fresh if naive else stale)._drawn(draws, naive)

        fresh, stale = super().condition(support), super().condition(support[:0])
        return Stale(fresh.network, fresh.condition)


class ForgetsWhatIsKnown(ConditionalPixelCNN):
    """The cached sampler redraws pixels that are given."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        class Forgets(PixelCNNDensity):
            def _drawn(self, draws: Draws, naive: bool = False) -> Tensor:
                return super()._drawn(draws if naive else replace(draws, known=None), naive)

        density = super().condition(support)
        return Forgets(density.network, density.condition)


class ReadsLate(ConditionalPixelCNN):
    """Its density is that of whatever parameters the network has when it is asked."""

    def condition(self, support: Tensor) -> PixelCNNDensity:
        density = super().condition(support)
        density.captured.restored = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        return density


class OtherInBfloat16(IndependentPixels):
    """Another density under autocast."""

    def condition(self, support: Tensor) -> Density:
        logits = self.logits * 1.2 if torch.is_autocast_enabled("cpu") else self.logits
        return IndependentDensity(logits.expand(support.shape[1], *logits.shape))


class KeepsSomethingBack(IndependentPixels):
    """Part of the state is in no parameter and no buffer, so a file does not have it."""

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.offset = torch.rand(levels, *self.event_shape)

    def condition(self, support: Tensor) -> IndependentDensity:
        logits = self.logits + self.offset
        return IndependentDensity(logits.expand(support.shape[1], *logits.shape))


class ForgetsAnArgument(IndependentPixels):
    """A constructor argument that config does not hold."""

    def __init__(self, event_shape: Sequence[int], levels: int, sharpness: float = 1.0) -> None:
        super().__init__(event_shape, levels)
        self.sharpness = self.config.pop("sharpness")


class FlooredTwice(Categorical):
    """A likelihood whose probabilities sum to more than one: each gets something on top."""

    def log_prob(self, features: Tensor, pixels: Tensor) -> Tensor:
        return (super().log_prob(features, pixels).exp() + 0.01).log()


class DeafAtAPlace(Categorical):
    """A likelihood whose channels hear one another over an image, but not where a sampler asks."""

    def logits_at(self, features: Tensor, pixels: Tensor, channel: int) -> Tensor:
        return super().logits_at(features, torch.zeros_like(pixels), channel)

    def kernel_weights(self) -> Any:
        return None

"""A decoder that stands column by column on the encoding of a source: the two ends of one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metadensity.checks import largest
from metadensity.likelihoods import build_likelihood
from metadensity.networks.bytenet import (
    ENCODER_TAPS,
    ByteNetEncoder,
    MaskedBlocks,
    SymbolInput,
    SymbolNetwork,
    symbol_before,
)
from metadensity.networks.conditioning import Conditioning
from metadensity.networks.config import AlignedByteNetConfig
from metadensity.nn.residual import ReluBlock, Rings


@dataclass(frozen=True)
class Split:
    """Where sources end and targets begin in sequences of ``places``: by a separator, or after the first half."""

    places: int
    separator: int | None

    @property
    def half(self) -> int:
        """Places of the source where there is no separator."""
        return self.places // 2

    def source_lengths(self, pixels: Tensor) -> Tensor:
        """Places of the source, ``(batch,)``, of ``(batch, C, *space)``; all where there is no separator yet."""
        if self.separator is None:
            return torch.full((len(pixels),), self.half, device=pixels.device)
        found = pixels.flatten(1) == self.separator
        return torch.where(found.any(1), found.int().argmax(1), self.places)

    @property
    def least_before_target(self) -> int:
        """The first place that a target can have."""
        return self.half if self.separator is None else 1

    def begin_of_target(self, lengths: Tensor) -> Tensor:
        """The places at which targets begin."""
        return lengths if self.separator is None else lengths + 1


def shifted(x: Tensor, begin: Tensor, places: int) -> Tensor:
    """``(batch, places, features)``: the places of ``x`` from ``begin`` ``(batch,)`` on, zeros beyond its own."""
    index = begin.unsqueeze(1) + torch.arange(places, device=x.device)
    inside = (index >= 0) & (index < x.shape[1])
    index = index.clamp(0, x.shape[1] - 1).unsqueeze(-1)
    return x.gather(1, index.expand(-1, -1, x.shape[2])) * inside.unsqueeze(-1)


class SourceEncoder(nn.Module):
    """Residual blocks, not masked, over a source padded to a |s| + b places; its columns are zero beyond these."""

    def __init__(self, symbol_features: int, sizes: AlignedByteNetConfig) -> None:
        super().__init__()
        planes, dilations = sizes.planes, sizes.dilations
        self.unfold = sizes.unfold
        self.embed = nn.Linear(symbol_features, 2 * planes)
        self.layers = nn.ModuleList(
            ReluBlock(planes, ENCODER_TAPS, dilations[i % len(dilations)], masked=False, dropout=sizes.dropout)
            for i in range(sizes.encoder_layers)
        )
        self.norm = nn.LayerNorm(2 * planes)
        self.columns = nn.Linear(2 * planes, 2 * planes)

    def unfolded(self, length: int) -> int:
        """Columns of a source of this length: a |s| + b, rounded up, and no fewer than it has places."""
        factor, more = self.unfold
        return max(length, math.ceil(factor * length + more - 1e-9))

    def forward(self, symbols: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """Columns ``(batch, unfolded(longest), 2 * planes)`` of symbols ``(batch, places, features)``.

        lengths: ``(batch,)``, how many of the first places are the source; longest: the most there are.
        """
        width = self.unfolded(longest)
        table = torch.tensor([self.unfolded(n) for n in range(longest + 1)], device=symbols.device)
        column = torch.arange(width, device=symbols.device)
        room = (column < table[lengths.clamp(max=longest)].unsqueeze(1)).unsqueeze(-1).to(symbols.dtype)
        own = (column < lengths.unsqueeze(1)).unsqueeze(-1)
        x = self.embed(F.pad(symbols, [0, 0, 0, width - symbols.shape[1]]) * own)
        for block in self.layers:
            x = block(x, [], real=room)
        return self.columns(self.norm(x)) * room


class PairEncoder(ByteNetEncoder):
    """A ``ByteNetEncoder`` of sources and targets side by side: column j holds symbol j of both."""

    def __init__(self, event_shape: Sequence[int], levels: int, sizes: AlignedByteNetConfig) -> None:
        super().__init__(event_shape, levels, sizes)
        self.split, self.end = Split(math.prod(event_shape[1:]), sizes.separator), sizes.end
        self.embed_target = nn.Linear(self.input.features, 2 * sizes.planes)

    def embedded(self, supports: Tensor) -> tuple[Tensor, Tensor]:
        """See ``ByteNetEncoder``: real are the columns of the source, and those of the target up to its end."""
        symbols, lengths = self.input(supports), self.split.source_lengths(supports)
        begin = self.split.begin_of_target(lengths)
        ends = torch.full_like(begin, self.split.places)
        if self.end is not None:
            found = supports.flatten(1) == self.end
            ends = torch.where(found.any(1), found.int().argmax(1) + 1, ends)
        # Whatever the supports hold, as attention looks at all columns, those without a symbol too. Of a support with
        # no separator, which is none of these strings, the last symbol is left out.
        width = self.split.places - self.split.least_before_target
        column = torch.arange(width, device=symbols.device)
        source, target = ((column < end.unsqueeze(1)).unsqueeze(-1) for end in (lengths, ends - begin))
        x = self.embed(shifted(symbols, torch.zeros_like(begin), width) * source)
        x = x + self.embed_target(shifted(symbols, begin, width) * target)
        return x, (source | target).to(x.dtype)


class AlignedByteNetNetwork(SymbolNetwork):
    """One decoder of the source, and one of the target on the columns of the source's encoding.

    Each sees its own part of the sequence alone, from its own first place on; what the source holds reaches the target
    through its columns, of which place j of the target has the j-th.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, sizes: AlignedByteNetConfig) -> None:
        super().__init__()
        self.event_shape, self.levels = tuple(event_shape), levels
        self.split = Split(math.prod(event_shape[1:]), sizes.separator)
        self.input = SymbolInput(event_shape, levels)
        self.source = MaskedBlocks(self.input.features, sizes, sizes.source_layers, None)
        self.encoder = SourceEncoder(self.input.features, sizes)
        self.target = MaskedBlocks(self.input.features, sizes, sizes.layers, sizes.attention)
        self.head = build_likelihood(
            sizes.likelihood,
            sizes.penultimate,
            event_shape[0],
            levels,
            len(event_shape) - 1,
            components=sizes.components,
        )

    def conditioning(self, tasks: int, vector: Tensor, columns: tuple[Tensor, Tensor] | None = None) -> Conditioning:
        """Prepare a batch of tasks, as ``MaskedBlocks`` does; the biases of the source's decoder come first."""
        target = self.target.conditioning(tasks, vector, columns)
        return replace(target, biases=self.source.conditioning(tasks, vector).biases + target.biases)

    def _conditions(self, condition: Conditioning) -> tuple[Conditioning, Conditioning]:
        count = len(self.source.layers)
        source = replace(condition, biases=condition.biases[:count], memory=None)
        return source, replace(condition, biases=condition.biases[count:])

    def _of_target(self, symbols: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """The inputs before each place of the targets, counted from their first, and the columns there."""
        places = self.split.places - self.split.least_before_target
        before = F.pad(shifted(symbols, self.split.begin_of_target(lengths), places), [0, 0, 1, -1])
        columns = self.encoder(symbols, lengths, longest)
        return before, F.pad(columns, [0, 0, 0, places - columns.shape[1]])

    def features(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``."""
        of_source, of_target = self._conditions(condition)
        symbols, lengths, places = self.input(pixels), self.split.source_lengths(pixels), self.split.places
        longest, begin = largest(lengths, places), self.split.begin_of_target(lengths)
        known = symbols[:, : min(places, longest + 1)]  # of the source and its separator
        source = self.source.features_after(F.pad(known, [0, 0, 1, -1]), of_source)
        before, columns = self._of_target(symbols, lengths, longest)
        target = shifted(self.target.features_after(before, of_target, columns=columns), -begin, places)
        x = torch.where(self._in_target(begin), target, F.pad(source, [0, 0, 0, places - source.shape[1]]))
        return x.mT.unflatten(-1, self.event_shape[1:])

    def _in_target(self, begin: Tensor) -> Tensor:
        """``(batch, places, 1)``."""
        return (torch.arange(self.split.places, device=begin.device) >= begin.unsqueeze(1)).unsqueeze(-1)

    def attention_weights(self, pixels: Tensor, condition: Conditioning) -> Tensor:
        """See ``CausalNetwork``; places of the source look at the null entry alone."""
        _, of_target = self._conditions(condition)
        lengths = self.split.source_lengths(pixels)
        begin = self.split.begin_of_target(lengths)
        before, columns = self._of_target(self.input(pixels), lengths, largest(lengths, self.split.places))
        weights = self.target.weights_after(before, of_target, columns)  # (samples, tasks, J, places of the target)
        flat = shifted(weights.flatten(0, 1).mT, -begin, self.split.places)
        null = F.one_hot(torch.tensor(flat.shape[-1] - 1, device=flat.device), flat.shape[-1]).to(flat)
        flat = torch.where(self._in_target(begin), flat, null)
        return flat.mT.unflatten(0, weights.shape[:2]).unflatten(-1, self.event_shape[1:])

    def steps(self, condition: Conditioning) -> Callable[[Tensor, int], Tensor]:
        """See ``SymbolNetwork``: rings of both decoders, and columns once a source is known."""
        (of_source, of_target), split = self._conditions(condition), self.split
        source_rings, target_rings = Rings(self.source), Rings(self.target)
        begin = columns = torch.empty(0)

        def features(pixels: Tensor, place: int) -> Tensor:
            nonlocal begin, columns
            batch, width = len(pixels), split.places
            before = symbol_before(self.input, pixels, place)
            if not place:
                begin = torch.full((batch,), width, device=pixels.device)
                columns = before.new_zeros(batch, width, self.encoder.columns.out_features)
            began = self._begin_here(pixels, place, begin)
            if bool(began.any()):
                length = place - (split.separator is not None)
                known, lengths = self.input(pixels[..., :place]), begin.new_full((batch,), length)
                found = self.encoder(known[began], lengths[began], length)[:, :width]
                columns[began] = F.pad(found, [0, 0, 0, width - found.shape[1]])
                begin = torch.where(began, place, begin)
                target_rings.forget(began)
            inside = (begin <= place).view(-1, 1, 1)
            x = before.new_zeros(())
            if not bool(inside.all()):
                x = self.source.features_after(before, of_source, source_rings)
            if bool(inside.any()):
                own = before * (begin < place).view(-1, 1, 1)
                here = shifted(columns, place - begin, 1)
                x = torch.where(inside, self.target.features_after(own, of_target, target_rings, here), x)
            return x[:, 0]

        return features

    def _begin_here(self, pixels: Tensor, place: int, begin: Tensor) -> Tensor:
        """Which targets have their first place here."""
        if self.split.separator is None:
            return torch.full_like(begin, place == self.split.half, dtype=torch.bool)
        return (begin > place) & (pixels[:, 0, place - 1] == self.split.separator) & (place > 0)

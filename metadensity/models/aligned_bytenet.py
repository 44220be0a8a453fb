"""Aligned ByteNet: a target given its source, and supports that are such pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metadensity.checks import is_whole, real_places
from metadensity.densities.bytenet import ByteNetDensity
from metadensity.densities.sequence import SequenceDensity
from metadensity.density import Density
from metadensity.model import FewShotModel
from metadensity.networks.aligned_bytenet import AlignedByteNetNetwork, PairEncoder
from metadensity.networks.config import AlignedByteNetConfig


class AlignedByteNet(FewShotModel, options=[AlignedByteNetConfig]):
    """The encoder-decoder of Kalchbrenner et al. 2016 (arXiv 1610.10099v2), given a support set of such pairs.

    An item is a string: a source, the level ``separator``, a target, the level ``end``. The density is that of the
    whole, p(source) p(target | source), place after place, so it sums to one over all strings; of a density of this
    model ``density.rest_log_prob(strings, lengths)``, with ``lengths`` the places up to the separator, it included, is
    log p(target | source, support), and ``complete`` of the source and its separator draws translations.

    p(target | source) is the paper's: the source is encoded by residual blocks that are not masked, and the decoder
    stands on its columns, place j of the target on the j-th (section 3.1). Lengths differ by dynamic unfolding (section
    3.2): the source is padded to a |s| + b columns (``unfold``), and the decoder runs until it ends, beyond these on
    columns of zeros. p(source) is that of a decoder without columns, ByteNet's language model. Supports are encoded
    with source and target side by side; f(s), a vector, reaches all convolutions of both decoders, and with
    ``attention`` the second half of the target's blocks is given what each place reads from the columns of supports.

    Without a separator the source is the first half of the places in raster order, of one length: the upper half of
    an image, say, of which the lower one is completed. Then there may be more channels, and any space.

    Departures: those of ``ByteNet``, but that there is dynamic unfolding. |s| does not count the separator; the columns
    are at least as many as the source has places. No weight depends on the number of places.
    Options: see ``AlignedByteNetConfig``.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        for name in ("separator", "end"):
            level: Any = options.get(name)
            if is_whole(level) and -levels <= level < 0:
                options[name] = level + levels
        sizes = self.take(AlignedByteNetConfig, options)
        self.end = sizes.end
        strings = len(self.event_shape) == 2 and self.event_shape[0] == 1
        named = [level for level in (sizes.separator, sizes.end) if level is not None]
        if named and not (strings and all(is_whole(level) and 0 <= level < levels for level in named)):
            raise ValueError(
                f"separator={sizes.separator!r} and end={sizes.end!r} with event_shape={self.event_shape}; strings are "
                f"(1, places), and both are levels, 0 to {levels - 1}, or -1, the last one, to {-levels}. Give "
                "separator=None and end=None for sequences whose source is their first half, and for images."
            )
        if len(named) != len(set(named)):
            raise ValueError(f"separator={sizes.separator} is the end as well; give each a level of its own.")
        if sizes.separator is not None and self.event_shape[1] < 2:
            raise ValueError(f"event_shape={self.event_shape}; a separator and a target take two places at least.")
        self.encoder = PairEncoder(self.event_shape, levels, sizes)
        self.network = AlignedByteNetNetwork(self.event_shape, levels, sizes)

    def condition(self, support: Tensor) -> Density:
        """Encode the support into f(s), and with attention into keys and values of its columns."""
        density = ByteNetDensity(self.network, self.network.conditioning(support.shape[1], *self.encoder(support)))
        return density if self.end is None else SequenceDensity(density, self.end)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """The same of strings: what comes after the first ``lengths`` ``(S, tasks)`` places of each is the end."""
        if self.end is None:
            return super().condition_on_lengths(support, lengths)
        real = real_places(lengths, support.shape[-1]).unsqueeze(2)
        return self.condition(torch.where(real, support, self.end))

"""ByteNet, conditioned on a support set: strings of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metadensity.checks import is_whole, real_places
from metadensity.densities.bytenet import ByteNetDensity
from metadensity.densities.counts import CountedDensity, SupportCounts
from metadensity.densities.sequence import SequenceDensity
from metadensity.density import Density, SequentialDensity
from metadensity.likelihoods.levels import at_least_float32
from metadensity.model import FewShotModel
from metadensity.networks.bytenet import ByteNetDecoder, ByteNetEncoder
from metadensity.networks.config import ByteNetConfig

STRENGTH = 4.0  # log of what counts begin with: of a net that knows little yet they should not take the place


class ByteNet(FewShotModel, options=[ByteNetConfig]):
    """Kalchbrenner et al. 2016, "Neural Machine Translation in Linear Time" (arXiv 1610.10099v2), given a support set.

    The decoder, which by itself is the paper's language model: embeddings of the symbols so far, residual blocks of
    masked convolutions, dilated by 1, 2, 4, 8, 16 and so on again (sections 3.4 to 3.6, as recalled), with
    multiplicative units or with ReLU (figure 3; ``block``), layer norms over the features of one place before each
    ReLU, then 1 x 1, ReLU, 1 x 1, softmax. The encoder has the same blocks, with ReLU and without masks. In the paper
    a decoder stands column by column on the encoding of one source; a set of supports has no such columns. Here what is
    learned of them reaches all convolutions of the decoder: as f(s), one vector, and with ``attention`` as what each
    place reads from the encoded places of all supports, in the second half of the blocks.

    Departures. There is no dynamic unfolding, as nothing is aligned. A norm and a ReLU come before the last two layers
    as before all others. The softmax has one 1 x 1 layer more (``Categorical``). Encoders have kernels of three places
    whatever ``kernel_size`` is. The paper has 30 blocks with ``planes=512``, which we cannot train; for these it says
    a field of 315 symbols, where its dilations and kernels add up to 373 with one convolution in a block, and here to
    745 with two multiplicative units. Version 1 of the paper, with sub-batch norms and bags of n-grams, is not this.

    Images are taken too, as sequences in raster order. No weight depends on the number of places.
    Options: see ``ByteNetConfig``.
    """

    any_places = True

    def __init__(self, event_shape: Sequence[int], levels: int, **options: Any) -> None:
        super().__init__(event_shape, levels)
        sizes = self.take(ByteNetConfig, options)
        self.end = sizes.end
        sequences = len(self.event_shape) == 2 and self.event_shape[0] == 1
        if self.end is not None and not (sequences and is_whole(self.end) and 0 <= self.end < levels):
            raise ValueError(
                f"end={self.end!r} and event_shape={self.event_shape}; strings are (1, places) and end with one of the "
                f"levels 0 to {levels - 1}. Give end=None for sequences of one length, and for images."
            )
        self.log_strengths = None
        if sizes.counts is not None:
            if not is_whole(sizes.counts) or sizes.counts < 0 or (levels + 1) ** sizes.counts * levels >= 2**63:
                raise ValueError(f"counts={sizes.counts!r} with levels={levels}; give 0 or more, that 63 bits count.")
            if not sequences:
                raise ValueError(f"counts={sizes.counts} with event_shape={self.event_shape}; only (1, places) count.")
            self.log_strengths = nn.Parameter(torch.full((sizes.counts + 1,), STRENGTH))
        self.encoder = ByteNetEncoder(self.event_shape, levels, sizes)
        self.network = ByteNetDecoder(self.event_shape, levels, sizes)

    def condition(self, support: Tensor) -> Density:
        """Encode the support into f(s), and with attention into keys and values of all its places."""
        density: SequentialDensity = ByteNetDensity(
            self.network, self.network.conditioning(support.shape[1], *self.encoder(support))
        )
        if self.log_strengths is not None:
            strengths = at_least_float32(self.log_strengths).exp()
            counts = SupportCounts.of(support[:, :, 0], strengths, self.levels, end=self.end)
            density = CountedDensity(density, counts)
        return density if self.end is None else SequenceDensity(density, self.end)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """The same of strings: what comes after the first ``lengths`` ``(S, tasks)`` places of each is the end."""
        if self.end is None:
            return super().condition_on_lengths(support, lengths)
        real = real_places(lengths, support.shape[-1]).unsqueeze(2)
        return self.condition(torch.where(real, support, self.end))

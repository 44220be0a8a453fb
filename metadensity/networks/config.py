"""Sizes and options of a PixelCNN: the one place where they are named, have defaults, and are validated.

A model takes the fields of one of these classes as keyword arguments (``FewShotModel``), and a model made of another
takes the same class, so that no option of the one is missing in the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from metadensity.checks import is_whole, require_sizes
from metadensity.likelihoods import COMPONENTS, likelihood_options
from metadensity.nn.attention import require_attention
from metadensity.nn.encoders import require_stride
from metadensity.nn.residual import BLOCKS


@dataclass(frozen=True)
class PixelCNNConfig:
    """A gated PixelCNN. The defaults are those of Reed et al. 2018 for Omniglot.

    layers: 2 or more. planes: features of a layer. penultimate: features that the likelihood is given.
    kernel_size: odd, 3 or more; or one for each space dimension, of which some may be 1: ``(1, 3, 3)`` for layers that
        look within a frame. first_kernel: of the first layer, which looks at the image itself, as the 7 of
        van den Oord et al. 2016, 3 or more along each dimension; None: ``kernel_size``. Twice the longest side of an
        image less one sees all of its past at once.
    dilations: places from one tap of a kernel to the next, of the layers after the first: the second has the first of
        these, and after the last the first comes again. ``(1,)``: no gaps. ``(1, 2, 4, 8)`` sees 15 times as far in 4
        layers as ``(1,)`` in one (van den Oord et al. 2016, "WaveNet", section 2.1). Each is one number, or one for
        each space dimension: ``((1, 1, 1), (1, 2, 2))``.
    frame_independent: whether a place sees nothing of its own slice of the first space dimension, only the slices
        before it: a film whose pixels are independent within a frame, the baseline of Kalchbrenner et al. 2016, "Video
        Pixel Networks", section 5.
    likelihood: of a pixel given its past: a name in ``LIKELIHOODS``, or a mapping with a name and options of its own.
    components: of a mixture; the same as ``likelihood={"name": "logistic", "components": ...}``, which is stored so.
    Raises ValueError for a value out of range.
    """

    layers: int = 12
    planes: int = 24
    penultimate: int = 32
    kernel_size: Any = 3
    first_kernel: Any = None
    dilations: Sequence[Any] = (1,)
    frame_independent: bool = field(default=False, metadata={"earlier": False})
    likelihood: str | Mapping[str, Any] = "categorical"
    components: int = COMPONENTS
    fewest_layers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        options = likelihood_options(self.likelihood, components=self.components)
        name = options.pop("name")
        object.__setattr__(self, "components", options.pop("components", self.components))
        object.__setattr__(self, "likelihood", {"name": name, **options} if options else name)
        require_sizes(layers=self.layers, planes=self.planes, penultimate=self.penultimate, components=self.components)
        if self.layers < self.fewest_layers:
            raise ValueError(f"layers={self.layers}; a PixelCNN needs at least {self.fewest_layers}.")
        first, kernel = _numbers(self.first_kernel), _numbers(self.kernel_size)
        if self.first_kernel is not None and (not first or min(first) < 3 or not all(each % 2 for each in first)):
            raise ValueError(
                f"first_kernel={self.first_kernel}; give an odd number of 3 or more, or one for each space dimension, "
                "or None for kernel_size."
            )
        if isinstance(self.kernel_size, Sequence) and (
            not kernel or max(kernel) < 3 or not all(each % 2 for each in kernel)
        ):
            raise ValueError(
                f"kernel_size={self.kernel_size!r}; give one odd number for each space dimension, 3 or more for one of "
                "them at least, for example (1, 3, 3)."
            )
        if first is None and kernel and min(kernel) < 3 and isinstance(self.kernel_size, Sequence):
            raise ValueError(
                f"kernel_size={self.kernel_size!r} without first_kernel; the first layer sees 3 places or more along "
                "each dimension. Give first_kernel=3, for example."
            )
        dilations = self.dilations
        listed = isinstance(dilations, Sequence) and not isinstance(dilations, str)
        if not listed or not dilations or not all(_numbers(each) for each in dilations):
            raise ValueError(
                f"dilations={dilations!r}; give whole numbers of at least 1, one for each layer after the first or for "
                "some that come again and again, for example (1, 2, 4, 8); (1,) for none. Each may be several, one for "
                "each space dimension."
            )
        tuples = [tuple(each) if isinstance(each, Sequence) else each for each in dilations]
        object.__setattr__(self, "dilations", tuple(tuples))
        if not isinstance(self.frame_independent, bool):
            raise ValueError(f"frame_independent={self.frame_independent!r}; give True or False.")

    @property
    def network(self) -> dict[str, Any]:
        """These as arguments of ``metadensity.networks.pixelcnn.PixelCNN``."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OF_MODELS}


def _numbers(given: Any) -> tuple[int, ...] | None:
    """One whole number of at least 1, or one for each dimension, as a tuple; None for anything else."""
    numbers = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return numbers if numbers and all(is_whole(each) and each >= 1 for each in numbers) else None


@dataclass(frozen=True)
class ConditionalConfig(PixelCNNConfig):
    """A PixelCNN whose gates are biased by f(s), one vector of the support.

    context: size of f(s); None: twice the planes, which is what is stored.
    support_norm: whether encoders of the support are centred by the data and bounded, see ``metadensity.nn.encoders``;
        the published ones, and those of files that do not say it, are not.
    """

    context: Any = None
    support_norm: bool = field(default=True, metadata={"earlier": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None:
            object.__setattr__(self, "context", 2 * self.planes)
        require_sizes(context=self.context)
        if not isinstance(self.support_norm, bool):
            raise ValueError(f"support_norm={self.support_norm!r}; give True or False.")


@dataclass(frozen=True)
class PatchConfig(ConditionalConfig):
    """A PixelCNN that attends to patches of the support as well.

    attention: "additive", as published, or "dot", scaled dot products.
    patch_stride: places between patches of the support; 4, as published, or 2 or 1, for what has to be found exactly.
    """

    attention: Any = "additive"
    patch_stride: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_attention()
        require_stride(self.patch_stride)

    def _require_attention(self) -> None:
        require_attention(self.attention)


@dataclass(frozen=True)
class AttentionConfig(PatchConfig):
    """As ``PatchConfig``, with prototypes.

    prototypes: learned images that pasts and supports are compared with, 0 for none as published; for small noisy
        images of classes that come again, see ``metadensity.nn.prototypes``.
    """

    prototypes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.prototypes) or self.prototypes < 0:
            raise ValueError(f"prototypes={self.prototypes!r}; it must be a whole number, 0 for none.")


@dataclass(frozen=True)
class AlignedConfig(AttentionConfig):
    """As ``AttentionConfig``, with a map of the support; attention: "dot" by default, None to do without.

    map_features: features of the map for each of mean and maximum over the supports.
    map_every: the map reaches the first layer and every so manyth after it; others see it through these.
    """

    attention: Any = "dot"
    map_features: int = 24
    map_every: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(map_features=self.map_features, map_every=self.map_every)

    def _require_attention(self) -> None:
        if self.attention is not None:
            super()._require_attention()


@dataclass(frozen=True)
class MultiscaleConfig(PatchConfig):
    """As ``PatchConfig``, of a small image and of what doubles it; attention: "dot" by default.

    base: the longest side of the smallest image. upscaler_layers: layers of each upscaler.
    """

    attention: Any = "dot"
    base: int = 8
    upscaler_layers: int = 18

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(base=self.base, upscaler_layers=self.upscaler_layers)
        if self.frame_independent:
            raise ValueError("frame_independent=True; a multiscale image has no frames of its own. Leave it False.")


@dataclass(frozen=True)
class PixelRNNConfig(ConditionalConfig):
    """A Diagonal BiLSTM. A layer has ``planes`` features in each gate of each direction, and twice as many outside.

    layers: 1 or more, after the convolution. first_kernel: of that convolution; None: 3.
    attention: over patches of the support, "dot", scaled dot products, or "additive"; None: f(s) alone.
    patch_stride: places between these patches, 4, 2 or 1.
    """

    layers: int = 7
    first_kernel: int | None = 7
    # What these nets have none of, taken out of the fields.
    kernel_size: ClassVar[int]  # type: ignore[misc]
    dilations: ClassVar[Sequence[int]] = (1,)  # type: ignore[misc]
    frame_independent: ClassVar[bool] = False  # type: ignore[misc]
    attention: Any = None
    patch_stride: int = 4
    fewest_layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_stride(self.patch_stride)
        if self.attention is not None:
            require_attention(self.attention)


@dataclass(frozen=True)
class RowLSTMConfig(PixelRNNConfig):
    """A Row LSTM, with the options of a ``PixelRNNConfig``.

    kernel_size: places of the row above whose states a cell is given, odd, 3 or more; of its own row it is given this
        place and half as many before it.
    """

    kernel_size: int = 3  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.kernel_size) or self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}; a Row LSTM needs an odd kernel of 3 or more.")


@dataclass(frozen=True)
class WaveNetConfig(ConditionalConfig):
    """A PixelCNN with the sizes of a WaveNet: a first causal layer, then three times ten dilated ones.

    A kernel_size of 3 is a filter of 2 in one dimension, whose kernels have no second side, and a first_kernel of 5 a
    filter of 2 that leaves out the current place. A place sees half of the first kernel and the sum of the dilations:
    with the defaults 2 + 3 * 1023 = 3071 places.

    attention: over supports, "dot", scaled dot products, or "additive"; None: f(s) alone.
    patches: of attention, for each support: means of so many equal stretches of it.
    prediction: taps of a linear prediction that the likelihood, a mixture of logistics, is relative to; 0: none.
    """

    layers: int = 31
    planes: int = 32
    penultimate: int = 64
    first_kernel: Any = 5
    dilations: Sequence[Any] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    attention: Any = None
    patches: int = 32
    prediction: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(patches=self.patches)
        if not is_whole(self.prediction) or self.prediction < 0:
            raise ValueError(f"prediction={self.prediction!r}; give a number of taps, for example 16, or 0 for none.")
        if self.prediction and self.likelihood != "logistic":
            raise ValueError(
                f"prediction={self.prediction} with likelihood={self.likelihood!r}; what is relative to a linear "
                "prediction is a mixture of logistics. Give likelihood='logistic'."
            )
        if self.attention is not None:
            require_attention(self.attention)


@dataclass(frozen=True)
class ByteNetConfig(PixelCNNConfig):
    """A ByteNet decoder of residual blocks over ``2 * planes`` features, and its encoder of supports.

    A kernel_size of 5 is the paper's masked kernel of 3, the current place and two before it, and a first_kernel of 3
    its embedding of the symbol before. layers: residual blocks.

    block: "multiplicative", of two multiplicative units, or "relu".
    context: size of f(s); None: twice the planes, which is what is stored.
    attention: over all places of the supports, "dot", scaled dot products, or "additive"; None: f(s) alone.
    encoder_layers: residual blocks of the encoder.
    end: the level that ends a string, after which all places have it at no cost, see ``SequenceDensity``; None: all
        sequences have one length.
    counts: of sequences, symbols of the longest context whose counts, in the supports and in the sequence so far, are
        interpolated on top of what the network says, with learned strengths, see ``SupportCounts``; None: none are.
    dropout: part of the features before the last 1 x 1 of each block, and before the last layers, that training sets to
        zero; no density has any, see ``metadensity.nn.dropout``.
    """

    layers: int = 10
    planes: int = 32
    penultimate: int = 64
    kernel_size: int = 5
    first_kernel: Any = 3
    dilations: Sequence[Any] = (1, 2, 4, 8, 16)
    block: str = "multiplicative"
    context: Any = None
    attention: Any = "dot"
    encoder_layers: int = 5
    end: Any = None
    counts: Any = field(default=None, metadata={"earlier": None})
    dropout: float = field(default=0.0, metadata={"earlier": 0.0})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None:
            object.__setattr__(self, "context", 2 * self.planes)
        require_sizes(context=self.context, encoder_layers=self.encoder_layers)
        if not is_whole(self.kernel_size) or self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}; a causal convolution needs an odd kernel of 3 or more.")
        several = [each for each in (self.first_kernel, *self.dilations) if isinstance(each, Sequence)]
        if several or self.frame_independent:
            raise ValueError(
                f"{several[0] if several else 'frame_independent=True'}: a ByteNet reads places in one row, which has "
                "one kernel, one dilation a layer and no frames. Give single numbers, and frame_independent=False."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}; give the part of the features to drop, from 0 to below 1.")
        if self.block not in BLOCKS:
            raise ValueError(f"block={self.block!r}; choose {' or '.join(map(repr, BLOCKS))}.")
        if self.attention is not None:
            require_attention(self.attention)


@dataclass(frozen=True)
class AlignedByteNetConfig(ByteNetConfig):
    """A ByteNet decoder on the columns of its source, and a smaller one of the source itself.

    separator: the level that ends a source, -1 the last one; None: the source is the first half of the places.
    unfold: a and b of the a |s| + b columns that a source of |s| symbols is padded to, rounded up; (1.2, 0) is what the
        paper has for English to German. More columns than source and target have places only take time.
    source_layers: residual blocks of the decoder of the source.
    end: as of ``ByteNetConfig``; -1 is the last level. counts: None.
    """

    block: str = "relu"
    separator: Any = None
    unfold: Sequence[float] = (1.2, 0.0)
    source_layers: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(source_layers=self.source_layers)
        if self.counts is not None:
            raise ValueError(f"counts={self.counts!r}; an aligned ByteNet takes none. Leave it None.")
        given = self.unfold
        listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 2
        if not listed or not all(isinstance(each, int | float) and 0 <= each < math.inf for each in given):
            raise ValueError(
                f"unfold={given!r}; give a and b of a |s| + b, two numbers of at least 0, for example (1.2, 0)."
            )
        object.__setattr__(self, "unfold", tuple(map(float, given)))


# What networks are not built from.
_OF_MODELS = {
    "patches",
    "prediction",
    "support_norm",
    "patch_stride",
    "map_features",
    "map_every",
    "base",
    "upscaler_layers",
}

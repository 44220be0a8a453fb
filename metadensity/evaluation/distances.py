"""Distances between images in pixel space: Hamming for two levels, root mean square for more."""

from __future__ import annotations

import math

from torch import Tensor

from metadensity.checks import require_integer_pixels, require_levels


def pixel_distances(images: Tensor, references: Tensor, levels: int) -> Tensor:
    """Distance of each image to each reference of its task, in [0, 1]: ``(N, tasks, M)`` float64.

    images: ``(N, tasks, C, *space)``; references: ``(M, tasks, C, *space)``; integers in ``[0, levels)``.
    Two levels: the share of pixels that differ. More: the root mean square difference over ``levels - 1``.
    Sums of whole numbers in float64, so equal images are at exactly 0 and ties are ties.

    Raises TypeError for pixels that are no integers, ValueError for shapes that do not fit or levels out of range.
    """
    for name, pixels in (("images", images), ("references", references)):
        require_integer_pixels(name, pixels)
        require_levels(name, pixels, levels)
    if images.ndim < 4 or images.shape[1:] != references.shape[1:]:
        raise ValueError(
            f"images {tuple(images.shape)} and references {tuple(references.shape)}; both must be "
            "(number, tasks, channels, *space), alike after the first dimension."
        )
    event_size = math.prod(images.shape[2:])
    a, b = (pixels.flatten(2).transpose(0, 1).double() for pixels in (images, references))
    squared = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * a @ b.mT  # (tasks, N, M)
    share = squared.transpose(0, 1) / event_size
    return share if levels == 2 else share.sqrt() / (levels - 1)

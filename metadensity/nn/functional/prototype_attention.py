"""What every place of an image recalls of whole images, by how well its past fits theirs.

The scores of a place are those of the place before plus what the pixel there adds, so an image takes places x images
products. Block by block they are held for few images at a time, and the gradient computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metadensity.nn.functional.blockwise import blocks, forward_mode, recomputed_function


def prototype_attention_plain(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """The oracle of ``recall``: all pasts, masked, against all images."""
    past = pixels.new_ones(pixels.shape[1], pixels.shape[1]).tril(-1)
    scores = torch.einsum("nu,gubc,gupc->gnbp", past, pixels, images) + prior.unsqueeze(1)
    return scores.softmax(-1) @ images


def prototype_attention(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """``sum_p softmax_p(prior_bp + sum_{u<n} <pixels_ub, images_up>) images_np`` for place n of image b.

    pixels: ``(groups, N, B, C)``, floats. images: ``(groups, N, P, C)``. prior: ``(groups, B, P)``. The result has the
    shape of ``pixels``, and its precision under autocast too, as scores are sums over many pixels. Its gradient has a
    gradient, by the plain form and with its memory; works under torch.func. In forward mode it is the plain form.
    """
    if forward_mode():
        return prototype_attention_plain(pixels, images, prior)
    return _recall(pixels, images.contiguous(), prior)  # strided ones are multiplied one by one


def _read(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    attended = torch.empty_like(pixels)
    for rows in _blocks(pixels, images):
        attended[:, :, rows] = _weights(pixels[:, :, rows].contiguous(), images, prior[:, rows]) @ images
    return attended


def _weights(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """What all places give the images: ``(groups, N, B, P)``."""
    scores = prior.new_empty(len(prior), pixels.shape[1], *prior.shape[1:])
    scores[:, 0] = prior
    torch.matmul(pixels[:, :-1], images[:, :-1].mT, out=scores[:, 1:])
    each = scores.unbind(1)
    for n in range(1, len(each)):
        each[n].add_(each[n - 1])
    return torch.softmax(scores, -1, out=scores)


def _gradients(gradient: Tensor, pixels: Tensor, images: Tensor, prior: Tensor) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this gradient will be differentiated
        found: tuple[Tensor, ...] = torch.func.vjp(prototype_attention_plain, pixels, images, prior)[1](gradient)
        return found
    for_pixels, for_images, for_prior = torch.zeros_like(pixels), torch.zeros_like(images), torch.empty_like(prior)
    for rows in _blocks(pixels, images):
        given, here = (part[:, :, rows].contiguous() for part in (pixels, gradient))
        weights = _weights(given, images, prior[:, rows])
        for_images += weights.mT @ here
        # softmax_backward in one pass, by which all of this is a sixth faster
        slope = torch._softmax_backward_data(here @ images.mT, weights, -1, weights.dtype)
        each = slope.unbind(1)
        for n in reversed(range(1, len(each))):  # in the scores of a place are those of all before it
            each[n - 1].add_(each[n])
        for_prior[:, rows] = each[0]
        for_images[:, :-1] += slope[:, 1:].mT @ given[:, :-1]
        for_pixels[:, :-1, rows] = slope[:, 1:] @ images[:, :-1]
    return for_pixels, for_images, for_prior


def _blocks(pixels: Tensor, images: Tensor) -> Iterator[slice]:
    return blocks(pixels.shape[2], images[..., 0].numel(), pixels.device)


_recall = recomputed_function(_read, _gradients)

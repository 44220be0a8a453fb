"""What every place of an image recalls of whole images, by how well its past fits theirs.

The scores of a place are those of the place before plus what the pixel there adds, so an image takes places x images
products. Block by block they are held for few images at a time, and the gradient computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from metadensity.nn.blockwise import as_more_tasks

BLOCK = 1 << 20  # scores in flight: 4 MiB of float32, which caches hold
CUDA_BLOCK = 1 << 27  # 512 MiB: a GPU is faster the more there is to do at once


def recall_plain(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """The oracle of ``recall``: all pasts, masked, against all images."""
    past = pixels.new_ones(pixels.shape[1], pixels.shape[1]).tril(-1)
    scores = torch.einsum("nu,gubc,gupc->gnbp", past, pixels, images) + prior.unsqueeze(1)
    return scores.softmax(-1) @ images


def recall(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """``sum_p softmax_p(prior_bp + sum_{u<n} <pixels_ub, images_up>) images_np`` for place n of image b.

    pixels: ``(groups, N, B, C)``, floats. images: ``(groups, N, P, C)``. prior: ``(groups, B, P)``. The result has the
    shape of ``pixels``, and its precision under autocast too, as scores are sums over many pixels. Its gradient has a
    gradient, by the plain form and with its memory; works under torch.func.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        result: Tensor = _Recall.apply(pixels, images.contiguous(), prior)  # strided ones are multiplied one by one
    return result


class _Recall(torch.autograd.Function):
    @staticmethod
    def forward(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
        read = torch.empty_like(pixels)
        for rows in _blocks(pixels, images):
            read[:, :, rows] = _weights(pixels[:, :, rows].contiguous(), images, prior[:, rows]) @ images
        return read

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            if torch.is_grad_enabled():  # create_graph=True, or inside torch.func: this one will be differentiated
                found: tuple[Tensor, ...] = torch.func.vjp(recall_plain, *ctx.saved_tensors)[1](gradient)
                return found
            return _gradients(gradient, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return as_more_tasks(_Recall.apply, info, in_dims, inputs)


def _weights(pixels: Tensor, images: Tensor, prior: Tensor) -> Tensor:
    """What all places give the images: ``(groups, N, B, P)``."""
    scores = prior.new_empty(len(prior), pixels.shape[1], *prior.shape[1:])
    scores[:, 0] = prior
    torch.matmul(pixels[:, :-1], images[:, :-1].mT, out=scores[:, 1:])
    each = scores.unbind(1)
    for n in range(1, len(each)):
        each[n].add_(each[n - 1])
    return torch.softmax(scores, -1, out=scores)


def _gradients(gradient: Tensor, pixels: Tensor, images: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``recall`` in its three arguments."""
    for_pixels, for_images, for_prior = torch.zeros_like(pixels), torch.zeros_like(images), torch.empty_like(prior)
    for rows in _blocks(pixels, images):
        given, here = (part[:, :, rows].contiguous() for part in (pixels, gradient))
        weights = _weights(given, images, prior[:, rows])
        for_images += weights.mT @ here
        slope = torch._softmax_backward_data(here @ images.mT, weights, -1, weights.dtype)
        each = slope.unbind(1)
        for n in reversed(range(1, len(each))):  # in the scores of a place are those of all before it
            each[n - 1].add_(each[n])
        for_prior[:, rows] = each[0]
        for_images[:, :-1] += slope[:, 1:].mT @ given[:, :-1]
        for_pixels[:, :-1, rows] = slope[:, 1:] @ images[:, :-1]
    return for_pixels, for_images, for_prior


def _blocks(pixels: Tensor, images: Tensor) -> Iterator[slice]:
    an_image = images[..., 0].numel()
    step = max(1, (CUDA_BLOCK if pixels.is_cuda else BLOCK) // max(1, an_image))
    for start in range(0, pixels.shape[2], step):
        yield slice(start, start + step)

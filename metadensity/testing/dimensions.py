"""One formulation in one, two and three dimensions: a model as one of more dimensions, with the same weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.model import FewShotModel
from metadensity.nn.causal import GatedLayer

_STACKED = re.compile(r"(.*\.(?:convs|links|contexts)\.)(\d+)(\..*)")


def in_more_dimensions(model: FewShotModel, ahead: int) -> FewShotModel:
    """``model`` for events with ``ahead`` more space dimensions, of one place each, before its own.

    Its weights are those of ``model``: of a kernel along the new dimensions at the one place that is seen, of the last
    stacks, and for the channels of its own positions. All others are zero, those of the new stacks among them, which
    see nothing where there is one place. So log-probabilities are the same, but for rounding. Kernels and dilations
    that are given for each dimension have 3 and 1 along the new ones.
    """
    channels, *space = model.event_shape
    config: dict[str, Any] = {**model.config, "event_shape": (channels, *[1] * ahead, *space)}
    for name, new in (("kernel_size", 3), ("first_kernel", 3)):
        if isinstance(config.get(name), Sequence):
            config[name] = [*[new] * ahead, *config[name]]
    if "dilations" in config:
        each = config["dilations"]
        config["dilations"] = [[*[1] * ahead, *one] if isinstance(one, Sequence) else one for one in each]
    with torch.random.fork_rng(devices=[]):
        other = type(model)(**config)
    own = model.state_dict()
    stacked = {name for name, part in model.named_modules() if isinstance(part, GatedLayer)}
    state = {}
    for name, tensor in other.to(next(model.parameters()).dtype).state_dict().items():
        source, match = name, _STACKED.fullmatch(name)
        if match and any(match[1].startswith(f"{layer}.") for layer in stacked):
            source = f"{match[1]}{int(match[2]) - ahead}{match[3]}"
        if source not in own:
            state[name] = torch.zeros_like(tensor)
            continue
        given, dims = own[source], len(space)
        if name.endswith("to_gates.weight"):  # of a map: a block for each layer and stack
            planes = next(part.planes for part in model.modules() if isinstance(part, GatedLayer))
            blocks = given.unflatten(0, (-1, dims, 2 * planes))
            given = torch.cat([blocks.new_zeros(len(blocks), ahead, *blocks.shape[2:]), blocks], 1).flatten(0, 2)
        state[name] = _embedded(given, tensor, channels, ahead)
    other.load_state_dict(state)
    return other


def _embedded(given: Tensor, like: Tensor, channels: int, ahead: int) -> Tensor:
    """A tensor of a model as that of one with ``ahead`` more dimensions, which has the shape of ``like``."""
    if like.numel() == given.numel():
        return given.reshape(like.shape)
    assert like.ndim - given.ndim == ahead, f"{tuple(given.shape)} in {ahead} more dimensions is {tuple(like.shape)}"
    if like.shape[1] == given.shape[1] + ahead:  # it is given pixels, and their positions
        pixels, places = given[:, :channels], given[:, channels:]
        given = torch.cat([pixels, pixels.new_zeros(len(given), ahead, *given.shape[2:]), places], 1)
    for size in reversed(like.shape[2 : 2 + ahead]):
        at = size // 2 - (size == 4)  # of four places of a patch's kernel the second
        given = F.pad(given.unsqueeze(2), [0, 0] * (given.ndim - 2) + [at, size - 1 - at])
    return given

"""Codes: what they cost, and what is said of one that is not what it should be."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from metadensity.adaptation import InnerLoop, adapt
from metadensity.coding import CHECKSUM_BITS, MOST_CONSTANT_BITS, WORD_BITS, decode, encode, encode_measured
from metadensity.densities.independent import IndependentDensity
from metadensity.densities.pixelcnn import PixelCNNDensity
from metadensity.densities.sequence import SequenceDensity
from metadensity.density import SequentialDensity
from metadensity.files import DamagedFileError
from metadensity.models import ConditionalPixelCNN, MultiscalePixelCNN


def images(count: int, levels: int = 2, shape: tuple[int, ...] = (1, 5, 5)) -> Tensor:
    return torch.randint(levels, (count, 1, *shape), generator=torch.Generator().manual_seed(count))


def uniform(levels: int, shape: tuple[int, ...] = (1, 5, 5)) -> PixelCNNDensity:
    """A network that gives every level the same probability."""
    model = ConditionalPixelCNN(shape, levels, layers=2, planes=4, penultimate=4)
    torch.nn.init.zeros_(model.network.head.logits.weight)
    torch.nn.init.zeros_(model.network.head.logits.bias)
    return model(images(2, levels, shape))


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_probabilities_without_rounding_cost_what_they_say(levels: int) -> None:
    """log2(levels) bits a pixel, and a constant that does not grow with the number of images."""
    density = uniform(levels)
    excess = [8 * len(encode(density, images(n, levels))) - n * 25 * math.log2(levels) for n in (1, 10, 1000)]
    assert all(0 < each <= MOST_CONSTANT_BITS for each in excess), excess


def test_the_two_parts_of_what_a_code_has_beyond_the_information() -> None:
    """A constant, whatever the number of symbols, and for each symbol what rounding costs: about 0.00013 bits."""
    torch.manual_seed(0)
    density = ConditionalPixelCNN((1, 5, 5), 4, layers=2, planes=4, penultimate=4)(images(2, 4))
    for count in (0, 1, 40, 4000):
        value = images(count, 4) if count else images(1, 4)[:0]
        code, took = encode_measured(density, value)
        assert code == encode(density, value)
        assert CHECKSUM_BITS <= 8 * len(code) - took <= MOST_CONSTANT_BITS
        information = -float(density.log_prob(value).detach().double().sum()) / math.log(2)
        assert abs(took - information) <= 25 * count * 4e-4
    assert 5e-5 < (took - information) / (25 * 4000) < 4e-4


def test_the_length_is_that_of_the_bytes_and_no_coders_count() -> None:
    """1,000 zeros of probability 1/2: an AnsCoder says that it holds 0 bits; ours are 1,000 and the constant."""
    from constriction import stream

    ans = stream.stack.AnsCoder()
    ans.encode_reverse(torch.zeros(1000, dtype=torch.int32).numpy(), stream.model.Uniform(2))
    assert ans.num_bits() == 0, "constriction counts them now: findings and the docstring say that it does not"
    code, took = encode_measured(uniform(2), torch.zeros(40, 1, 1, 5, 5, dtype=torch.long))
    assert 1000 <= took < 1000.5
    assert CHECKSUM_BITS + 1000 < 8 * len(code) <= 1000 + MOST_CONSTANT_BITS
    assert (8 * len(code) - CHECKSUM_BITS) % WORD_BITS == 0


def test_an_image_of_probability_0_has_no_code() -> None:
    density = SequenceDensity(uniform(3, (1, 4)), end=2)
    possible, impossible = torch.tensor([[[0, 2, 2, 2]]]), torch.tensor([[[0, 2, 1, 2]]])
    assert torch.equal(decode(density, encode(density, possible)), possible)
    with pytest.raises(ValueError, match="has probability 0 and no code"):
        encode(density, impossible)


@pytest.mark.parametrize("adapted", [False, True])
def test_what_follows_the_end_of_a_string_costs_nothing(adapted: bool) -> None:
    torch.manual_seed(0)
    model: Any = ConditionalPixelCNN((1, 12), 4, layers=2, planes=6, penultimate=6)
    support = images(2, 4, (1, 12)).expand(2, 3, 1, 12)
    base = adapt(model, support, InnerLoop(steps=1)) if adapted else model(support)
    density = SequenceDensity(base, end=3)
    value = density.sample((200,), torch.Generator().manual_seed(1))
    assert 0 < (density.lengths(value) < 6).double().mean() < 1
    code = encode(density, value)
    assert torch.equal(decode(density, code, (200,)), value)
    excess = 8 * len(code) + float(density.log_prob(value).detach().double().sum()) / math.log(2)
    assert 0 < excess < MOST_CONSTANT_BITS + 1e-3 * value.numel()
    assert len(encode(base, value)) > 1.5 * len(code), "the base pays for what follows an end"


def test_the_constant_is_in_every_code() -> None:
    """Many codes of one image each are longer than one code of many."""
    density, many = uniform(2), images(64)
    apart = sum(len(encode(density, image.unsqueeze(0))) for image in many)
    assert 64 * 4 + len(encode(density, many)) < apart <= 64 * (4 + MOST_CONSTANT_BITS // 8)


def test_a_group_of_places_at_once_is_coded_as_well() -> None:
    torch.manual_seed(0)
    model = MultiscalePixelCNN((2, 6, 5), 3, base=2, layers=2, planes=4, penultimate=4, upscaler_layers=1)
    support, value = images(2, 3, (2, 6, 5)), images(7, 3, (2, 6, 5)).view(7, 1, 2, 6, 5)
    assert torch.equal(decode(model(support), encode(model(support), value), (7,)), value)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_any_shape_of_samples(shape: tuple[int, ...]) -> None:
    density = uniform(3)
    value = torch.randint(3, (*shape, 1, 1, 5, 5), dtype=torch.uint8)
    decoded = decode(density, encode(density, value), shape)
    assert decoded.dtype == torch.int64
    assert torch.equal(decoded, value.long())


def test_a_code_of_something_else_is_refused() -> None:
    torch.manual_seed(1)
    model = ConditionalPixelCNN((1, 5, 5), 2, layers=2, planes=4, penultimate=4)
    density = model(images(2))
    code = encode(density, images(20))
    broken = code[:9] + bytes([code[9] ^ 1]) + code[10:]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.network.head.logits.bias.add_(torch.tensor([0.0, 1.0]))
    others = {
        "other weights": (other(images(2)), code),
        "a flipped bit": (density, broken),
        "cut": (density, code[:-3]),
    }
    others |= {"nothing": (density, b""), "a word short": (density, code[:-4])}
    for name, (reader, given) in others.items():
        with pytest.raises(DamagedFileError, match=r"checksum|damaged"):
            pytest.fail(f"{name}: {decode(reader, given, (20,))}")
    with pytest.raises(DamagedFileError, match="checksum"):
        decode(density, code, (19,))


def test_what_cannot_be_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="IndependentDensity does not go through an image pixel by pixel"):
        encode(IndependentDensity(torch.zeros(1, 2, 1, 5, 5)), images(2))  # type: ignore[arg-type]
    density: SequentialDensity = uniform(2)
    with pytest.raises(ValueError, match="value has shape"):
        encode(density, images(2, shape=(1, 4, 4)))
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ModuleNotFoundError, match="pip install constriction"):
        encode(density, images(2))

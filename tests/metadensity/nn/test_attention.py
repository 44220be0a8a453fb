"""Support attention against plain loops; encoders of support sets; sizes of the published model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metadensity.evaluation.cost import parameter_count
from metadensity.models import AttentionPixelCNN, ConditionalPixelCNN, UnconditionalPixelCNN
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.nn.attention import Memory, SupportAttention
from metadensity.nn.encoders import SupportPatchEncoder, SupportVectorEncoder
from metadensity.nn.functional import additive_attention

KINDS = pytest.mark.parametrize("kind", ["additive", "dot"])


def attention(kind: str, entries: int = 5, tasks: int = 3) -> tuple[SupportAttention, Memory, Tensor]:
    """Attention with random weights, its memory, and activations of 2 samples of 3 tasks on 4x2 places."""
    generator = torch.Generator().manual_seed(0)
    layer = SupportAttention(features=6, keys=4, values=3, space_dims=2, kind=kind).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    memory = layer.with_null_entry(normal(tasks, entries, 4), normal(tasks, entries, 3))
    return layer, memory, normal(2 * tasks, 6, 4, 2)


def by_loops(layer: SupportAttention, memory: Memory, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What is read ``(batch, values, *space)`` and the weights ``(batch, J, *space)``, one number at a time."""
    tasks, entries, width = memory.keys.shape
    query = layer.query(hidden)
    read = torch.zeros(len(hidden), memory.values.shape[2], *hidden.shape[2:], dtype=torch.float64)
    weights = torch.zeros(len(hidden), entries, *hidden.shape[2:], dtype=torch.float64)
    for image in range(len(hidden)):
        task = image % tasks
        for y in range(hidden.shape[2]):
            for x in range(hidden.shape[3]):
                scores = []
                for j in range(entries):
                    q, key = query[image, :, y, x].tolist(), memory.keys[task, j].tolist()
                    if layer.kind == "dot":
                        scores.append(sum(a * b for a, b in zip(q, key, strict=True)) / math.sqrt(width))
                    else:
                        assert layer.score is not None
                        terms = zip(layer.score.tolist(), q, key, strict=True)
                        scores.append(sum(v * math.tanh(a + b) for v, a, b in terms))
                total = sum(math.exp(score) for score in scores)
                for j in range(entries):
                    weights[image, j, y, x] = math.exp(scores[j]) / total
                    read[image, :, y, x] += math.exp(scores[j]) / total * memory.values[task, j].detach()
    return read, weights


@KINDS
def test_attention_equals_the_loop(kind: str) -> None:
    layer, memory, hidden = attention(kind)
    read, weights = by_loops(layer, memory, hidden)
    torch.testing.assert_close(layer(memory, hidden).detach(), read, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.weights(memory, hidden).flatten(0, 1).detach(), weights, rtol=0, atol=1e-12)


@KINDS
def test_weights_sum_to_one(kind: str) -> None:
    layer, memory, hidden = attention(kind)
    weights = layer.weights(memory, hidden)
    assert weights.shape == (2, 3, 6, 4, 2)  # five patches and the null
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 3, 4, 2, dtype=torch.float64))


@KINDS
def test_without_supports_the_null_is_read(kind: str) -> None:
    layer, memory, hidden = attention(kind, entries=0)
    assert memory.keys.shape == (3, 1, 4)
    assert layer.weights(memory, hidden).unique().tolist() == [1]
    expected = layer.null_value[:, None, None].expand(6, 3, 4, 2)
    torch.testing.assert_close(layer(memory, hidden), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("block", [1, 7, 40, 1 << 18])
def test_scores_block_by_block_equal_the_plain_ones(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, with blocks of a row, of some rows, and of all."""
    monkeypatch.setattr(additive_attention, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 5, 4), (3, 7, 4), (4,)
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    slow, fast = additive_attention.additive_scores_plain(*inputs), additive_attention.additive_scores(*inputs)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    upstream = torch.randn(slow.shape, dtype=torch.float64, generator=generator)
    for a, b in zip(
        torch.autograd.grad(slow, inputs, upstream), torch.autograd.grad(fast, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(additive_attention.additive_scores, inputs)
    assert torch.autograd.gradgradcheck(additive_attention.additive_scores, inputs)


def test_attention_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"attention='cosine'; choose 'additive' \(as published\) or 'dot'"):
        SupportAttention(2, 2, 2, 2, "cosine")


@KINDS
def test_attention_maps_of_a_model(kind: str) -> None:
    """Where each pixel looks: all patches of all supports in order, then the null, as the network itself attends."""
    torch.manual_seed(0)
    model = AttentionPixelCNN((1, 6, 9), 2, layers=4, planes=4, penultimate=4, attention=kind)
    support, value = torch.randint(2, (3, 2, 1, 6, 9)), torch.randint(2, (4, 2, 1, 6, 9))
    density = model.condition(support)
    weights = density.network.attention_weights(value.flatten(0, 1), density.condition)
    patches = math.prod(model.patches.grid)
    assert model.patches.grid == (2, 3)
    assert weights.shape == (4, 2, 3 * patches + 1, 6, 9)
    torch.testing.assert_close(weights.sum(2), torch.ones(4, 2, 6, 9))
    assert density.network.attention is not None
    seen: list[Tensor] = []
    density.network.attention.register_forward_pre_hook(lambda module, inputs: seen.append(module.weights(*inputs)))
    density.log_prob(value)
    torch.testing.assert_close(seen[0], weights)


def test_attention_maps_need_attention() -> None:
    network = PixelCNN((1, 3, 3), 2, layers=2, planes=2, penultimate=2, kernel_size=3)
    with pytest.raises(ValueError, match=r"no attention; attention maps need a model such as AttentionPixelCNN"):
        network.attention_weights(torch.zeros(1, 1, 3, 3, dtype=torch.long), network.conditioning(1))


def test_task_vector_is_the_mean_with_the_null() -> None:
    torch.manual_seed(0)
    encoder = SupportVectorEncoder((1, 9, 6), 2, planes=3, features=5)
    torch.nn.init.normal_(encoder.null)
    support = torch.randint(2, (3, 2, 1, 9, 6))
    for task in range(2):
        each = [encoder(support[[shot]])[task] * 2 - encoder.null for shot in range(3)]
        expected = (sum(each) + encoder.null) / 4
        torch.testing.assert_close(encoder(support)[task], expected)
    assert torch.equal(encoder(support[:0]), encoder.null.expand(2, 5))


@pytest.mark.parametrize("space", [(26,), (26, 26), (28, 28), (9, 5), (1, 1), (8, 7, 5), (64, 64)], ids=str)
def test_patches_of_every_size(space: tuple[int, ...]) -> None:
    encoder = SupportPatchEncoder((1, *space), 2, planes=3, keys=4, values=5)
    keys, values = encoder(torch.zeros(2, 3, 1, *space, dtype=torch.uint8))
    count = math.prod(-(-size // 4) for size in space)
    assert math.prod(encoder.grid) == count
    assert keys.shape == (3, 2 * count, 4)
    assert values.shape == (3, 2 * count, 5)
    keys, values = encoder(torch.zeros(0, 3, 1, *space, dtype=torch.uint8))
    assert keys.shape == (3, 0, 4)
    assert values.shape == (3, 0, 5)


def test_a_patch_sees_ten_places() -> None:
    """As recalled from the paper: one unit sees about 10x10 pixels of its support."""
    torch.manual_seed(0)
    encoder = SupportPatchEncoder((1, 26, 26), 2, planes=8, keys=4, values=4)
    extents = torch.zeros(2, dtype=torch.long)
    blank = torch.zeros(1, 1, 1, 26, 26, dtype=torch.long)
    for axis in range(2):
        dots = blank.repeat(26, 1, 1, 1, 1)
        for place in range(26):
            dots[place].transpose(-1, -1 - axis)[..., 13, place] = 1
        middle = 3 * 7 + 3  # of the 7x7 patches
        changed = [not torch.equal(encoder(dot[None])[0][0, middle], encoder(blank)[0][0, middle]) for dot in dots]
        extents[axis] = sum(changed)
    assert extents.tolist() == [10, 10]


@pytest.mark.parametrize("stride", [2, 1])
@pytest.mark.parametrize("space", [(26,), (13, 9), (26, 26), (5, 3, 4)], ids=str)
def test_denser_patches_are_those_in_between(space: tuple[int, ...], stride: int) -> None:
    """With the same weights, patches 2 or 1 places apart hold those 4 places apart."""
    torch.manual_seed(0)
    published, denser = (
        SupportPatchEncoder((1, *space), 2, planes=3, keys=4, values=5, stride=each) for each in (4, stride)
    )
    denser.load_state_dict(published.state_dict())
    support = torch.randint(2, (2, 3, 1, *space), dtype=torch.uint8)
    every = (slice(None, None, 4 // stride),) * len(space)
    for few, many in zip(published(support), denser(support), strict=True):
        placed = many.mT.unflatten(2, (2, *denser.grid))[(..., *every)].flatten(2).mT
        torch.testing.assert_close(placed, few)


def test_sizes_of_the_published_model() -> None:
    """286K parameters on Omniglot at 26x26 with 12 layers of 24 planes, as recalled; ours within 10 %."""
    counts = {
        kind.__name__: parameter_count(kind((1, 26, 26), 2))
        for kind in (UnconditionalPixelCNN, ConditionalPixelCNN, AttentionPixelCNN)
    }
    assert abs(counts["AttentionPixelCNN"] / 286_000 - 1) < 0.1, counts
    assert counts["UnconditionalPixelCNN"] < counts["ConditionalPixelCNN"] < counts["AttentionPixelCNN"]
    defaults = AttentionPixelCNN((1, 26, 26), 2).config
    assert {name: defaults[name] for name in ("layers", "planes", "penultimate", "attention")} == {
        "layers": 12,
        "planes": 24,
        "penultimate": 32,
        "attention": "additive",
    }


def test_a_first_kernel_that_sees_all_of_the_past() -> None:
    """With two layers the last pixel of 8x8 depends on the first one only through a first kernel of 15."""
    first = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    first[1, 0, 0, 0] = 1
    depends = {}
    for kernel in (None, 15):
        torch.manual_seed(0)
        network = PixelCNN((1, 8, 8), 2, layers=2, planes=4, penultimate=4, kernel_size=3, first_kernel=kernel)
        last = network(first, network.conditioning(1))[..., -1, -1]
        depends[kernel] = not torch.equal(last[0], last[1])
    assert depends == {None: False, 15: True}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"first_kernel": 4}, "first_kernel=4; give an odd number of 3 or more"),
        ({"first_kernel": 1}, "first_kernel=1; give an odd number of 3 or more"),
        ({"prototypes": -1}, "prototypes=-1; it must be a whole number"),
        ({"prototypes": 2.5}, "prototypes=2.5; it must be a whole number"),
    ],
)
def test_sizes_that_are_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AttentionPixelCNN((1, 8, 8), 2, **options)


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_attention_over_nothing_is_the_null_entry(kind: str, training: bool) -> None:
    """Values, weights and gradients are finite, in training and in evaluation, asked for weights or not.

    torch's own MultiheadAttention gives nan or not over no keys, depending on whether weights are asked for.
    """
    layer, memory, hidden = attention(kind, entries=0)
    layer.train(training)
    attended = layer(memory, hidden)
    torch.testing.assert_close(attended, layer.null_value[:, None, None].expand_as(attended))
    weights = layer.weights(memory, hidden)
    assert torch.equal(weights, torch.ones_like(weights))
    attended.sum().backward()
    assert layer.null_value.grad is not None
    assert layer.null_value.grad.isfinite().all()

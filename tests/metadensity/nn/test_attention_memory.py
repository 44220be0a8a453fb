"""What attention reads without holding queries x patches: against the plain form, its gradients, its memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.benchmarks.timing import PeakMemory
from metadensity.nn.attention import SupportAttention
from metadensity.nn.functional import additive_attention, dot_attention

TASKS, PLACES, ENTRIES = 3, 7, 5


def given(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Query, keys, values and score, with gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((TASKS, PLACES, 4), (TASKS, ENTRIES, 4), (TASKS, ENTRIES, 3), (4,))
    return tuple(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)


@pytest.mark.parametrize("block", [1, 50, 1 << 18])
def test_blocks_read_what_the_plain_form_reads(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive_attention, "BLOCK", block)
    inputs = given()
    plain, blocks = additive_attention.additive_read_plain(*inputs), additive_attention.additive_read(*inputs)
    torch.testing.assert_close(blocks, plain)
    factor = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [torch.autograd.grad((read * factor).sum(), inputs) for read in (plain, blocks)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = given()
    held = additive_attention.additive_attention(*inputs)
    with torch.no_grad():
        without = additive_attention.additive_attention(*inputs)
    monkeypatch.setattr(additive_attention, "HELD", 0)
    torch.testing.assert_close(held, additive_attention.additive_attention(*inputs))
    torch.testing.assert_close(held.detach(), without)


def test_autocast_changes_nothing() -> None:
    inputs = given(torch.float32)
    plain = additive_attention.additive_read(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = additive_attention.additive_read(*inputs)
        assert torch.equal(plain, cast)
        gradients = torch.autograd.grad(cast.sum(), inputs)
    assert all(map(torch.equal, gradients, torch.autograd.grad(plain.sum(), inputs)))


def test_gradients_and_their_gradients() -> None:
    assert torch.autograd.gradcheck(additive_attention.additive_read, given())
    assert torch.autograd.gradgradcheck(additive_attention.additive_read, given())


def test_each_call_of_a_batch_may_have_a_score_of_its_own() -> None:
    query, keys, values, score = (tensor.detach() for tensor in given())
    scores = torch.stack([score, 2 * score])
    together = torch.func.vmap(additive_attention.additive_read, in_dims=(None, None, None, 0))(
        query, keys, values, scores
    )
    alone = torch.stack([additive_attention.additive_read(query, keys, values, own) for own in scores])
    torch.testing.assert_close(together, alone)

    def total(query: Tensor, own: Tensor) -> Tensor:
        return additive_attention.additive_read(query, keys, values, own).square().sum()

    slopes = torch.func.vmap(torch.func.grad(total, argnums=1), in_dims=(None, 0))(query, scores)
    torch.testing.assert_close(slopes, torch.stack([torch.func.grad(total, argnums=1)(query, own) for own in scores]))


def test_dot_products_read_what_the_plain_form_reads() -> None:
    inputs = given()[:3]
    plain, fused = dot_attention.dot_read_plain(*inputs), dot_attention.dot_read(*inputs)
    torch.testing.assert_close(fused, plain)
    gradients = [torch.autograd.grad(read.square().sum(), inputs) for read in (plain, fused)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.autograd.gradcheck(dot_attention.dot_read, inputs)
    assert torch.autograd.gradgradcheck(dot_attention.dot_read, inputs)
    query, keys, values = (tensor.detach() for tensor in inputs)
    queries = torch.stack([query, 2 * query])
    together = torch.func.vmap(dot_attention.dot_read, in_dims=(0, None, None))(queries, keys, values)
    torch.testing.assert_close(together, torch.stack([dot_attention.dot_read(own, keys, values) for own in queries]))


@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_memory_grows_with_the_patches_and_not_with_queries_times_patches(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward of 676 places; every number of queries x patches held would be 676 x 4 bytes a patch."""
    monkeypatch.setattr(additive_attention, "HELD", 1_000_000)
    layer = SupportAttention(8, 8, 8, 2, kind)
    peaks = []
    for entries in (1000, 3000):
        memory = layer.with_null_entry(torch.randn(2, entries, 8), torch.randn(2, entries, 8))
        hidden = torch.randn(2, 8, 26, 26, requires_grad=True)
        with PeakMemory() as peak:
            layer(memory, hidden).sum().backward()
        peaks.append(peak.peak)
    patches = 2 * 2000  # more in the second case, over both tasks
    assert (peaks[1] - peaks[0]) / patches < 676 * 4 / 2

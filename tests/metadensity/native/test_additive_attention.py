"""Additive attention in the native kernel against the plain form: values, gradients, and when it stays away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metadensity.native import additive_attention as native_additive
from metadensity.nn.functional import additive_attention

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here"
)
TOLERANCE = 1e-5  # of the largest number of a tensor

# tasks, queries, patches, features, values
SIZES = [(1, 1, 1, 1, 1), (2, 9, 5, 3, 4), (3, 17, 16, 24, 24), (9, 8, 33, 5, 17), (2, 30, 197, 24, 24)]


def given(sizes: tuple[int, ...], dtype: torch.dtype = torch.float32, size: float = 1.0) -> tuple[Tensor, ...]:
    """Query, keys, values and score a task, with gradients."""
    tasks, queries, keys, features, values = sizes
    generator = torch.Generator().manual_seed(0)
    shapes = ((tasks, queries, features), (tasks, keys, features), (tasks, keys, values), (tasks, features))
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors[:2] = [tensor * size for tensor in tensors[:2]]
    return tuple(tensor.to(dtype).requires_grad_() for tensor in tensors)


def plain(query: Tensor, keys: Tensor, values: Tensor, score: Tensor) -> Tensor:
    """The oracle, task by task, as each has a score of its own."""
    tasks = zip(query, keys, values, score, strict=True)
    return torch.cat([additive_attention.additive_read_plain(q[None], k[None], v[None], s) for q, k, v, s in tasks])


@needs_compiler
@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equal_to_the_plain_form(
    sizes: tuple[int, ...], threads: int, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inputs, exact = given(sizes, size=size), given(sizes, torch.float64, size)
    assert native_additive.possible(*inputs)
    read, expected = native_additive.attend(*inputs), plain(*exact)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    found = [read, *native_additive.gradients(slope, *inputs)]
    wanted = [expected, *torch.autograd.grad(expected, exact, slope.double())]
    for ours, theirs in zip(found, wanted, strict=True):
        scale = max(float(theirs.detach().abs().max()), 1e-2)
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=TOLERANCE * scale)


@needs_compiler
def test_attention_uses_it_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    run = native_additive._run

    def noted(direction: str, *inputs: Tensor, **more: Tensor) -> None:
        calls.append(direction)
        run(direction, *inputs, **more)

    monkeypatch.setattr(native_additive, "_run", noted)
    query, keys, values, score = given((1, 9, 5, 3, 4))
    inputs = (query, keys, values, score[0].detach().requires_grad_())
    read = additive_attention.additive_attention(*inputs)
    gradients = torch.autograd.grad(read.square().sum(), inputs, create_graph=True)
    assert calls == ["forward"], "a gradient that is differentiated again is torch's"
    torch.autograd.grad(torch.stack([slope.square().sum() for slope in gradients]).sum(), inputs)
    calls.clear()
    torch.autograd.grad(additive_attention.additive_attention(*inputs).sum(), inputs)
    assert calls == ["forward", "backward"]
    calls.clear()
    torch.func.vmap(additive_attention.additive_attention, (0, None, None, None))(query[None], keys, values, inputs[3])
    additive_attention.additive_attention(*(tensor.double() for tensor in inputs))
    with FlopCounterMode(display=False):
        additive_attention.additive_attention(*inputs)
    beyond = native_additive.LARGEST * 1.01
    assert not native_additive.possible(query.detach() * 0 - beyond, keys, values, score)
    assert not native_additive.possible(query, keys.detach() * 0 + beyond, values, score)
    assert not native_additive.possible(query.detach() * torch.nan, keys, values, score)
    additive_attention.additive_attention(query * 0 + beyond, *inputs[1:])
    assert not calls


@needs_compiler
def test_at_its_limit_it_holds() -> None:
    """exp(2 q) exp(2 k) at its largest and smallest, and where they cancel."""
    at = native_additive.LARGEST
    ends = torch.tensor([at, -at, 0.0, at / 2])
    query, keys = ends.view(1, 4, 1), ends.view(1, 4, 1)
    values, score = torch.eye(4)[None], torch.tensor([[1.5]])
    assert native_additive.possible(query, keys, values, score)
    torch.testing.assert_close(
        native_additive.attend(query, keys, values, score), plain(query, keys, values, score), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("setting", [("METADENSITY_NATIVE", "0"), ("CXX", "no-such-compiler")])
def test_without_the_kernel_torch_computes(
    setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = given((2, 9, 5, 3, 4))
    native_additive.KERNEL.forget()
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv(*setting)
        with caplog.at_level("WARNING"):
            assert not native_additive.possible(*inputs)
            assert not native_additive.possible(*inputs)
    finally:
        native_additive.KERNEL.forget()
    assert caplog.text.count("Attentions run in torch alone") == (setting[0] == "CXX")

#!/usr/bin/env bash
# torch 2.13.0: a backward pass marked once_differentiable is differentiated again in silence, as if it were a constant.
#
# Expected: the decorator exists so that a second differentiation raises an error.
# Seen: of x -> x ** 3, whose backward pass uses its saved input, torch.autograd.grad of (first derivative times x) gives
# 3 x ** 2 in place of 9 x ** 2 without a word, whatever the loss: the node that would raise lies on no path to x, so it
# is never run. backward() in its place raises, but only where the gradient that came in from the loss required one
# itself (the sum of squares), not for the sum, whose gradient is a constant. So a meta-gradient through such a function is
# one of first order, or an error, depending on the loss and on how it is asked for. A look at
# torch.is_grad_enabled() in a plain backward tells all of these.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'torch==2.13.0' 'numpy==2.4.6'

cat > "$folder/twice.py" <<'PY'
import torch
from torch.autograd.function import once_differentiable


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


def first_times_x(loss):
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(loss(Cube.apply(x)), x, create_graph=True)
    return (first * x).sum(), x, first


for name, loss in {"sum": torch.sum, "sum of squares": lambda cube: cube.square().sum()}.items():
    total, x, first = first_times_x(loss)
    (by_grad,) = torch.autograd.grad(total, x)
    assert torch.equal(by_grad, first.detach())  # as if the first derivative did not depend on x
    total, x, first = first_times_x(loss)
    try:
        total.backward()
        by_backward = "in silence"
    except RuntimeError as error:
        by_backward = f"raises ({error})"
    print(f"{name}: autograd.grad gives {by_grad.tolist()}, the first derivative itself; backward {by_backward}")
    assert by_backward.startswith("in silence" if name == "sum" else "raises"), by_backward
PY
"$folder/venv/bin/python" "$folder/twice.py"

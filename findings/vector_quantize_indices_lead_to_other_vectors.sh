#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0: with affine_param the indices that a quantiser gives lead back to other vectors.
#
# Expected: get_output_from_indices(indices) is what forward gave beside these indices: it is how a prior over codes, the
# second stage of a VQ-VAE, is decoded.
# Seen: equal to the bit with the default options, but with affine_param=True the codebook comes back without its learned
# scale and shift: in a quantiser trained on data around 3 the vectors are off by more than the data's own spread.
# A ResidualVQ with the option does the same. What is sampled from a prior and decoded so is of another decoder's input.
# Without an error; quantise again with forward to see it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'vector-quantize-pytorch==1.32.0' 'torch==2.13.0' 'numpy==2.4.6'

cat > "$folder/indices.py" <<'PY'
import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

torch.manual_seed(0)


def data():
    return 3 + 2 * torch.randn(16, 50, 4)


@torch.no_grad()
def errors(quantiser):
    """Mean squared errors: of what forward gives to the data, of what the indices give, and between the two."""
    for _ in range(200):
        quantiser(data())
    values = data()
    given, indices, *_ = quantiser.eval()(values)
    back = quantiser.get_output_from_indices(indices)
    pairs = ((given, values), (back, values), (given, back))
    return [round(float((one - other).square().mean()), 2) for one, other in pairs]


for name, kind, options in (
    ("VectorQuantize", VectorQuantize, {}),
    ("ResidualVQ", ResidualVQ, {"num_quantizers": 3}),
):
    plain = errors(kind(dim=4, codebook_size=8, **options))
    affine = errors(kind(dim=4, codebook_size=8, affine_param=True, **options))
    print(f"{name}: default {plain}, affine_param {affine}")
    assert plain[2] == 0 and affine[2] > 1, (plain, affine)
PY
"$folder/venv/bin/python" "$folder/indices.py"

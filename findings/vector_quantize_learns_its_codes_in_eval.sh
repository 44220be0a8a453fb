#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0: with kmeans_init a quantiser that was not trained learns its codebook in eval().
#
# Expected: in evaluation a module changes nothing that it holds; a codebook that was never trained gives an error, or is
# what it was.
# Seen: VectorQuantize(kmeans_init=True).eval(), under no_grad too, sets its codebook to the means of the first batch
# that it is shown, and keeps it for good. So a baseline "before training" depends on what was scored first, and its
# codes are fitted to the test images: here the same images come to 8 codes if they are shown first, and to fewer after
# others. A held-out number of an untrained quantiser, or of one whose training never called it, is one of a fitted one.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'vector-quantize-pytorch==1.32.0' 'torch==2.13.0' 'numpy==2.4.6'

cat > "$folder/evaluated.py" <<'PY'
import torch
from vector_quantize_pytorch import VectorQuantize

images = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def used(*batches):
    """How many codes the last of these batches comes to, and whether the codebook moved, in evaluation alone."""
    torch.manual_seed(0)
    quantiser = VectorQuantize(dim=4, codebook_size=8, kmeans_init=True).eval()
    before = quantiser.codebook.clone()
    for batch in batches:
        _, codes, _ = quantiser(batch)
    return codes.unique().numel(), not torch.equal(before, quantiser.codebook)


alone, after_others = used(images), used(images + 10, images)
print("shown first: codes used, codebook changed:", alone, "after others:", after_others)
assert alone == (8, True) and after_others[0] < 8 and after_others[1], (alone, after_others)
PY
"$folder/venv/bin/python" "$folder/evaluated.py"

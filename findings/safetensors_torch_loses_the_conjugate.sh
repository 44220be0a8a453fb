#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0: a conjugated tensor is saved as if it were not, and a negated one likewise.
#
# Expected: what is loaded equals what was saved, or an error: other tensors whose memory is not what they are, as
# transposed ones, are refused in a sentence.
# Seen: torch.conj marks a tensor and copies nothing; save writes the memory without the mark, so the spectrum of a real
# signal, conjugated, comes back as the spectrum. Likewise where the mark is that of negation. is_contiguous() is True
# of both, so the check for that lets them pass; resolve_conj() and resolve_neg() before saving are the remedy.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'safetensors==0.8.0' 'torch==2.13.0' 'numpy==2.4.6'

cat > "$folder/conjugate.py" <<'PY'
import torch
from safetensors.torch import load, save

spectrum = torch.fft.fft(torch.arange(4.0))
marked = {"conjugated": spectrum.conj(), "negated": torch._neg_view(torch.arange(4.0))}
for name, tensor in marked.items():
    back = load(save({"x": tensor}))["x"]
    print(f"{name}: saved {tensor.tolist()}, loaded {back.tolist()}")
    assert tensor.is_contiguous()
    assert not torch.equal(back, tensor.resolve_conj().resolve_neg())
    assert torch.equal(load(save({"x": tensor.resolve_conj().resolve_neg()}))["x"], tensor)
try:
    save({"x": torch.ones(2, 3).T})
except ValueError as error:
    print("transposed:", str(error)[:60])
else:
    raise SystemExit("a transposed tensor is saved: this has changed")
PY
"$folder/venv/bin/python" "$folder/conjugate.py"

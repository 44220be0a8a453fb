#!/usr/bin/env bash
# soxr 1.1.0: resampling int16 sound adds noise of one step, to digital silence too, and at a ratio of one.
#
# Expected: zeros stay zeros; the result is that of floats, rounded; from 16 kHz to 16 kHz nothing changes.
# Seen: int16 is dithered, which the documentation of soxr.resample does not say: of 8,000 samples of silence a quarter
# are 1 or -1 (one bit a sample to a model of all 16 bits, where silence had cost nothing), a third of a signal's
# samples differ from the rounded result for floats, and a signal "resampled" to its own rate is another. The noise is
# the same in every call, and tells the clips of a set that were resampled from the others. Resample floats, and round.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'soxr==1.1.0' 'numpy==2.4.6'

cat > "$folder/silence.py" <<'PY'
import numpy as np
import soxr

silence = np.zeros(16000, np.int16)
down = soxr.resample(silence, 16000, 8000)
levels, counts = np.unique(down, return_counts=True)
share = counts / len(down)
bits = -float((share * np.log2(share)).sum())
print("silence:", dict(zip(levels.tolist(), counts.tolist())), f"{bits:.2f} bits a sample")
signal = np.random.default_rng(0).normal(scale=3000, size=16000).astype(np.int16)
rounded = np.rint(soxr.resample(signal.astype(np.float64), 16000, 8000))
off = int((soxr.resample(signal, 16000, 8000) != rounded).sum())
kept = int((soxr.resample(signal, 16000, 16000) != signal).sum())
print(f"{off} of {len(rounded)} differ from floats, rounded; {kept} of {len(signal)} change at a ratio of one")
assert np.array_equal(down, soxr.resample(silence, 16000, 8000))
assert not soxr.resample(silence.astype(np.float32), 16000, 8000).any()
assert set(levels.tolist()) == {-1, 0, 1} and 1500 < np.count_nonzero(down) < 2500, counts
assert off > 2000 and kept > 2000, (off, kept)
PY
"$folder/venv/bin/python" "$folder/silence.py"

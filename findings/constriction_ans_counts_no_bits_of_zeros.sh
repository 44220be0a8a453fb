#!/usr/bin/env bash
# constriction 0.5.0: an AnsCoder that was given 1,000 symbols 0 of probability 1/2 says that it holds 0 bits.
#
# Expected: 1,000 bits, give or take the coder's constant, as for any other 1,000 symbols of that probability.
# Seen: num_bits(), num_valid_bits() and the compressed words are 0 for zeros, 1,022 valid bits (1,024 in words) for ones
# and for drawn symbols; the zeros do come back. The coder's state begins at zero and the first symbol's interval at zero,
# so nothing is ever written. A RangeEncoder gives 1,024 bits for all three. Who measures a code by the coder's own count,
# on data that begins with runs of the first symbol, gets too small a number: measure the file, which also ends the code.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'constriction==0.5.0' 'numpy==2.4.6'

cat > "$folder/count.py" <<'PY'
import constriction
import numpy as np

stream = constriction.stream
half = stream.model.Categorical(np.array([0.5, 0.5]), perfect=False)
kinds = {
    "zeros": np.zeros(1000, np.int32),
    "ones": np.ones(1000, np.int32),
    "drawn": np.random.default_rng(0).integers(0, 2, 1000).astype(np.int32),
}
seen = {}
for name, symbols in kinds.items():
    ans, queue = stream.stack.AnsCoder(), stream.queue.RangeEncoder()
    ans.encode_reverse(symbols, half)
    queue.encode(symbols, half)
    seen[name] = (ans.num_bits(), ans.num_valid_bits(), 32 * len(ans.get_compressed()), queue.num_bits())
    assert (ans.decode(half, 1000) == symbols).all()
    print(f"{name}: AnsCoder {seen[name][:3]} bits (num_bits, num_valid_bits, words), RangeEncoder {seen[name][3]}")
assert seen == {"zeros": (0, 0, 0, 1024), "ones": (1024, 1022, 1024, 1024), "drawn": (1024, 1022, 1024, 1024)}, seen
PY
"$folder/venv/bin/python" "$folder/count.py"

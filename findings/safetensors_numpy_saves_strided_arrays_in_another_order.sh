#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy saves an array's memory, not the array: what is transposed comes back wrong.
#
# Expected: what is loaded equals what was saved, or an error, as safetensors.torch raises for tensors that are not
# contiguous. The documentation asks for contiguous arrays; 0.7.0 saved all of these right.
# Seen: a transposed array and one in Fortran's order come back with their shape and dtype and the values in another
# order, and every second value of an array as its first half; without a word, from save and save_file alike, whoever
# reads the file. Images as (n, h, w) out of a (h, w, n) array, as MATLAB's files hold them, are scrambled for good.
# numpy.ascontiguousarray before saving is the remedy.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'safetensors==0.8.0' 'numpy==2.4.6'

cat > "$folder/strides.py" <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save, save_file

table = np.arange(6.0).reshape(2, 3)
arrays = {
    "contiguous": table,
    "transposed": table.T,
    "Fortran's order": np.asfortranarray(table),
    "every second": np.arange(12.0)[::2],
}
right = {}
for name, array in arrays.items():
    back = load(save({"x": array}))["x"]
    save_file({"x": array}, sys.argv[1])
    assert np.array_equal(back, load_file(sys.argv[1])["x"])
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    right[name] = np.array_equal(back, array)
    print(f"safetensors {safetensors.__version__}, {name}: saved {array.tolist()}, loaded {back.tolist()}")
    assert np.array_equal(load(save({"x": np.ascontiguousarray(array)}))["x"], array)
older = safetensors.__version__ == "0.7.0"
assert right == {"contiguous": True, "transposed": older, "Fortran's order": older, "every second": older}, right
PY
"$folder/venv/bin/python" "$folder/strides.py" "$folder/x.safetensors"
"$folder/venv/bin/python" -m pip install --quiet 'safetensors==0.7.0'
"$folder/venv/bin/python" "$folder/strides.py" "$folder/x.safetensors"

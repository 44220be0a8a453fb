#!/usr/bin/env bash
# joblib 1.6.0 with torch 2.13.0: equal tensors have different hashes, so that a Memory computes everything anew.
#
# Expected: equal tensors have one hash, as equal numpy arrays have, and a function behind joblib.Memory is computed once
# for each value of its arguments.
# Seen: a tensor and its clone differ, and so do two modules with equal weights; a function cached by Memory is called
# twice for torch.arange(6) given twice, and its folder grows by a result each time. No error, no warning: results are
# right, and the cache never helps. Hand over tensor.numpy(), or a hash of the weights.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'joblib==1.6.0' 'torch==2.13.0' 'numpy==2.4.6'

cat > "$folder/known.py" <<'PY'
import sys

import joblib
import torch

memory, calls = joblib.Memory(sys.argv[1], verbose=0), []


@memory.cache
def total(values):
    calls.append(1)
    return float(values.sum())


tensor = torch.arange(6.0)
assert joblib.hash(tensor) == joblib.hash(tensor)
assert joblib.hash(tensor.numpy()) == joblib.hash(tensor.clone().numpy())
same = {"a clone": joblib.hash(tensor) == joblib.hash(tensor.clone())}
layers = []
for _ in range(2):
    torch.manual_seed(0)
    layers.append(torch.nn.Linear(2, 2))
same["two modules of equal weights"] = joblib.hash(layers[0]) == joblib.hash(layers[1])
for values in (torch.arange(6.0), torch.arange(6.0)):
    total(values)
of_tensors = len(calls)
for values in (torch.arange(6.0).numpy(), torch.arange(6.0).numpy()):
    total(values)
print("same hash:", same, "calls for equal tensors:", of_tensors, "calls for equal arrays:", len(calls) - of_tensors)
assert not any(same.values()) and (of_tensors, len(calls) - of_tensors) == (2, 1), (same, calls)
PY
"$folder/venv/bin/python" "$folder/known.py" "$folder/cache"

#!/usr/bin/env bash
# nibabel 5.4.2: whole levels in a float volume, stored as int16, come back a hair off, and truncate to the level below.
#
# Expected: 0, 1, ... 16 fit into int16, so a volume of them, with set_data_dtype(np.int16), is stored as it is.
# Seen: an image of floats is stretched over nearly all of the integers' range (slope 0.000244, not 1), and get_fdata()
# gives fractions beside the levels: 8 of the 17 come back a hair too small, so that .astype(np.uint8), as one gets
# levels again, makes them the level below. The same as uint16 and as uint8. From an array of integers the levels come
# back whole. Round before the cast, or save integers.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'nibabel==5.4.2' 'numpy==2.4.6'

cat > "$folder/levels.py" <<'PY'
import sys

import nibabel
import numpy as np

levels = np.arange(17.0).reshape(17, 1, 1)


def stored(volume, kind):
    image = nibabel.Nifti1Image(volume, np.eye(4))
    image.set_data_dtype(kind)
    nibabel.save(image, sys.argv[1])
    return nibabel.load(sys.argv[1])


changed = {}
whole = levels.astype(np.int16)
for volume, kind in ((levels, np.int16), (levels, np.uint16), (levels, np.uint8), (whole, np.int16)):
    image = stored(volume, kind)
    back = image.get_fdata()
    name = f"{volume.dtype} as {kind.__name__}"
    changed[name] = int((back.astype(np.uint8) != levels).sum())
    print(
        f"{name}: slope {image.dataobj.slope:.6g}, 3 comes back as {float(back[3, 0, 0])!r}; "
        f"{changed[name]} of 17 levels are others after astype(uint8), {int((np.rint(back) != levels).sum())} after rint"
    )
    assert np.array_equal(np.rint(back), levels)
assert changed.pop("int16 as int16") == 0
assert set(changed.values()) == {8}, changed
PY
"$folder/venv/bin/python" "$folder/levels.py" "$folder/volume.nii.gz"

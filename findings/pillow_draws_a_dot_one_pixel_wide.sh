#!/usr/bin/env bash
# Pillow 13.0.0: ImageDraw.line draws a stroke of no length as one pixel, whatever its width, and one point not at all.
#
# Expected: a dot as wide as the strokes beside it, as a pen makes it, and SVG with round caps.
# Seen: with width 1 to 5, joint="curve" or not, a line from a point to itself is one pixel, and a line of one
# point nothing. In drawings kept as strokes (QuickDraw, Omniglot, handwriting) such strokes are the dots of i, of umlauts
# and of eyes: they all but vanish from the rendered images, and again where these are shrunk. Draw a circle for them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'pillow==13.0.0' 'numpy==2.4.6'

cat > "$folder/dots.py" <<'PY'
import numpy as np
from PIL import Image, ImageDraw


def ink(points, width, joint):
    image = Image.new("L", (17, 17))
    ImageDraw.Draw(image).line(points, fill=255, width=width, joint=joint)
    return int(np.count_nonzero(np.asarray(image)))


for joint in (None, "curve"):
    twice = [ink([(8, 8), (8, 8)], width, joint) for width in range(1, 6)]
    once = [ink([(8, 8)], width, joint) for width in range(1, 6)]
    long = [ink([(4, 8), (12, 8)], width, joint) for width in range(1, 6)]
    print(f"joint={joint}, width 1 to 5: pixels of a dot {twice}, of one point {once}, of a stroke {long}")
    assert twice == [1] * 5 and once == [0] * 5, (twice, once)
    assert long == [9, 18, 27, 36, 45], long
PY
"$folder/venv/bin/python" "$folder/dots.py"

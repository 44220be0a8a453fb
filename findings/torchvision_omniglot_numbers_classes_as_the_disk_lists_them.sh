#!/usr/bin/env bash
# torchvision 0.28.0: the class numbers of Omniglot follow the order in which the file system lists its folders.
#
# Expected: class 0 is the same character everywhere, as in torchvision's ImageFolder, which sorts.
# Seen: alphabets, characters and images are numbered as os.listdir gives them, in arbitrary order by Python's
# documentation: where the same files are listed the other way round, class 0 is another character. A split by class
# numbers, as learn2learn's benchmark makes it (the first 1,100 of the shuffled numbers 0 to 1,622), therefore has other
# test classes on another disk, with the same seed. Split by names: dataset._characters has them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet 'torch==2.13.0' 'numpy==2.4.6' 'pillow==13.0.0'
"$folder/venv/bin/python" -m pip install --quiet --no-deps 'torchvision==0.28.0'

cat > "$folder/classes.py" <<'PY'
import os
import sys
from pathlib import Path
from unittest import mock

import torch

try:
    import torchvision
except RuntimeError:  # torchvision as published beside a CPU build of torch: its operators are not needed here
    kept = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        kept.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [each for each in sys.modules if each.startswith("torchvision")]:
        del sys.modules[name]
    import torchvision
from PIL import Image
from torchvision.datasets import Omniglot

root = Path(sys.argv[1])
for number in range(6):
    character = root / "omniglot-py" / "images_background" / f"Alphabet{number // 3}" / f"character0{number % 3 + 1}"
    character.mkdir(parents=True)
    for drawing in range(2):
        Image.new("1", (105, 105), 1).save(character / f"{number}_{drawing}.png")


class Small(Omniglot):
    """Of six characters, so that the check for the published archive does not apply."""

    def _check_integrity(self):
        return True


def characters(backwards):
    """By their numbers, where the file system lists names in this order."""
    listed = os.listdir
    with mock.patch("os.listdir", lambda path: sorted(listed(path), reverse=backwards)):
        return Small(str(root), background=True)._characters


forwards, backwards = characters(False), characters(True)
print("listed forwards, class 0 is", forwards[0] + "; listed backwards,", backwards[0])
assert len(forwards) == 6 and backwards == forwards[::-1], (forwards, backwards)
PY
"$folder/venv/bin/python" "$folder/classes.py" "$folder/data"

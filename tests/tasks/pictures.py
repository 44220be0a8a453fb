"""Small folders of generated images for the tests of tasks over files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(path: Path, seed: int, width: int = 12, height: int = 12) -> None:
    """A PNG of noise that reaches from 0 to 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    Image.fromarray(pixels).save(path)


def make_folder(root: Path, sizes: Mapping[str, int], *, width: int = 12, height: int = 12) -> Path:
    """``sizes[class]`` images in each class folder under ``root``."""
    for number, (name, size) in enumerate(sizes.items()):
        for image in range(size):
            save_noise(root / name / f"{image:03}.png", 1000 * number + image, width, height)
    return root


def make_products(root: Path, sizes: Mapping[str, Mapping[int, int]]) -> Path:
    """Stanford Online Products' layout: ``sizes[kind][product]`` images, odd products to test on."""
    kinds = {kind: number + 1 for number, kind in enumerate(sizes)}
    lines = {"Ebay_train.txt": ["image_id class_id super_class_id path"]}
    lines["Ebay_test.txt"] = list(lines["Ebay_train.txt"])
    for kind, products in sizes.items():
        for product, count in products.items():
            for image in range(count):
                name = f"{kind}_final/{1000 + product}_{image}.JPG"
                save_noise(root / name, 100 * product + image)
                file = "Ebay_test.txt" if product % 2 else "Ebay_train.txt"
                lines[file].append(f"{len(lines[file])} {product} {kinds[kind]} {name}")
    for file, content in lines.items():
        (root / file).write_text("\n".join(content) + "\n")
    return root


def zipped(folder: Path, path: Path, top: str = "") -> Path:
    """The folder as a zip archive, under a folder ``top`` where one is named."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{top}/{file.relative_to(folder)}" if top else file.relative_to(folder))
    return path

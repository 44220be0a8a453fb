"""A likelihood as files: ``python -m experiments.compress with run=latest shots=4`` codes images, and decodes them.

Each file of ``codes/`` holds the queries of some tasks, entropy-coded with the model's conditionals given their
supports; it is read back and compared pixel for pixel. Its length is that of the file on the disk, in bits.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sacred.run import Run
from torch import Tensor

from experiments.ingredients.evaluation import place_settings
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes
from experiments.ingredients.task import task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.lineage import record_use
from experiments.recording.run_folder import folder_of
from experiments.recording.trained_model import find_model, require_models
from experiments.reporting.tables import Section
from metadensity import Episode, FewShotModel
from metadensity.coding import CHECKSUM_BITS, MOST_CONSTANT_BITS, decode, encode_measured
from metadensity.files import write_atomically
from metadensity.progress import progress_bar

_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)

experiment = make_experiment("compress", named_configs={"fast": {"limit": 3}})
experiment.config(place_settings)
experiment.check(require_models)


@experiment.config
def _defaults() -> None:
    run = "latest"  # a run's path or number, "latest", a shipped model's name, or a file
    split = "test"
    shots = 4
    queries = None  # of each task; None: 4, or what the classes allow
    limit = 40  # at most so many tasks, spread over the classes; None: every image once
    tasks_per_file = 8
    device = "cpu"
    seed = 0  # of the supports
    progress = True


@dataclass(frozen=True)
class Coded:
    """A file of codes. information: -log2 of the probability of its images; bits: the length of the file.

    symbols: what the pixels took of it; the rest is constant, the checksum and the coder's end.
    """

    images: int
    bits: int
    information: float
    symbols: float
    raw: float
    png: int
    xz: int
    encode_seconds: float
    decode_seconds: float


@experiment.main
def compress(
    run: str,
    split: str,
    shots: int,
    queries: int | None,
    limit: int | None,
    tasks_per_file: int,
    device: str,
    seed: int,
    progress: bool,
    data_root: str | None,
    folder: str | None,
    _run: Run,
) -> dict[str, Any]:
    """Code the queries of episodes, decode them, compare; print the lengths, write the codes, JSON and Markdown."""
    output, subject = folder_of(_run), find_model(run)
    config, model = subject.config(), subject.model(device)
    task = task_of(subject, split, data_root, folder)
    words = task.medium.words
    if (lengths := task.episode(0, 1, 0, 1).query_lengths) is not None and getattr(task, "end", None) is None:
        raise ValueError(
            f"The {words.nouns} of {task.name} have lengths of their own, {int(lengths)} places of "
            f"{task.event_shape[-1]} for example, and a code is of all places. Compress a run on {words.nouns} of one "
            "length."
        )
    chosen = choose_episodes(task, None, [shots], queries, 1, limit, seed, 1000 if limit is None else limit)
    episodes = list(EpisodeBatches(chosen, task, [shots], tasks_per_file))
    record_use(_run, output, "compressed", [subject], chosen.hash)
    (output / "codes").mkdir()
    files = []
    with progress_bar(
        "coding and decoding", 2 * sum(each.query.numel() for each in episodes), "pixels", progress
    ) as bar:
        for number, episode in enumerate(episodes):
            files.append(code_file(model, episode.to(device), output / "codes" / f"{number:04}.bin", bar.update))
    total = {each.name: sum(getattr(file, each.name) for file in files) for each in fields(Coded)}
    images, dims = total["images"], sum(int(each.query_sizes.sum()) for each in episodes)
    excess = total["bits"] - total["information"]
    constant = (total["bits"] - total["symbols"]) / len(files)
    rounding = (total["symbols"] - total["information"]) / images / math.prod(task.event_shape)
    rows = [
        [name, f"{total[key] / images:.2f}", f"{total[key] / dims:.4f}"]
        for name, key in {
            f"{config['model']['name']}, -log2 p": "information",
            f"{config['model']['name']}, its files": "bits",
            "xz, a file each": "xz",
            f"PNG, {words.one} each": "png",
            "levels as they are": "raw",
        }.items()
    ]
    notes = [
        f"Decoded, all {images} {words.nouns} are equal to the originals, level for level.",
        f"The files have {excess / len(files):.1f} bits more than -log2 p in the mean. Of these {constant:.1f} a file "
        f"are constant ({CHECKSUM_BITS} of checksum, up to {MOST_CONSTANT_BITS - CHECKSUM_BITS} for the coder's end), "
        f"and {rounding:.5f} for each channel of a pixel are for rounding. Lengths are those of the files on the disk.",
        f"Coding took {total['encode_seconds']:.1f} s, decoding {total['decode_seconds']:.1f} s; "
        f"{torch.get_num_threads()} threads, {device}.",
    ]
    title = (
        f"{config['model']['name']} ({subject.title}) on {task.name}, {split}, {shots} shots: {images} "
        f"{words.nouns} in {len(files)} files"
    )
    section = Section(title, ["code", f"bits/{words.noun}", words.bits_per_dim], rows, notes)
    print("\n" + section.plain())
    result = {
        "run": str(subject.path),
        "weights_sha256": model.provenance["weights_sha256"],
        "task": config["task"],
        "split": split,
        "shots": shots,
        "episodes_sha256": chosen.hash,
        "bits_per_image": total["bits"] / images,
        "images": images,
        "words": words.record(),
        "event_shape": list(task.event_shape),
        "files": [vars(file) for file in files],
        "excess_bits_per_file": excess / len(files),
        "constant_bits_per_file": constant,
        "rounding_bits_per_symbol": rounding,
        "threads": torch.get_num_threads(),
        "folder": str(output),
    }
    write_atomically(output / "compression.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_atomically(output / "compression.md", section.markdown().encode())
    return result


def code_file(
    model: FewShotModel, episode: Episode, path: Path, report: Callable[[int], object] | None = None
) -> Coded:
    """Write the code of an episode's queries, read it, decode it with a density made anew, and compare.

    report: told how many pixels were coded or decoded, each time that some were.
    Raises RuntimeError where they differ, and TypeError for models whose density goes through no image pixel by pixel.
    """
    began = time.perf_counter()
    code, symbols = encode_measured(model(episode.support), episode.query, report)
    write_atomically(path, code)
    between = time.perf_counter()
    stored = path.read_bytes()
    decoded = decode(model(episode.support), stored, episode.query.shape[:1], report)
    ended = time.perf_counter()
    if not torch.equal(decoded, episode.query.long()):
        raise RuntimeError(f"{path} decodes to other images than were coded. Please report it.")
    with torch.no_grad():
        nats = -float(model(episode.support).log_prob(episode.query).double().sum())
    levels = model.levels
    return Coded(
        images=episode.query.shape[:2].numel(),
        bits=8 * len(stored),
        information=nats / math.log(2),
        symbols=symbols,
        raw=episode.query.numel() * math.log2(levels),
        png=sum(8 * len(as_png(image, levels)) for image in episode.query.flatten(0, 1)),
        xz=8 * len(lzma.compress(packed(episode.query, levels), preset=9 | lzma.PRESET_EXTREME)),
        encode_seconds=between - began,
        decode_seconds=ended - between,
    )


def packed(images: Tensor, levels: int) -> bytes:
    """Pixels one after another: a bit each of two levels, else a byte, or two of more than 256."""
    pixels = images.cpu().numpy()
    if levels == 2:
        return np.packbits(pixels.astype(bool)).tobytes()
    return pixels.astype(np.uint8 if levels <= 256 else np.uint16).tobytes()


def as_png(image: Tensor, levels: int) -> bytes:
    """An image ``(C, H, W)`` as the smallest PNG that deflate makes of it; other shapes as a row of grey pixels.

    Pillow's ``optimize=True`` takes one strategy: its files of drawings of Omniglot at 26x26 are 5 % larger.
    """
    pixels: NDArray[Any] = image.cpu().numpy()
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        pixels = pixels.reshape(1, 1, -1)
    shown = pixels.transpose(1, 2, 0).squeeze(-1) if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    if levels == 2 and shown.ndim == 2:
        picture = Image.fromarray(shown.astype(np.uint8) * 255).convert("1")
    else:
        picture = Image.fromarray(shown.astype(np.uint8 if levels <= 256 else np.uint16))
    return min((_written(picture, strategy) for strategy in _STRATEGIES), key=len)


def _written(picture: Image.Image, strategy: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=zlib.Z_BEST_COMPRESSION, compress_type=strategy)
    return file.getvalue()


if __name__ == "__main__":
    main(experiment)

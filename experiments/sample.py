"""Draw from a trained run, support beside samples: ``python -m experiments.sample with run=latest``."""

from __future__ import annotations

import time
from typing import Any

from sacred.run import Run

from experiments.command_line import main, make_experiment
from experiments.ingredients import build_task
from experiments.pictures import draw_samples, save_picture, support_beside_samples
from experiments.run_folder import RunFolder, folder_of
from metadensity.files import write_tensors

experiment = make_experiment("sample", named_configs={"fast": {"tasks": 2, "shots": 1, "samples": 2}})


@experiment.config
def _defaults() -> None:
    run = "latest"  # noqa: F841  a run's path, its number in runs/, or "latest"
    split = "test"  # noqa: F841
    tasks = 10  # noqa: F841  how many classes
    shots = 4  # noqa: F841
    samples = 8  # noqa: F841  of each class
    index = 0  # noqa: F841  which episode
    device = "cpu"  # noqa: F841
    seed = 0  # noqa: F841  of the samples


@experiment.main
def sample(
    run: str, split: str, tasks: int, shots: int, samples: int, index: int, device: str, seed: int, _run: Run
) -> dict[str, Any]:
    """Draw samples, write them as a PNG and as tensors. Returns the paths and the time a sample took."""
    folder, subject = folder_of(_run), RunFolder.find(run)
    source = build_task(subject.config()["task"], split)
    episode = source.episode(index, tasks=tasks, shots=shots, queries=1)
    model = subject.model(device)
    began = time.perf_counter()
    drawn = draw_samples(model, episode, samples, seed)
    seconds = time.perf_counter() - began
    picture = save_picture(support_beside_samples(episode.support, drawn, source.levels), folder / "samples.png")
    provenance = {"run": str(subject.path), "weights_sha256": model.provenance["weights_sha256"], "seed": seed}
    write_tensors(folder / "samples.safetensors", {"support": episode.support, "samples": drawn}, provenance)
    print(f"{tasks * samples} samples in {seconds:.1f} s, support beside them: {picture}")
    return {
        **provenance,
        "picture": str(picture),
        "tensors": str(folder / "samples.safetensors"),
        "samples": tasks * samples,
        "seconds": seconds,
        "folder": str(folder),
    }


if __name__ == "__main__":
    main(experiment)

"""Draw from a trained run, support beside samples: ``python -m experiments.sample with run=latest``.

Written are tensors, and what the medium of the task has: a picture, a WAV file of each recording, a text of strings.

Or complete images of the classes: ``with run=latest observed=top``. What comes first in the order in which the model
draws is completed exactly: ``top`` for most, ``small`` (every second pixel, so the image is enlarged) for multiscale;
anything else takes ``approximate=True``, and is. Of a sequence ``top`` is the first half of its own length, and
``observed=400`` its first 400 places; of a pair of strings ``given`` is the source. Each image has a seed of its own,
and they are drawn some at a time: interrupted, the run writes those that are finished.

``against="['runs/7']"`` draws from further runs as well, given the same supports with the same seeds; ``pixels=3``
shows where so many pixels of each query look in the supports.

``support=my_drawings`` takes examples of yours in place of a class: a folder of images of any size, paper and pen (one
file, a list of files, arrays in an .npy or .npz); WAV files where the model is one of speech, a text of a string a line
where it is one of strings. What was done to them is said, and each is scored given the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sacred.run import Run
from torch import Tensor

from experiments.figures.attention_maps import pixel_picture
from experiments.figures.images import save_picture
from experiments.figures.own_examples import own_picture
from experiments.figures.shown import Events, Written, events_of, titles_of, write
from experiments.ingredients import read_config
from experiments.ingredients.episode_counts import default_episode_sizes
from experiments.ingredients.evaluation import place_settings
from experiments.ingredients.task import require_same_data, task_of
from experiments.recording.command_line import main, make_experiment
from experiments.recording.comparability import require_same_pixels
from experiments.recording.lineage import record_use
from experiments.recording.run_folder import folder_of
from experiments.recording.trained_model import find_model, require_models
from experiments.reporting.own_scores import score_own
from metadensity import Density, Episode, FewShotModel
from metadensity.checks import is_whole, real_places, require_count
from metadensity.densities.completion import Part, complete_in_parts, observe, seeds_of
from metadensity.densities.independent import IndependentDensity
from metadensity.density import SequentialDensity
from metadensity.files import content_hash, write_tensors
from tasks import TaskDistribution
from tasks.media import Words
from tasks.own import OwnSupport, own_support

SHOTS = (0, 1, 2, 3, 4)  # the most of these that the classes allow
OBSERVED = ("top", "left", "small", "given")

experiment = make_experiment("sample", named_configs={"fast": {"tasks": 2, "shots": 1, "samples": 2}})
experiment.config(place_settings)
experiment.check(require_models)


@experiment.config
def _defaults() -> None:
    run = "latest"  # a run's path or number, "latest", a shipped model's name, or a file
    against = list[str]()  # others, whose samples stand beside the first one's
    support = None  # examples of yours: a folder, a file, a list of files; split, tasks, shots, index and more are void
    fit = None  # of them: "box" or "whole", of drawings; "crop" or "stretch", of other images; None: as in training
    pen = True  # of drawings of yours: whether strokes become as wide as those of the training
    split = "test"
    tasks = 10  # how many classes
    shots = None  # None: 4, or what the classes allow
    samples = 8  # of each class
    index = 0  # which episode
    pixels = 0  # of each query: so many, and where they look in the supports, as a second picture
    temperature = 1.0  # what logits are divided by; 1 draws from the density itself
    observed = None  # complete each class's query from its "top" or "left" half, a "small" image, or so many places
    approximate = False  # allow what is not exact: each pixel is drawn given those before it alone
    images_at_once = 64  # what is drawn together, and lost together where a run is interrupted
    device = "cpu"
    seed = 0  # of the samples
    progress = True  # whether bars are shown


@experiment.main
def sample(
    run: str,
    against: list[str],
    support: str | list[str] | None,
    fit: str | None,
    pen: bool,
    split: str,
    tasks: int,
    shots: int | None,
    samples: int,
    index: int,
    pixels: int,
    temperature: float,
    observed: str | int | None,
    approximate: bool,
    images_at_once: int,
    device: str,
    seed: int,
    progress: bool,
    data_root: str | None,
    folder: str | None,
    _run: Run,
) -> dict[str, Any]:
    """Draw samples, write them as tensors and as they are seen, heard or read. Returns the paths and the time it took.

    Of an interrupted run the samples that are finished are written, and the interruption goes on.
    """
    output, subject = folder_of(_run), find_model(run)
    if support is not None:
        void = {"against": against or None, "observed": observed, "pixels": pixels or None}
        if named := [f"{name}={value!r}" for name, value in void.items() if value is not None]:
            raise ValueError(f"{named[0]} with support={support!r}: examples of your own have none; leave it out.")
        model = subject.model(device)
        own = own_support(support, model, fit=fit, pen=pen)
        digest = content_hash({"support": own.support})
        record_use(_run, output, "sampled", [subject], digest)
        count = require_count("samples", samples, 1)
        drawing = {"temperature": temperature, "images_at_once": images_at_once, "progress": progress}
        found = _sample_own(model, own, count, seed, {**drawing, "approximate": approximate}, output)
        return {"run": str(subject.path), "weights_sha256": model.provenance["weights_sha256"], **found}
    others = [find_model(other) for other in against]
    for name, count in (("tasks", tasks), ("samples", samples), ("images_at_once", images_at_once)):
        require_count(name, count, 1)
    source = task_of(subject, split, data_root, folder)
    for other in others:
        require_same_pixels(read_config(subject.config()), read_config(other.config()))
        require_same_data(other, source)
    shots = default_episode_sizes(source, None, 1, SHOTS)[0][-1] if shots is None else shots
    episode = source.episode(index, tasks=tasks, shots=shots, queries=1)
    models = [found.model(device) for found in (subject, *others)]
    digest = content_hash({"support": episode.support, "query": episode.query})
    record_use(_run, output, "sampled", [subject, *others], digest)
    provenance = {
        "run": str(subject.path),
        "weights_sha256": models[0].provenance["weights_sha256"],
        "against": [str(other.path) for other in others],
        "seed": seed,
    }
    how = {"temperature": temperature, "observed": observed, "approximate": approximate}
    known = None if observed is None else observe(episode.query, part_of(observed, episode, source))
    began = time.perf_counter()
    options = {"approximate": approximate, "temperature": temperature, "images_at_once": images_at_once}
    finished: list[list[Tensor]] = []
    try:
        for model in models:
            with torch.no_grad():
                lengths = episode.support_lengths
                density = model(episode.support.to(device), None if lengths is None else lengths.to(device))
            finished.append([])
            for part in _parts(density, samples, seed, known, progress=progress, **options):
                finished[-1].append(part.images.cpu())
    finally:
        drawn = [torch.cat(parts) for parts in finished if parts]
        if drawn:
            tensors, shown = _write(output, episode, drawn, known is not None, source, provenance | how)
    seconds = time.perf_counter() - began
    if shown.text is not None:
        print(f"\n{shown.text.read_text()}")
    where = shown.sounds or shown.picture or shown.text or tensors
    print(f"{tasks * samples * len(models)} samples in {seconds:.1f} s, support beside them: {where}")
    attended = None
    if pixels and (looking := pixel_picture(models[0], episode, pixels, source.ink)) is not None:
        attended = str(save_picture(looking, output / "attention.png"))
        print(f"Where {pixels} pixels of each query look: {attended}")
    return {
        **provenance,
        **how,
        **shown.record(),
        "words": source.medium.words.record(),
        "tensors": str(tensors),
        "attention": attended,
        "samples": tasks * samples * len(models),
        "seconds": seconds,
        "folder": str(output),
    }


def _sample_own(
    model: FewShotModel,
    own: OwnSupport,
    samples: int,
    seed: int,
    how: Mapping[str, Any],
    output: Path,
) -> dict[str, Any]:
    """Score examples of one's own, each given the others, and draw given all of them; print and write both."""
    words = own.medium.words
    title = f"your {_counted(len(own), words)}"
    print(f"\nY{title[1:]}, as the model sees {'it' if len(own) == 1 else 'them'}:")
    print("\n".join(f"- {note}" for note in own.notes))
    began = time.perf_counter()
    scores = score_own(model, own, seed)
    print(f"\n{scores.table(words)}\n")
    episode, device = own.episode(), next(model.parameters()).device
    lengths = episode.support_lengths
    with torch.no_grad():
        density = model(episode.support.to(device), None if lengths is None else lengths.to(device))
    finished: list[Tensor] = []
    stored = output / "samples.safetensors"
    try:
        finished.extend(part.images.cpu() for part in _parts(density, samples, seed, None, **how))
    finally:
        if finished:
            drawn = torch.cat(finished)
            write_tensors(stored, {"support": own.support, "samples": drawn}, {"seed": seed, "notes": own.notes})
            if own.originals:
                picture = own_picture(own, drawn, scores.captions(), title)
                shown = Written(save_picture(picture, output / "samples.png", 1), None, None)
            else:
                events = [Events("support", own.support, own.lengths), Events("sample", drawn, block=1)]
                shown = write(output, "samples", own.medium, events, [title])
    seconds = time.perf_counter() - began
    if shown.text is not None:
        print(shown.text.read_text())
    where = shown.sounds or shown.picture or shown.text or stored
    print(f"{samples * density.tasks} samples in {seconds:.1f} s, what they were given beside them: {where}")
    return {
        "seed": seed,
        **scores.record(),
        "notes": own.notes,
        **shown.record(),
        "words": words.record(),
        "tensors": str(stored),
        "samples": samples * density.tasks,
        "seconds": seconds,
        "folder": str(output),
    }


def _counted(count: int, words: Words) -> str:
    return f"{count} {words.noun if count == 1 else words.nouns}"


def part_of(observed: str | int, episode: Episode, task: TaskDistribution | None = None) -> Tensor:
    """Where each query is observed, bool, of a shape that broadcasts to ``(queries, tasks, C, *space)``.

    "top", "left": the first half of its first or of its last dimension, of a sequence that of its real places; "small":
    every second pixel of each. A number, of sequences: so many of the first places, as far as they are real. "given":
    what ``task`` says is given, of pairs the source. Raises ValueError for another name or number, and for "given" of a
    task without such a part.
    """
    sequence, last = len(episode.event_shape) == 2, episode.event_shape[-1]
    if observed not in OBSERVED and not (sequence and is_whole(observed) and 1 <= int(observed) < last):
        more = f", a number of places from 1 to {last - 1}" if sequence else ""
        raise ValueError(
            f"observed={observed!r}; choose 'top' (exact but for multiscale), 'small' (every second pixel; exact for "
            f"multiscale), 'left' (approximate), 'given' (of pairs, the source){more}, or None for samples."
        )
    if observed == "given":
        given = None if task is None else task.given(episode.query)
        if given is None:
            name = "this task" if task is None else task.name
            raise ValueError(f"observed='given', but the queries of {name} are no pairs of a source and a target.")
        return real_places(given, last).unsqueeze(2)
    if sequence and observed != "small":
        lengths = episode.query_lengths
        lengths = torch.full((episode.queries, episode.tasks), last) if lengths is None else lengths
        first = lengths // 2 if isinstance(observed, str) else lengths.clamp(max=observed)
        return real_places(first, last).unsqueeze(2)
    mask = torch.zeros(episode.event_shape, dtype=torch.bool)
    if observed == "small":
        every_second: Any = (..., *(slice(None, None, 2) for _ in mask.shape[1:]))
        mask[every_second] = True
    else:
        dim = 1 if observed == "top" else -1
        mask.narrow(dim, 0, mask.shape[dim] // 2).fill_(True)
    return mask


def _parts(density: Density, samples: int, seed: int, known: Tensor | None, **options: Any) -> Iterator[Part]:
    """Some samples at a time; all at once from a density that draws its pixels in no order."""
    alone = isinstance(density, SequentialDensity | IndependentDensity)
    if alone or known is not None or options["temperature"] != 1:
        yield from complete_in_parts(density, seeds_of(seed, samples, density.tasks), known, **options)
    else:
        yield Part(0, samples, density.sample((samples,), torch.Generator().manual_seed(seed)))


def _write(
    folder: Path,
    episode: Episode,
    drawn: Sequence[Tensor],
    completed: bool,
    task: TaskDistribution,
    provenance: dict[str, Any],
) -> tuple[Path, Written]:
    """The tensors, and what is seen; beside completions the whole query comes first, right of the line."""
    first, *others = drawn
    tensors = {"support": episode.support, "samples": first} | ({"query": episode.query} if completed else {})
    tensors |= {f"against_{number}": other for number, other in enumerate(others)}
    stored = folder / "samples.safetensors"
    write_tensors(stored, tensors, provenance)
    shown = events_of(episode, drawn, completed)
    return stored, write(folder, "samples", task.medium, shown, titles_of(episode, task))


if __name__ == "__main__":
    main(experiment)

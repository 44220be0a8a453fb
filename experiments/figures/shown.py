"""Events of any task as files and in TensorBoard: seen, heard or read, as the medium of the task says.

What is seen stands in one grid, a row a task: supports, a line, samples. What is heard is a WAV file an event, what is
read one text, in which each string stands as JSON has it, so that it can be told where it ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.figures.images import gif, save_picture, support_beside_samples
from metadensity import Episode
from metadensity.files import write_atomically
from tasks import TaskDistribution
from tasks.media import Medium, Picture
from tasks.speech.sound_files import wav

_STRING = re.compile(r"  (\S+(?: \S+)*?) +(\".*\")")

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class Events:
    """Events ``(N, tasks, C, *space)`` of a kind. name: "support", say. lengths: ``(N, tasks)``, of sequences.

    block: those of one block stand side by side in the grid, in their order; None: they are in no picture, only heard
    or read.
    """

    name: str
    pixels: Tensor
    lengths: Tensor | None = None
    block: int | None = 0

    def __iter__(self) -> Iterator[list[tuple[Tensor, int | None]]]:
        """For each of the N, the event and its length of every task."""
        for number, row in enumerate(self.pixels.cpu()):
            lengths = [None] * len(row) if self.lengths is None else self.lengths[number].tolist()
            yield list(zip(row, lengths, strict=True))


@dataclass(frozen=True)
class Written:
    """The files: a PNG, a folder of WAV files, a text, an animated GIF; None for what the medium has not."""

    picture: Path | None
    sounds: Path | None
    text: Path | None
    film: Path | None = None

    def record(self) -> dict[str, str | None]:
        """The paths as JSON values."""
        return {name: None if path is None else str(path) for name, path in vars(self).items()}


def events_of(episode: Episode, samples: Sequence[Tensor], completed: bool = False) -> list[Events]:
    """Supports, queries and the samples of one model after another, each ``(N, tasks, C, *space)``.

    completed: whether samples are completions of the queries, which then stand before them.
    """
    first, *others = samples
    return [
        Events("support", episode.support, episode.support_lengths),
        Events("query", episode.query, episode.query_lengths, 1 if completed else None),
        Events("completion" if completed else "sample", first, block=1),
        *(Events(f"against {number}", other, block=2 + number) for number, other in enumerate(others)),
    ]


def titles_of(episode: Episode, task: TaskDistribution) -> list[str]:
    """What each task of an episode is called: its class, or its number where there are no classes."""
    if episode.class_ids is None:
        return [f"task {number}" for number in range(episode.tasks)]
    return [task.class_names[number] for number in episode.class_ids.tolist()]


def grid(medium: Medium, events: Sequence[Events]) -> NDArray[np.uint8] | None:
    """All of them as one picture ``(H, W, 3)``; None where the medium has none."""
    return _grid(medium.picture, events)


def films(medium: Medium, events: Sequence[Events]) -> NDArray[np.uint8] | None:
    """All of them in motion in one grid, pictures ``(frames, H, W, 3)``; None where the medium has no films."""
    first = next((row[0][0] for kind in events for row in kind if row), None)
    whole = None if first is None else medium.film(first)
    if whole is None:
        return None

    def moment(frame: int) -> NDArray[np.uint8] | None:
        def at(event: Tensor, length: int | None) -> Picture | None:
            film = medium.film(event)
            return None if film is None else film[frame]

        return _grid(at, events)

    found = [moment(frame) for frame in range(len(whole))]
    return np.stack([each for each in found if each is not None]) if any(each is not None for each in found) else None


def _grid(picture: Callable[[Tensor, int | None], Picture | None], events: Sequence[Events]) -> Picture | None:
    blocks: dict[int, list[Tensor]] = {}
    for kind in events:
        for row in kind if kind.block is not None else ():
            seen = [picture(event, length) for event, length in row]
            shown = [torch.from_numpy(each).permute(2, 0, 1) for each in seen if each is not None]
            if len(shown) < len(seen):
                return None
            blocks.setdefault(kind.block or 0, []).append(torch.stack(shown))
    if not blocks:
        return None
    none = torch.zeros(0, *next(iter(blocks.values()))[0].shape, dtype=torch.uint8)
    support, samples, *others = (
        torch.stack(blocks[number]) if number in blocks else none for number in range(max(2, 1 + max(blocks)))
    )
    return support_beside_samples(support, samples, 256, others)


def sounds(medium: Medium, events: Sequence[Events]) -> Iterator[tuple[str, NDArray[np.float64], int]]:
    """Each that is heard: its name, such as "00 support 0" of the first task, its samples, and their rate."""
    for kind in events:
        for number, row in enumerate(kind):
            for task, (event, length) in enumerate(row):
                if (heard := medium.sound(event, length)) is not None:
                    yield f"{task:02} {kind.name} {number}", *heard


def texts(medium: Medium, events: Sequence[Events]) -> list[list[tuple[str, str]]]:
    """For each task the kind and the string of each event, in order; no task where the medium has no strings."""
    found: list[list[tuple[str, str]]] = []
    for kind in events:
        for row in kind:
            read = [medium.text(event, length) for event, length in row]
            found = found or [[] for _ in row]
            for lines, string in zip(found, read, strict=True):
                if string is not None:
                    lines.append((kind.name, string))
    return found if any(found) else []


def as_text(medium: Medium, events: Sequence[Events], titles: Sequence[str]) -> str:
    """The strings of all tasks, each on a line of its own below the title of its task; "" where there are none."""
    parts = []
    for title, lines in zip(titles, texts(medium, events), strict=False):
        wide = max(len(name) for name, _ in lines)
        said = [f"  {name:{wide}}  {json.dumps(string, ensure_ascii=False)}" for name, string in lines]
        parts.append("\n".join([title, *said]))
    return "\n\n".join(parts) + "\n" if parts else ""


def parse_text(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """What ``as_text`` wrote: for each task its title, and the kind and the string of each event, in order."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in text.split("\n"):
        if match := _STRING.fullmatch(line):
            found[-1][1].append((match[1], json.loads(match[2])))
        elif line:
            found.append((line, []))
    return found


def write(folder: Path, stem: str, medium: Medium, events: Sequence[Events], titles: Sequence[str]) -> Written:
    """``stem.png``, the folder ``stem`` of WAV files, ``stem.txt`` and ``stem.gif``, as far as the medium has them."""
    picture, text = grid(medium, events), as_text(medium, events, titles)
    heard = None
    for name, samples, rate in sounds(medium, events):
        heard = folder / stem
        heard.mkdir(parents=True, exist_ok=True)
        write_atomically(heard / f"{name.replace(' ', '-')}.wav", wav(samples, rate))
    read = folder / f"{stem}.txt"
    if text:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(read, text.encode())
    seen = None if picture is None else save_picture(picture, folder / f"{stem}.png", medium.zoom)
    moving, film = films(medium, events), folder / f"{stem}.gif"
    if moving is not None:
        write_atomically(film, gif(moving, medium.zoom))
    return Written(seen, heard, read if text else None, None if moving is None else film)


def add_video(writer: SummaryWriter, tag: str, film: NDArray[np.uint8], zoom: int, step: int) -> None:
    """Pictures ``(frames, H, W, 3)`` as a video. What torch's ``add_video`` writes, which needs moviepy for the GIF."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    _, height, width, _ = film.shape
    image = Summary.Image(height=height * zoom, width=width * zoom, colorspace=3, encoded_image_string=gif(film, zoom))
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def add_to_tensorboard(
    writer: SummaryWriter, tag: str, medium: Medium, events: Sequence[Events], titles: Sequence[str], step: int
) -> None:
    """The same as an image, as a video, as audio of a tag each, and as text."""
    if (picture := grid(medium, events)) is not None:
        writer.add_image(tag, picture, step, dataformats="HWC")
    if (moving := films(medium, events)) is not None:
        add_video(writer, f"{tag}, in motion", moving, medium.zoom, step)
    for name, samples, rate in sounds(medium, events):
        if len(samples) > 1:  # torch takes no sound of one sample
            writer.add_audio(f"{tag}/{name}", samples[None], step, rate)
    if text := as_text(medium, events, titles):
        writer.add_text(tag, "".join(f"    {line}\n" for line in text.rstrip("\n").split("\n")), step)

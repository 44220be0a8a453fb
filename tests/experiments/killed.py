"""Training that is killed at a given moment, in forks of one process, as imports are slow: ``killed.py RUNS MOMENTS``.

MOMENTS: "EVENT:NUMBER ...". At the NUMBER-th write the process kills itself, half way ("half"), before the file is
renamed ("before"), after it was ("after"), or with half a line of metrics on the disk ("line"). Each killed run is
killed once more in its second life, at the write after the next, and then goes on to its end. Prints a line of JSON for
each: the folder of the last run of the chain, or the error where nothing could be resumed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver

from experiments import train
from metadensity import files

SETTINGS: dict[str, Any] = {
    "task": {"size": 8},
    "training": {"steps": 6, "validate_every": 2, "checkpoint_every": 3, "log_every": 2},
    "progress": False,
}


def run(runs: Path, **more: Any) -> Path:
    """Train, recorded in ``runs``."""
    train.experiment.observers[:] = [FileStorageObserver(str(runs))]
    named = ["hershey", "conditional", "fast"]
    return Path(train.experiment.run(named_configs=named, config_updates={**SETTINGS, **more}).result["folder"])


def die() -> None:
    """As the kernel kills: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(event: str, number: int) -> None:
    """Make this process kill itself at a moment."""
    left, fdopen, replace, append = [number], os.fdopen, os.replace, files.JsonLines.append

    def now(kind: str) -> bool:
        if kind == event:
            left[0] -= 1
        return kind == event and left[0] < 0

    def opened(descriptor: int, *arguments: Any, **options: Any) -> Any:
        file = fdopen(descriptor, *arguments, **options)
        if not (arguments and arguments[0] == "wb" and now("half")):
            return file

        class Half:
            def __enter__(self) -> Half:
                return self

            def __exit__(self, *_: Any) -> None: ...

            def write(self, data: bytes) -> None:
                file.write(data[: len(data) // 2])
                file.flush()
                die()

        return Half()

    def renamed(*arguments: Any) -> None:
        if now("before"):
            die()
        replace(*arguments)
        if now("after"):
            die()

    def line(self: files.JsonLines, record: Any) -> None:
        if now("line"):
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode()[:9])
            die()
        append(self, record)

    os.fdopen, os.replace, files.JsonLines.append = opened, renamed, line  # type: ignore


def forked(runs: Path, moment: tuple[str, int] | None, resume: str | None) -> tuple[bool, str]:
    """Train in a fork: whether it was killed, and else its last words."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        if moment is not None:
            arm(*moment)
        try:
            said = str(run(runs, resume=resume))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = b"".join(iter(lambda: os.read(read, 65536), b"")).decode()
    os.close(read)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), said


def newest(runs: Path) -> str:
    """The newest run folder."""
    return str(max((path for path in runs.glob("[0-9]*")), key=lambda path: int(path.name)))


def main() -> None:
    """Go through the moments."""
    runs = Path(sys.argv[1])
    run(runs / "warm")  # glyphs are drawn and the machine is described once, for all forks
    for text in sys.argv[2:]:
        event, number = text.split(":")
        here = runs / text.replace(":", "-")
        killed, said = forked(here, (event, int(number)), None)
        lives = 1
        if killed:
            again, said = forked(here, (event, int(number) // 2 + 2), newest(here))
            lives += 1
            if again:
                lives += 1
                resumable = list(Path(newest(here)).glob("checkpoints/state-*"))
                _, said = forked(here, None, newest(here) if resumable else str(here / "1"))
        print(json.dumps({"moment": text, "killed": killed, "lives": lives, "said": said}), flush=True)


if __name__ == "__main__":
    main()

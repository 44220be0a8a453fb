"""One of several equal processes, which torchrun or srun started: they share the work, and the first one has the run.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m experiments.train with ... training.parts=2
    srun -n 4 python -m experiments.train with ... training.parts=4

The others have no run folder and no observers, and say nothing but what goes wrong.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from experiments.recording.settings import SettingError
from metadensity.processes import current, joined

STOPPED = 75  # EX_TEMPFAIL: stopped with its state saved, to be gone on with
_IN_STEP = {0, STOPPED, 130, 143}  # how a process ends when all of them do


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The number of this process and how many there are, by torchrun's variables or by those of a step of srun."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank == "RANK" and "LOCAL_RANK" not in environment:  # set by others, for reasons of their own
            continue
        if environment.get(size, "1").isdigit() and int(environment.get(size, "1")) > 1:
            return int(environment.get(rank, "0")), int(environment[size])
    return 0, 1


@contextmanager
def launched(shares: bool, of: str) -> Iterator[None]:
    """Within this, the processes that were started together share what the library computes.

    shares: whether the program ``of`` can. Ends the process itself where there are several: gloo would abort some of
    them after all is done. Raises SettingError for several processes of a program that does all of the work in each.
    """
    rank, size = place()
    if size == 1:
        yield
        return
    if not shares:
        raise SettingError(
            f"This is one of {size} processes that torchrun or srun started, and each would do all of the same work: "
            f"{of} runs in one process. Start one, with python -m. Several share train, evaluate and classify."
        )
    if "LOCAL_RANK" not in os.environ:
        _meet_by_slurm()
    status: int | str | None = 0
    own = own_folder_of(rank)
    with joined(rank, size), _quiet(rank > 0):
        try:
            yield
        except SystemExit as error:
            status = error.code
        if (status or 0) not in _IN_STEP:  # the others may wait for this one, which does not come
            _leave(status, own)
    _leave(status, own)


def own_folder() -> Path | None:
    """Where this process writes what only the first one's run is to have; None for the first."""
    return own_folder_of(current().rank)


def own_folder_of(rank: int) -> Path | None:
    """The same of the process with this number."""
    return Path(tempfile.gettempdir()) / f"metadensity-process-{rank}-{os.getpid()}" if rank else None


def require_equal(what: Mapping[str, Any]) -> None:
    """Raise SettingError where the processes differ in any of this, which would train silently wrong; JSON values."""
    said = current().values(dict(what))
    for rank, other in enumerate(said):
        for name, value in other.items():
            if value != said[0][name]:
                raise SettingError(
                    f"Process {rank} has {name}={value!r}, and the first {said[0][name]!r}. Give all of them the same "
                    "settings and the same data."
                )


def _meet_by_slurm() -> None:
    """Set where the first process of a step of srun listens, unless it is set."""
    if "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_STEP_NODELIST", "localhost")
        try:
            names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SettingError(
                f"The first of the nodes {nodes} cannot be asked for ({error}). Set MASTER_ADDR to its address."
            ) from None
        os.environ["MASTER_ADDR"] = names.stdout.split()[0]
    job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    os.environ.setdefault("MASTER_PORT", str(20000 + (97 * job + step) % 20000))


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        logging.disable(logging.WARNING)  # what there is to say the first process says
        yield


def _leave(status: int | str | None, own: Path | None) -> None:
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))

"""Which process works on something, written down so that another can tell whether it still does.

Imports nothing heavy: listing runs is to be quick.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PLACE = ("host", "boot", "namespace")  # where the number of a process means one process
_JOB = ("slurm_cluster", "slurm_job")


def this_process() -> dict[str, Any]:
    """What ``is_gone`` asks for of this process: where it runs, its number and when it began, and its Slurm job."""
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),  # two machines may have one name
        "namespace": _link("/proc/self/ns/pid"),  # and so may two containers of one machine
        "pid": os.getpid(),
        "began": _began(os.getpid()),  # numbers are given again
        "slurm_cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def is_gone(record: Mapping[str, Any]) -> bool:
    """Whether the process of a record has certainly ended. False where that cannot be told from here.

    It has where it ran here and no process of its number and beginning does, and where this is a later start of its
    Slurm job, as a job is started again only once it ended.
    """
    own = this_process()
    job = own["slurm_job"] is not None and all(record.get(name) == own[name] for name in _JOB)
    if job and int(record.get("slurm_restarts") or 0) < own["slurm_restarts"]:
        return True
    pid = record.get("pid")
    if not isinstance(pid, int) or any(record.get(name) != own[name] for name in _PLACE):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    began = _began(pid)
    return began is not None and record.get("began") is not None and record["began"] != began


def named(record: Mapping[str, Any]) -> str:
    """The process of a record, in words; of an empty one it is not known yet."""
    if not record:
        return "a process that has only begun"
    job = f", Slurm job {record['slurm_job']}" if record.get("slurm_job") else ""
    return f"process {record.get('pid')} on {record.get('host')}{job}"


def _began(pid: int) -> int | None:
    """When a process began, in ticks of the clock since the machine was started; None where the system does not say.

    One that ended, and whose end its parent has not asked for yet, never began.
    """
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # the name before may hold anything
    return -1 if state in ("Z", "X") else int(rest[18])


def _read(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return None


def _link(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return None

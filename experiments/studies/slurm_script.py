"""The batch script of a sweep on Slurm."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LARGEST_ARRAY = 1000  # tasks; Slurm's MaxArraySize is 1,001 where nothing else is set
ENVIRONMENT = ("METADENSITY_RUNS", "METADENSITY_DATA", "METADENSITY_WEIGHTS", "PYTHONPATH")


def batch_script(file: Path, left: Sequence[int], at_once: int | None, options: Sequence[str]) -> str:
    """A script for sbatch: an array with a task for each unit of ``left``, or for several where there are too many.

    file: the sweep. at_once: so many tasks at a time; None: as many as there is room for. options: further ones of
    sbatch; they count where one is given twice.

    A task that is about to be ended or preempted is told so by SIGUSR1, saves its training and ends with 75; it then
    asks to be queued again, as Slurm takes a job that ended in time for a finished one.
    """
    per_task = -(-len(left) // LARGEST_ARRAY)
    groups = [",".join(map(str, left[start : start + per_task])) for start in range(0, len(left), per_task)]
    tasks = ranges(left) if per_task == 1 else f"0-{len(groups) - 1}"
    units = "$SLURM_ARRAY_TASK_ID" if per_task == 1 else '"${units[$SLURM_ARRAY_TASK_ID]}"'
    known = [
        f"export {name}={shlex.quote(_absolute(value))}" for name in ENVIRONMENT if (value := os.environ.get(name))
    ]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={file.stem}",
        f"#SBATCH --array={tasks}" + (f"%{at_once}" if at_once else ""),
        f"#SBATCH --output={file.parent / file.stem}-%A_%a.txt",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR1@60",
        *(f"#SBATCH {option}" for option in options),
        f"cd {shlex.quote(str(Path.cwd()))}",
        *known,
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
        *([f"units=({' '.join(groups)})"] if per_task > 1 else []),
        f"srun {shlex.quote(sys.executable)} -m experiments.sweep work {shlex.quote(str(file))} --units {units}",
        "code=$?",
        "[ $code = 75 ] && scontrol requeue $SLURM_JOB_ID",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def send(script: str) -> str:
    """Give a script to sbatch. Returns what it says. Raises RuntimeError where it refuses, and where there is none."""
    try:
        done = subprocess.run(["sbatch"], input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(
            "There is no sbatch here. Submit on a machine of the cluster; --dry prints the script."
        ) from None
    if done.returncode != 0:
        raise RuntimeError(f"sbatch refused: {done.stderr.strip()} The script is printed by --dry.")
    return done.stdout.strip()


def ranges(numbers: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2 and 5."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _absolute(value: str) -> str:
    return ":".join(os.path.abspath(part) for part in value.split(":") if part)

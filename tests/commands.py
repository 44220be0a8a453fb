"""Command lines one after another, each as ``python -m`` runs it; torch and Sacred are imported once for all of them.

``python -m tests.commands FILE``, of lines such as ``experiments.train with hershey fast``. Each runs in a process of
its own that is forked after the imports, so that none sees what another left. It ends with the first that fails.
"""

from __future__ import annotations

import importlib
import os
import runpy
import shlex
import sys
from pathlib import Path

import experiments


def main(file: str) -> None:
    """Run the lines of a file, and say how long each took of the processor."""
    for path in sorted(Path(experiments.__file__).parent.glob("[!_]*.py")):
        importlib.import_module(f"experiments.{path.stem}")
    for line in Path(file).read_text().splitlines():
        sys.stdout.flush()
        child = os.fork()
        if not child:
            module, *words = shlex.split(line)
            sys.argv = [module, *words]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        _, status, used = os.wait4(child, 0)
        print(f"{used.ru_utime + used.ru_stime:.1f} s of the processor: {line}", flush=True)
        if status:
            sys.exit(f"{line} ended with {os.waitstatus_to_exitcode(status)}.")


if __name__ == "__main__":
    main(sys.argv[1])

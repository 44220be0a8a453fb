"""A folder for a task and a model of your own: ``python -m experiments.new_task FOLDER`` writes one.

It works as it is, and holds a task, a model, a test that both keep the contracts of all tasks and models, and a README.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = Path(__file__).with_name("own_project_template")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m experiments.new_task", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    options = parser.parse_args(arguments)
    try:
        written = write_project(options.folder)
    except OSError as error:
        print(error if error.strerror is None else f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    print("\n".join(map(str, written)))
    print(f"\ncd {options.folder}; README.md has what to do there, pytest first.")
    return 0


def write_project(folder: Path) -> list[Path]:
    """Write the template into a folder. Returns its files. Raises FileExistsError where there is something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already, and not an empty folder. Name another.")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sorted(path for path in TEMPLATE.iterdir() if path.is_file()):
        written.append(folder / source.name)
        shutil.copyfile(source, written[-1])
    return written


if __name__ == "__main__":
    sys.exit(main())

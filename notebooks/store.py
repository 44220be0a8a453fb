"""Execute the notebooks and store their outputs: ``python notebooks/store.py [NAME ...]``, all of them by default.

Each runs as on a fresh clone, with an empty folder of runs. What depends on the machine is left out: times, progress
bars and the state of widgets. An output that holds a path of this machine, an error or a warning is refused.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
LIMIT = 300_000  # bytes
PROGRESS = re.compile(r"^(meta-training|drawing): +\d+%\|")
WIDGET = "application/vnd.jupyter.widget-view+json"


def main(names: list[str]) -> None:
    """Execute and store the notebooks of these names. Raises ValueError for an output that is not to be stored."""
    paths = [HERE / f"{Path(name).stem}.ipynb" for name in names] or sorted(HERE.glob("*.ipynb"))
    for path in paths:
        notebook, began = nbformat.read(path, as_version=4), time.monotonic()
        with tempfile.TemporaryDirectory() as runs:
            os.environ["METADENSITY_RUNS"] = runs
            client(notebook).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                kept = [output for output in cell.outputs if _to_be_stored(output, f"{path.name}, {cell.id}")]
                # Beside a widget stands what it shows, which the cells before have shown already.
                cell.outputs = [] if any(WIDGET in output.get("data", {}) for output in cell.outputs) else kept
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) > LIMIT:
            raise ValueError(f"{path.name} has {len(text.encode()):,} bytes; draw smaller figures, for {LIMIT:,}.")
        path.write_text(text)
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {len(text) / 1000:.0f} kB", flush=True)


def client(notebook: Any) -> NotebookClient:
    """What executes a notebook of this folder.

    Without nbclient's stand-in for Output widgets, which answers on the socket that is waited on, so that on a busy
    machine a cell that has ended may be waited for without end (its issue 312). What such a widget shows is then an
    output of the cell.
    """
    made = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
        record_timing=False,
        store_widget_state=False,
    )
    made.widget_registry = {}
    return made


def _to_be_stored(output: Any, where: str) -> bool:
    if output.output_type == "stream" and output.name == "stderr":
        lines = [line for line in re.split(r"[\r\n]+", output.text) if line.strip()]
        if odd := [line for line in lines if not PROGRESS.match(line.strip())]:
            raise ValueError(f"{where} writes to stderr: {odd[0]!r}. Mend what it warns of.")
        return False
    for folder in (HERE.parent, Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix)):
        if re.search(rf"{re.escape(str(folder))}(?=[/\s'\"]|\\n|$)", str(output)):
            raise ValueError(f"{where} shows the folder {folder} of this machine. Show names instead.")
    return True


if __name__ == "__main__":
    main(sys.argv[1:])

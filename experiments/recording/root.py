"""Where runs are kept. Imports nothing heavy: listing runs is to be quick."""

from __future__ import annotations

import os
from pathlib import Path


def runs_root() -> Path:
    """Where runs are: the environment variable METADENSITY_RUNS, or ``runs`` in the current folder."""
    return Path(os.environ.get("METADENSITY_RUNS", "runs"))

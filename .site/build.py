"""Build the site: ``python .site/build.py [FOLDER] [OPTION ...]``; options are Sphinx's. Warnings are errors.

FOLDER is build/site by default; its index.html opens from the disk, needs no network, and search works there too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]


def main(folder: str = "build/site", *options: str) -> int:
    """Lay the pages, and let Sphinx make the site of them. Returns the exit status."""
    from pages import lay
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        lay(source)
        own = ["-q", "-W", "--keep-going", "-c", str(HERE), "-d", f"{scratch}/doctrees"]
        return build_main([*own, *options, str(source), folder])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

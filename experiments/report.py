"""A finished run as one page: ``python -m experiments.report RUN`` writes ``report.html`` into its folder.

The page needs no other file and no network: settings, curves over the whole chain of resumed runs, likelihood with
intervals, support beside samples, attention maps, the memorisation check, cost. What was not evaluated or checked yet
is first, on up to 100 classes, as runs of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m experiments.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help='a training run: its path, its number under the runs folder, or "latest"')
    parser.add_argument("--output", help="where to write; report.html in the run's folder")
    parser.add_argument(
        "--no-make", action="store_true", help="evaluate and check nothing; the page says what is missing"
    )
    parser.add_argument("--device", default="cpu", help="where to evaluate what was not evaluated")
    parser.add_argument("--data-root", help="where the data of the model lie now, if not where they lay in training")
    parser.add_argument("--folder", help="where the folder of images lies now, of a task over one")
    options = parser.parse_args(arguments)
    from experiments.run_page.page import ReportError, write_report

    try:
        places = {"data_root": options.data_root, "folder": options.folder}
        path = write_report(options.run, options.output, make=not options.no_make, device=options.device, **places)
    except (ReportError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path} ({path.stat().st_size / 1024:,.0f} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

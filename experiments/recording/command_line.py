"""How every experiment is made and started."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred import SETTINGS, Experiment, Ingredient
from sacred.observers import FileStorageObserver
from sacred.run import Run
from sacred.utils import apply_backspaces_and_linefeeds

from experiments.recording.run_folder import runs_root
from experiments.recording.sacred_observers import record_safely

SETTINGS.CAPTURE_MODE = "sys"  # the file-descriptor mode swallows progress bars
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # plain dicts and lists, which the library takes
LONGEST_RESULT = 400  # characters of a result that are printed when a run ends


class SafeExperiment(Experiment):
    """An experiment whose runs are recorded safely, whoever added the observers (see ``sacred_observers``)."""

    def _create_run(self, *arguments: Any, **options: Any) -> Run:
        run = super()._create_run(*arguments, **options)
        run.observers = record_safely(run.observers)
        run.run_logger.addFilter(_shorten_result)
        return run

    def configuration(self, named: Sequence[str] = (), updates: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration that a run would have, without one."""
        return dict(super()._create_run(named_configs=named, config_updates=dict(updates or {})).config)


def _shorten_result(record: logging.LogRecord) -> bool:
    """Sacred prints results whole; an evaluation's, all of which its files hold, would be thousands of characters."""
    message = record.getMessage()
    if message.startswith("Result: ") and len(message) > LONGEST_RESULT:
        record.msg, record.args = f"{message[:LONGEST_RESULT]} ... (whole in the run's record)", ()
    return True


def make_experiment(
    name: str, ingredients: Sequence[Ingredient] = (), named_configs: dict[str, dict[str, Any]] | None = None
) -> SafeExperiment:
    """An experiment whose record leaves out the redraws of progress bars."""
    experiment = SafeExperiment(name, ingredients=list(ingredients), save_git_info=_has_commit())
    experiment.captured_out_filter = apply_backspaces_and_linefeeds  # type: ignore[assignment]
    for key, config in (named_configs or {}).items():
        experiment.add_named_config(key, config)
    return experiment


def _has_commit() -> bool:
    """Whether the code lies in a git repository with a commit: Sacred fails where it is asked to record one in vain."""
    git = shutil.which("git")
    here = Path(__file__).parent
    return git is not None and subprocess.run([git, "rev-parse", "HEAD"], cwd=here, capture_output=True).returncode == 0


def observe_in_runs(experiment: Experiment) -> None:
    """Record the experiment in the runs folder."""
    experiment.observers.append(FileStorageObserver(str(runs_root())))


def main(experiment: Experiment) -> None:
    """Run from the command line. Runs are recorded in runs/ unless -F names another folder; -m, -s and -t add to it.

    SIGTERM ends a run as Ctrl-C does, so that its record says INTERRUPTED; training saves its state first.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not any(argument.startswith(("-F", "--file_storage")) for argument in sys.argv[1:]):
        observe_in_runs(experiment)
    experiment.run_commandline()

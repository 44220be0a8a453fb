"""Making a Sacred experiment, recording its runs, and its command line."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred import SETTINGS, Experiment, Ingredient
from sacred.config import ConfigDict, load_config_file
from sacred.observers import FileStorageObserver
from sacred.run import Run
from sacred.utils import apply_backspaces_and_linefeeds, convert_to_nested_dict

from experiments.recording.flat_configs import current_names
from experiments.recording.headlines import last_line
from experiments.recording.registered import RegisteredOptions
from experiments.recording.root import runs_root
from experiments.recording.sacred_observers import make_fault_tolerant

SETTINGS.CAPTURE_MODE = "sys"  # the file-descriptor mode swallows progress bars
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # plain dicts and lists, which the library takes


class SafeExperiment(Experiment):
    """An experiment whose runs are recorded safely, whoever added the observers (see ``sacred_observers``).

    Settings may be given by the names of earlier versions (see ``flat_configs``).
    """

    def _create_run(
        self, command_name: Any = None, config_updates: Any = None, named_configs: Any = (), *more: Any, **options: Any
    ) -> Run:
        run = self._configured(command_name, config_updates, named_configs, *more, **options)
        run.observers = make_fault_tolerant(run.observers)
        run.run_logger.addFilter(_leave_out_result)
        return run

    def configuration(self, named: Sequence[str] = (), updates: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration that a run would have, without one."""
        return dict(self._configured(None, dict(updates or {}), named).config)

    def _configured(self, command: Any, updates: Any, named: Sequence[str], *more: Any, **options: Any) -> Run:
        """Sacred's run. Of named configurations, what the chosen model or task does not take is left out.

        They are meant for many ("fast" makes any network small); what is typed is meant, and refused where there is no
        such option.
        """
        typed, before = current_names(convert_to_nested_dict(dict(updates or {}))), self.named_configs
        self.named_configs = {**before, **self._fitting(typed, named)}
        try:
            return super()._create_run(command, typed, named, *more, **options)
        finally:
            self.named_configs = before

    def _fitting(self, typed: Mapping[str, Any], named: Sequence[str]) -> dict[str, ConfigDict]:
        """The named configurations with those options only that are taken where all of them are chosen together.

        A configuration in a file counts as typed.
        """
        used = {name: dict(self.named_configs[name]()) for name in named if name in self.named_configs}
        files = {name: dict(load_config_file(name)) for name in named if name not in used and os.path.isfile(name)}
        in_order = [{**used, **files}[name] for name in named if name in used or name in files]
        for scope in (scope for each in self.ingredients for scope in each.configurations):
            if isinstance(scope, RegisteredOptions):
                chosen: dict[str, Any] = {}
                for settings in (*in_order, typed):
                    chosen |= settings.get(scope.path, {})
                taken = {"name", *scope.fitting(chosen.pop("name", scope.default), chosen)}
                for settings in used.values():
                    if scope.path in settings:
                        settings[scope.path] = {key: each for key, each in settings[scope.path].items() if key in taken}
        whole = {name: {key: part for key, part in each.items() if part != {}} for name, each in used.items()}
        return {name: ConfigDict(settings) for name, settings in whole.items()}


def _leave_out_result(record: logging.LogRecord) -> bool:
    """Sacred prints results whole, thousands of characters of an evaluation; ``main`` ends with what came out."""
    return not record.getMessage().startswith("Result: ")


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
    """Record the experiment in the runs folder from now on."""
    experiment.observers.append(FileStorageObserver(str(runs_root())))


@contextlib.contextmanager
def recorded_in(experiment: Experiment, folder: Path) -> Iterator[None]:
    """Within this, runs of the experiment are recorded in ``folder`` and nowhere else."""
    before = list(experiment.observers)
    experiment.observers[:] = [FileStorageObserver(str(folder))]
    try:
        yield
    finally:
        experiment.observers[:] = before


def main(experiment: Experiment) -> None:
    """Run from the command line. Runs are recorded in runs/ unless -F names another folder; -m, -s and -t add to it.

    The last line says what came out, and where the rest of it is.
    SIGTERM ends a run as Ctrl-C does, so that its record says INTERRUPTED; training saves its state first.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not any(argument.startswith(("-F", "--file_storage")) for argument in sys.argv[1:]):
        observe_in_runs(experiment)
    run = experiment.run_commandline()
    if run is not None and run.result is not None:
        print(last_line(str(experiment.path), run.result))

"""Making a Sacred experiment, recording its runs, and its command line."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from docopt import DocoptExit, docopt
from sacred import SETTINGS, Experiment, Ingredient
from sacred.arg_parser import format_usage, get_config_updates
from sacred.commands import help_for_command
from sacred.config import ConfigDict, load_config_file
from sacred.observers import FileStorageObserver
from sacred.run import Run
from sacred.utils import (
    ConfigAddedError,
    SacredError,
    SacredInterrupt,
    apply_backspaces_and_linefeeds,
    convert_to_nested_dict,
    ensure_wellformed_argv,
    format_sacred_error,
    print_filtered_stacktrace,
)

from experiments.recording.flat_configs import current_names, flatten
from experiments.recording.headlines import last_line
from experiments.recording.help_page import help_page
from experiments.recording.launched import STOPPED, launched
from experiments.recording.mistakes import discard, is_mistake, sentence
from experiments.recording.processes import this_process
from experiments.recording.registered import RegisteredOptions
from experiments.recording.root import runs_root
from experiments.recording.sacred_observers import make_fault_tolerant
from experiments.recording.settings import Setting, SettingError, alike, fit, settings_of, unknown_setting
from experiments.recording.sources import experiment_info
from experiments.recording.trackers import mlflow_option, wandb_option
from metadensity.processes import current

SETTINGS.CAPTURE_MODE = "sys"  # the file-descriptor mode swallows progress bars
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # plain dicts and lists, which the library takes
MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130  # exit statuses, the last as shells have it
ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # signals that end a run
_PARENT = "(the run gone on from)"  # what its settings are called among named configurations


class Terminated(KeyboardInterrupt):
    """SIGTERM, or a signal by which batch systems say that time is up: it ends a run as Ctrl-C does."""

    def __init__(self, number: int, status: int | None) -> None:
        super().__init__(f"Ended by {signal.Signals(number).name}.")
        self.exit_status = 128 + number if status is None else status


class SafeExperiment(Experiment):
    """An experiment whose runs are recorded safely, whoever added the observers (see ``sacred_observers``).

    Settings may be given by the names of earlier versions (see ``flat_configs``), and are checked before there is a
    run. A run that ends over a mistake of the user's before anything was done leaves no folder behind.

    script: the file that runs it, for its record; None in a notebook. doc: what --help says first. shares: whether
    several processes can share its work (see ``launched``). goes_on: whether a run that was ended can be gone on with.
    """

    shares = goes_on = False

    current_run: Run | None  # type: ignore[assignment]

    def __init__(self, name: str, ingredients: Sequence[Ingredient], script: Path | None, doc: str) -> None:
        # Sacred would take this very file for the script.
        own: Any = [wandb_option, mlflow_option]
        super().__init__(
            name,
            ingredients=list(ingredients),
            interactive=True,
            save_git_info=False,
            additional_cli_options=own,
        )
        self.script, self.doc = script, doc
        self.captured_out_filter = apply_backspaces_and_linefeeds  # type: ignore[assignment]
        self._checks: list[Callable[[Mapping[str, Any]], None]] = []
        self._parent: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None

    def check(self, function: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
        """Decorator: call ``function`` with the configuration before a run is made; what it raises makes none."""
        self._checks.append(function)
        return function

    def goes_on_from(
        self, function: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    ) -> Callable[[Mapping[str, Any]], Mapping[str, Any] | None]:
        """Decorator: ``function`` gives, of the settings that are typed, those to begin with in place of defaults."""
        self._parent = function
        return function

    def get_experiment_info(self) -> dict[str, Any]:
        """What is recorded of the script and its surroundings."""
        return experiment_info(str(self.path), self.script)

    def run(self, *arguments: Any, **options: Any) -> Run:
        """Sacred's. What is checked is checked before the run begins; of one that did nothing, nothing stays."""
        self.current_run = None  # until it is sure that there will be one
        run = self._create_run(*arguments, **options)
        self.current_run = None
        if not getattr(run.main_function, "unobserved", False):
            if not run.queue_only:  # another machine may have the device
                _require_devices(run.config)
            for check in self._checks:
                check(run.config)
        self.current_run = run
        try:
            run()
        except Exception as error:
            if discard(run, error):
                self.current_run = None
            raise
        return run

    def run_commandline(self, argv: str | Sequence[str] | None = None) -> Run | None:
        """Sacred's, with one sentence for a mistake.

        Exits with 2 where nothing was done as what was typed cannot be, 1 where a run failed, 130 after Ctrl-C; after
        SIGTERM, SIGUSR1 and SIGUSR2 with 75 where the run can be gone on with, else with 128 and the signal's number.
        """
        self.current_run = None
        words = ensure_wellformed_argv(argv)[1:]
        debug = {"-d", "--debug"} & set(words[: words.index("with")] if "with" in words else words)
        try:
            arguments = self._read(words)
            command = arguments["COMMAND"] or self.default_command
            updates, named = get_config_updates(arguments["UPDATE"])
            if arguments["help"] or arguments["--help"]:
                print(self._help(arguments["COMMAND"], updates, named))
                return None
            return self.run(command, updates, named, info={}, meta_info={}, options=arguments)
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                raise
            if self.current_run is not None and self.current_run.pdb and not is_mistake(error):
                import pdb

                traceback.print_exc()
                pdb.post_mortem()
            status = _said(error, MISTAKE if self.current_run is None else FAILURE)
            if self.current_run is not None and is_mistake(error):
                files = [each for each in self.current_run.observers if isinstance(each, FileStorageObserver)]
                print("".join(f"{each.dir}/run.json has the traceback." for each in files[:1]), file=sys.stderr)
            sys.exit(status)

    def configuration(self, named: Sequence[str] = (), updates: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration that a run would have, without one."""
        return dict(self._configured(None, dict(updates or {}), named).config)

    def _create_run(
        self, command_name: Any = None, config_updates: Any = None, named_configs: Any = (), *more: Any, **options: Any
    ) -> Run:
        run = self._configured(command_name, config_updates, named_configs, *more, **options)
        run.observers = [] if current().rank else make_fault_tolerant(run.observers)
        for each in (_leave_out_result, _pass_over_mistakes):
            run.run_logger.addFilter(each)
        if (name := run.meta_info["options"].get("--name")) is not None:  # Sacred's would hide which experiment it is
            run.experiment_info["name"], run.meta_info["name"] = self.path, name
        run.meta_info |= {"command_line": shlex.join(sys.orig_argv), "working_directory": str(Path.cwd())}
        run.meta_info["process"] = this_process()
        for line in _overridden(self.named_configs, named_configs, config_updates or {}):
            run.run_logger.info(line)
        return run

    def _configured(self, command: Any, updates: Any, named: Sequence[str], *more: Any, **options: Any) -> Run:
        """Sacred's run. Of named configurations, what the chosen model or task does not take is left out.

        They are meant for many ("fast" makes any network small); what is typed is meant, and refused where there is no
        such option.
        """
        typed, before = current_names(convert_to_nested_dict(dict(updates or {}))), self.named_configs
        files = self._require_known(typed, named)
        parent = None if self._parent is None else self._parent(typed)
        used = [*([] if parent is None else [_PARENT]), *named]
        try:
            if parent is not None:
                self.named_configs = {**before, _PARENT: ConfigDict(parent)}
            fitting, chosen = self._fitting(typed, used, files)
            settings = settings_of(self, chosen)
            fit(typed, settings)
            for name, content in files.items():
                with _said_of(name):
                    fit(content, settings)
            # Sacred would read the files anew, so they go by names that are no paths.
            read = {name: f"(file {number})" for number, name in enumerate(files)}
            contents = {read[name]: ConfigDict(content) for name, content in files.items()}
            self.named_configs = {**self.named_configs, **fitting, **contents}
            run = super()._create_run(command, typed, [read.get(name, name) for name in used], *more, **options)
        except ConfigAddedError as error:
            raise unknown_setting(", ".join(error.__conflicting_configs__), settings) from None
        finally:
            self.named_configs = before
        run.meta_info["named_configs"] = list(named)
        run.config_modifications.docs |= {name: each.text for name, each in settings.items() if each.text}
        return run

    def _fitting(
        self, typed: Mapping[str, Any], named: Sequence[str], files: Mapping[str, dict[str, Any]]
    ) -> tuple[dict[str, ConfigDict], dict[str, dict[str, Any]]]:
        """The named configurations with those options only that are taken where all of them are chosen together.

        A configuration in a file counts as typed. Returns also what is chosen for each ingredient.
        """
        used = {name: dict(self.named_configs[name]()) for name in named if name in self.named_configs}
        in_order = [{**used, **files}[name] for name in named if name in used or name in files]
        chosen: dict[str, dict[str, Any]] = {str(each.path): {} for each in self.ingredients}
        for path, options in chosen.items():
            for settings in (*in_order, typed):
                options |= settings.get(path, {})
        for scope in (scope for each in self.ingredients for scope in each.configurations):
            if isinstance(scope, RegisteredOptions):
                given = dict(chosen[scope.path])
                taken = {"name", *scope.fitting(given.pop("name", scope.default), given)}
                for settings in used.values():
                    if scope.path in settings:
                        settings[scope.path] = {key: each for key, each in settings[scope.path].items() if key in taken}
        whole = {name: {key: part for key, part in each.items() if part != {}} for name, each in used.items()}
        return {name: ConfigDict(settings) for name, settings in whole.items()}, chosen

    def _require_known(self, typed: Mapping[str, Any], named: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the files among ``named`` hold, by their names.

        Raises SettingError for a named configuration there is not, a file that holds no settings, and a value for a
        whole group of settings.
        """
        known, files = [name for name, _ in self.gather_named_configs()], dict[str, dict[str, Any]]()
        for name in named:
            if name in known:
                continue
            if os.path.isfile(name):
                files[name] = _settings_in(name)
                with _said_of(name):
                    self._require_groups(files[name], known)
                continue
            if name in self._settings({}):
                raise SettingError(f"{name} is a setting; give its value, {name}=VALUE.")
            near = alike(name, known)
            meant = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(known) or 'none'}."
            raise SettingError(f"There is no named configuration {name!r}. {meant}")
        self._require_groups(typed, known)
        return files

    def _require_groups(self, typed: Mapping[str, Any], known: Sequence[str]) -> None:
        for path in [str(each.path) for each in self.ingredients]:
            value = typed.get(path, {})
            if not isinstance(value, Mapping):
                also = f", or {value} alone, which is a named configuration" if value in known else ""
                raise SettingError(
                    f"{path}={value!r}; {path} is a group of settings. Give one of them, such as "
                    f"{path}.{next(iter(self._settings({}, path)), 'name')}={value}{also}."
                )

    def _settings(self, chosen: Mapping[str, Any], path: str = "") -> dict[str, Setting]:
        """The settings there are, or those of one ingredient by their names there."""
        found = settings_of(self, chosen)
        start = f"{path}." if path else ""
        return {name.removeprefix(start): each for name, each in found.items() if name.startswith(start)}

    def _read(self, words: list[str]) -> dict[str, Any]:
        """What was typed, as docopt has it. Raises SettingError for what cannot be read."""
        commands = [name for name, _ in self.gather_commands()]
        before = words[: words.index("with")] if "with" in words else words
        loose = [word for word in _without_options(before, self.all_cli_options) if word not in ("help", *commands)]
        known = [name for name, _ in self.gather_named_configs()]
        if meant := [word for word in loose if word in known or "=" in word]:
            rest = shlex.join([*loose, *words[len(before) + 1 :]])
            command = "".join(f"{word} " for word in before if word in commands)
            raise SettingError(f'"with" is missing before {meant[0]}; type: {_program()} {command}with {rest}')
        if loose and before[0] != "help":
            near = alike(loose[0], [*commands, *known])
            meaning = f" Did you mean {' or '.join(near)}?" if near else ""
            raise SettingError(
                f"{loose[0]!r} is no command of {_program()}; there are {', '.join(commands)}.{meaning} Settings and "
                'named configurations come after "with".'
            )
        usage = format_usage("it", "", dict(self.gather_commands()), self.all_cli_options)
        try:
            found: dict[str, Any] = docopt(usage, words, default_help=False)
        except DocoptExit:
            found = {"COMMAND": "with"}
        if found["COMMAND"] == "with":  # with nothing after it
            raise SettingError(
                f"{shlex.join(words)!r} cannot be read. The form is: {_program()} [COMMAND] with NAME SETTING=VALUE "
                "... --OPTION; --help lists all of them."
            )
        return found

    def _help(self, command: str | None, updates: Mapping[str, Any], named: Sequence[str]) -> str:
        """What --help prints: of a command, or of the experiment with these settings."""
        commands = dict(self.gather_commands())
        if command is not None and command not in commands:
            raise SettingError(f"There is no command {command!r}; there are {', '.join(commands)}.")
        if command is not None and command != self.default_command:
            return str(help_for_command(commands[command]))
        typed = current_names(convert_to_nested_dict(dict(updates)))
        files = self._require_known(typed, named)
        settings = settings_of(self, self._fitting(typed, named, files)[1])
        gathered: list[tuple[str, Any]] = list(self.gather_named_configs())
        configs = {name: flatten(dict(found())) for name, found in gathered}
        return help_page(_program(), self.doc, settings, configs, commands, self.all_cli_options)


def make_experiment(
    name: str, ingredients: Sequence[Ingredient] = (), named_configs: dict[str, dict[str, Any]] | None = None
) -> SafeExperiment:
    """An experiment whose record leaves out the redraws of progress bars, and names the file that calls this."""
    caller = sys._getframe(1).f_globals  # inspect.stack reads the sources of all frames, for a tenth of a second
    file = caller.get("__file__")
    script = Path(file).resolve() if file else None
    experiment = SafeExperiment(name, ingredients, script, caller.get("__doc__") or "")
    for key, config in (named_configs or {}).items():
        experiment.add_named_config(key, config)
    return experiment


def observe_in_runs(experiment: Experiment) -> None:
    """Record the experiment in the runs folder from now on; once, however often this is called."""
    root = runs_root()
    there = [each.basedir for each in experiment.observers if isinstance(each, FileStorageObserver)]
    if not any(Path(folder).resolve() == root.resolve() for folder in there):
        experiment.observers.append(FileStorageObserver(str(root)))


@contextmanager
def recorded_in(experiment: Experiment, folder: Path) -> Iterator[None]:
    """Within this, runs of the experiment are recorded in ``folder`` and nowhere else."""
    before = list(experiment.observers)
    experiment.observers[:] = [FileStorageObserver(str(folder))]
    try:
        yield
    finally:
        experiment.observers[:] = before


def main(experiment: Experiment) -> None:
    """Run from the command line. Runs are recorded in runs/; -F, -m, -s, -t, -w and -M add a copy elsewhere.

    The last line says what came out, and where the rest of it is.
    SIGTERM ends a run as Ctrl-C does, so that its record says INTERRUPTED; training saves its state first.
    """
    goes_on, shares = (getattr(experiment, name, False) for name in ("goes_on", "shares"))
    with exit_statuses(STOPPED if goes_on else None), launched(shares, str(experiment.path)):
        file = getattr(sys.modules["__main__"], "__file__", None)
        if isinstance(experiment, SafeExperiment) and file is not None:
            experiment.script = Path(file).resolve()
        observe_in_runs(experiment)
        run = experiment.run_commandline()
        if run is not None and run.result is not None:
            print(last_line(str(experiment.path), run.result))


@contextmanager
def exit_statuses(ended: int | None = None) -> Iterator[None]:
    """Within this, a program ends as ``SafeExperiment.run_commandline`` does, and signals to end it as Ctrl-C does.

    ended: the exit status after SIGTERM, SIGUSR1 and SIGUSR2; None: 128 and the signal's number, as shells have it.
    """

    def terminate(number: int, _: Any) -> NoReturn:
        raise Terminated(number, ended)

    for number in ENDING:
        signal.signal(number, terminate)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv or "-d" in sys.argv:
            raise
        sys.exit(_said(error, MISTAKE))


def _said(error: BaseException, status: int) -> int:
    """Print what a user is to know of the error that is being handled. Returns the exit status, else ``status``."""
    status = getattr(error, "exit_status", status)
    if isinstance(error, KeyboardInterrupt | SacredInterrupt):
        print(str(error) or "Interrupted.", file=sys.stderr)
        return getattr(error, "exit_status", INTERRUPTED)
    if is_mistake(error):
        print(sentence(error), file=sys.stderr)
        return status
    if isinstance(error, SacredError):
        print(format_sacred_error(error, ""), file=sys.stderr)
    else:
        print_filtered_stacktrace()
    return FAILURE


def _program() -> str:
    """How the script that runs was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python {shlex.quote(sys.argv[0])}" if spec is None else f"python -m {spec.name}"


def _without_options(words: Sequence[str], options: Sequence[Any]) -> list[str]:
    """Words without flags, and what some of them are given."""
    takes = {flag for option in options if option.arg for flag in option.get_flags()}
    follows = [False, *(word in takes for word in words)]
    return [word for word, given in zip(words, follows, strict=False) if not given and not word.startswith("-")]


def _settings_in(name: str) -> dict[str, Any]:
    """What a file of settings holds, as if it were typed. Raises SettingError for one that holds none."""
    try:
        found = load_config_file(name)
    except Exception as error:  # of whichever parser the suffix asks for
        raise SettingError(f"{name} cannot be read as settings: {' '.join(str(error).split())}") from error
    if not isinstance(found, Mapping):
        raise SettingError(f"{name} holds {type(found).__name__}, not settings such as training: {{steps: 800}}.")
    return current_names(convert_to_nested_dict(found))


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Within this, a SettingError names the file that it is about."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{name}: {error}") from None


def _overridden(configs: Mapping[str, Any], named: Sequence[str], updates: Mapping[str, Any]) -> Iterator[str]:
    """For each named configuration that overrides one before it, a line that says in what, and that this is so."""
    typed = flatten(convert_to_nested_dict(dict(updates)))
    held: dict[str, tuple[str, Any]] = {}
    for name in dict.fromkeys(each for each in named if each in configs):
        lost: dict[str, list[str]] = {}
        for setting, value in flatten(dict(configs[name]())).items():
            other, before = held.get(setting, (name, value))
            if before != value and setting not in typed:
                lost.setdefault(other, []).append(f"{setting}={value!r} (not {before!r})")
            held[setting] = name, value
        for other, settings in lost.items():
            more = f" and {len(settings) - 3} more" if len(settings) > 3 else ""
            yield f"{name}, the later one, overrides {other}: {', '.join(settings[:3])}{more}"


def _require_devices(config: Mapping[str, Any]) -> None:
    """Raise SettingError for a device of torch's that is not here."""
    for name, device in flatten(config).items():
        if name.rpartition(".")[2] == "device" and isinstance(device, str):
            try:
                torch.empty(0, device=device)
            except (AssertionError, RuntimeError, NotImplementedError) as error:
                reason = str(error).strip().splitlines()[0].rstrip(".")
                raise SettingError(f"{name}={device!r} cannot be used here: {reason}. Give {name}=cpu.") from None


def _leave_out_result(record: logging.LogRecord) -> bool:
    """Sacred prints results whole, thousands of characters of an evaluation; ``main`` ends with what came out."""
    return not record.getMessage().startswith("Result: ")


def _pass_over_mistakes(record: logging.LogRecord) -> bool:
    """Sacred's line that a run failed says nothing where a sentence follows that does."""
    error = sys.exc_info()[1]
    return not (error is not None and is_mistake(error) and record.getMessage().startswith("Failed after"))

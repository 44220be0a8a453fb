"""What a user gave and cannot be: told from faults of the code, said in a sentence, and no empty run kept of it."""

from __future__ import annotations

import dis
import shutil
import sysconfig
from datetime import timedelta
from pathlib import Path

from sacred.observers import FileStorageObserver
from sacred.run import Run
from sacred.utils import SacredError, SacredInterrupt

from experiments.recording.lineage import LineageError
from experiments.recording.run_folder import unobserved_folder
from experiments.recording.sources import FLOORS
from metadensity.files import DamagedFileError

SOON = timedelta(minutes=1)  # a run that ended later had done something, if only for the user's eyes
OF_WHAT_WAS_GIVEN = (
    ValueError,
    TypeError,
    LookupError,
    OSError,
    ImportError,
    SacredError,
    DamagedFileError,
    LineageError,
)
RECORDS = {"run.json", "config.json", "cout.txt", "info.json", "lineage.json"}
BEGUN = {"checkpoints", "tensorboard"}  # folders in which there is something before the first step


def is_mistake(error: BaseException) -> bool:
    """Whether an error speaks to the user: raised on purpose by this code or a user's own script, or of a file.

    Of all else, as what Python or torch raises within a computation, the place matters, and so does the traceback.
    """
    if isinstance(error, SacredInterrupt | AssertionError | NotImplementedError) or not isinstance(error, Exception):
        return False
    if isinstance(error, SacredError):
        return not error.print_traceback
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code, frame = last.tb_frame.f_code, last.tb_frame
    raised = dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    spec = frame.f_globals.get("__spec__")  # of a module that runs as __main__ this has its name
    ours = (spec.name if spec else str(frame.f_globals.get("__name__", ""))).partition(".")[0] in FLOORS
    return raised and (ours or not _is_installed(code.co_filename))


def sentence(error: BaseException) -> str:
    """What an error says, and its notes, without its type and the quotes that Python puts round a KeyError's text."""
    return " ".join([_text(error), *getattr(error, "__notes__", ())])


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__


def discard(run: Run, error: BaseException) -> bool:
    """Remove what is recorded of a run that ended over what it was given, with nothing done; whether that was so.

    Nothing was done where the run ended within a minute, logged no numbers, trained no model as a run of its own, and
    wrote no files beside its record.
    """
    if run.start_time is None:
        return True
    late = run.stop_time is not None and run.stop_time - run.start_time > SOON
    if late or not is_mistake(error) or not isinstance(error, OF_WHAT_WAS_GIVEN):
        return False
    found = (Path(each.dir) for each in run.observers if isinstance(each, FileStorageObserver) and each.dir)
    folders = [folder for folder in (*found, unobserved_folder(run)) if folder is not None]
    if "trainings" in run.info or any(_holds_work(folder) for folder in folders):
        return False
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _holds_work(folder: Path) -> bool:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
    return any(path.name not in RECORDS and path.parts[0] not in BEGUN for path in files)


def _is_installed(file: str) -> bool:
    path = Path(file).resolve()
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or path.is_relative_to(standard)

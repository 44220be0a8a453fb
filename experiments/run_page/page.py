"""A run as one HTML file: ``report.ipynb``, executed by papermill and converted by nbconvert, within ``page.html``."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from experiments import evaluate, memorisation
from experiments.recording.command_line import recorded_in
from experiments.recording.lineage import read
from experiments.recording.run_folder import RunFolder
from experiments.recording.trained_model import require_training
from experiments.run_page.parts import newest_report
from metadensity.files import write_atomically

TEMPLATE = Path(__file__).with_name("report.ipynb")
PAGE = Path(__file__).with_name("page.html")
LIMIT = 100  # episodes of an evaluation, classes of a memorisation check, that are made for the page


class ReportError(RuntimeError):
    """A page that could not be made."""


def write_report(
    run: str | Path,
    output: str | Path | None = None,
    make: bool = True,
    say: Callable[[str], None] = print,
    device: str = "cpu",
    data_root: str | None = None,
    folder: str | None = None,
    progress: bool = True,
) -> Path:
    """Write the page of a training run, by default ``report.html`` in its folder. Returns its path.

    make: evaluate the run and check it for memorisation first, on up to ``LIMIT`` classes, where that was not done for
    its best model; these are runs of their own beside it. data_root, folder: where the data lie now, see
    ``experiments.ingredients.task.task_of``.

    Raises FileNotFoundError where there is no such run, ReportError where it is no training run or a part fails.
    """
    trained = RunFolder.find(str(run))
    known = read(trained.path)
    if known is None:
        require_training(trained)
    elif known is not None and known.kind not in ("trained", "resumed"):
        parents = ", ".join(parent.run for parent in known.parents)
        raise ReportError(f"Run {trained.path.name} trained nothing ({known.kind}). Give the run it used: {parents}.")
    if not trained.best.is_file():
        raise ReportError(f"{trained.path} has no best model yet: it was not validated, so there is nothing to report.")
    if make:
        _make_missing(trained, say, progress, {"device": device, "data_root": data_root, "folder": folder})
    output = Path(output) if output is not None else trained.path / "report.html"
    body = _executed(trained, progress)
    page = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    title = f"Run {trained.path.name}: {_title(trained)}"
    write_atomically(output, f"{page.render(title=title, body=Markup(body))}\n".encode())
    return output


def _title(folder: RunFolder) -> str:
    config = folder.config()
    return f"{config['model']['name']} on {config['task']['name']}"


def _make_missing(folder: RunFolder, say: Callable[[str], None], progress: bool, where: dict[str, Any]) -> None:
    """Evaluate and check for memorisation, where that was not done for the best model."""
    config = folder.config()
    shots = sorted({0, 1, *config["training"]["shots"]})
    most = max(1, min(4, max(shots)))
    common: dict[str, Any] = {"run": str(folder.path), "progress": progress, **where}
    wanted: list[tuple[Any, str, str, dict[str, Any]]] = [
        (evaluate.experiment, "evaluated", "evaluation.json", {"shots": shots, "limit": LIMIT, "baselines": False}),
        (memorisation.experiment, "memorisation", "memorisation.json", {"shots": most, "classes": LIMIT}),
    ]
    for experiment, kind, file, settings in wanted:
        if newest_report(folder, kind, file)[0] is not None:
            continue
        say(f"Run {folder.path.name} was not {'evaluated' if kind == 'evaluated' else 'checked for memorisation'} yet.")
        try:
            with recorded_in(experiment, folder.path.resolve().parent):
                experiment.run(config_updates={**common, **settings}, options={"--loglevel": "WARNING"})
        except Exception as error:
            say(f"That failed, and the page says so: {error}")


def _executed(folder: RunFolder, progress: bool) -> str:
    """The body of the page: the outputs of the notebook, and its headings."""
    logging.getLogger("papermill").setLevel(logging.WARNING)
    with warnings.catch_warnings():  # of Jupyter's packages among themselves
        warnings.simplefilter("ignore")
        import papermill
        from jupyter_client.manager import AsyncKernelManager
        from nbconvert import HTMLExporter
        from papermill.exceptions import PapermillExecutionError

        class Local(AsyncKernelManager):
            """A kernel reached through files, not through ports that others on the machine could read."""

            def __init__(self, **options: Any) -> None:
                super().__init__(**{**options, "transport": "ipc"})

        with tempfile.TemporaryDirectory() as scratch:
            done = Path(scratch) / "report.ipynb"
            path = os.environ.get("PYTHONPATH")
            root = str(Path(__file__).resolve().parents[1])
            os.environ["PYTHONPATH"] = root if not path else os.pathsep.join((root, path))
            try:
                notebook = papermill.execute_notebook(
                    str(TEMPLATE),
                    str(done),
                    parameters={"run": str(folder.path.resolve())},
                    kernel_name="python3",
                    progress_bar={"desc": "making the page"} if progress else False,
                    log_output=False,
                    kernel_manager_class=Local,
                    cwd=scratch,
                )
            except PapermillExecutionError as error:
                raise ReportError(
                    f"The page of {folder.path} could not be made: {error.ename}: {error.evalue}"
                ) from error
            finally:
                if path is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = path
        for cell in notebook.cells:
            if cell.cell_type == "code":  # neither warnings nor progress bars
                cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
        # The cell of parameters that papermill adds has a random id; without it the page is a function of the run.
        notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown" or cell.outputs]
        exporter = HTMLExporter(
            template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True
        )
        body, _ = exporter.from_notebook_node(notebook)
    return str(body)

"""The task of an experiment: its settings are ``name`` and the options of that task, at the task's own defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sacred import Ingredient

from experiments.recording import lineage
from experiments.recording.flat_configs import current_names
from experiments.recording.registered import RegisteredOptions
from experiments.recording.trained_model import TrainedModel
from metadensity.files import read_header
from tasks import TASKS, DataError, TaskDistribution
from tasks.folders.class_split import UNFILTERED

# What earlier versions recorded for every task, or for some that did not take it.
OF_EVERY_TASK = frozenset(
    {"size", "drawings", "protocol", "shrink", "data_root", "split_by", "split_seed", "seed", "styles"}
)
# Of a recipe: which files there are, and which class is in which split.
FILES = {
    "files_sha256": "the names of the images",
    "damaged_left_out": "the damaged images left out",
    "images_sha256": "the images",
    "split_sha256": "the classes of the splits",
}
PACKED = ("archives_md5", "pillow")  # of a recipe: how the same pixels were come by

TASK_OPTIONS = RegisteredOptions("task", lambda name: TASKS[name], "hershey", ("split",))
# A run records its sources itself. Sacred would look for this file in the whole stack, for a tenth of a second.
task = Ingredient("task", _caller_globals=globals(), save_git_info=False)
task.configurations.append(TASK_OPTIONS)


def build_task(config: Mapping[str, Any], split: str) -> TaskDistribution:
    """The task distribution that ``config`` describes, on one split. config: the ingredient's values, or recorded ones.

    Raises UnknownTaskError for a name that is not in ``TASKS``, ValueError for an option that the task does not take.
    """
    options = TASK_OPTIONS.read(current_names({"task": config})["task"], OF_EVERY_TASK)
    try:
        return TASKS[options.pop("name")](split=split, **options)
    except (ValueError, DataError) as problem:
        if named := [name for name in options if re.search(rf"\b{name}=", str(problem))]:
            problem.add_note(f"On the command line: {', '.join(f'task.{name}=' for name in named)}.")
        raise


def task_of(
    trained: TrainedModel, split: str, data_root: str | None = None, folder: str | None = None, **settings: Any
) -> TaskDistribution:
    """The task that a model was trained on, on one split, wherever its data lie now.

    data_root, folder: where they lie, None where they lay in training. settings: others that differ, such as a seed.

    Raises DataError where the data are missing or others than the model was trained on: some class of the test could
    then be one that it was trained on. ValueError for a ``folder`` of a task that has none.
    """
    places = {key: value for key, value in (("data_root", data_root), ("folder", folder)) if value is not None}
    config = {**current_names({"task": trained.config()["task"]})["task"], **settings, **places}
    try:
        found = build_task(config, split)
        if list(_differing(trained, found)) == ["split_sha256"] and config.get("splits") is None:
            config["splits"] = UNFILTERED  # as earlier versions drew it
            found = build_task(config, split)
    except DataError as problem:
        if places:
            raise
        of_folder = config.get("folder") is not None
        where = f" with task.folder={config['folder']}" if of_folder else ""
        what = "folder=PATH" if of_folder else "data_root=PATH"
        raise DataError(
            f"{problem} The model was trained{where}; if the data lie elsewhere now, give {what}."
        ) from problem
    require_same_data(trained, found)
    if places:
        _require_same_pixels(trained, config)
    return found


def require_same_data(trained: TrainedModel, found: TaskDistribution) -> None:
    """Raise DataError where a task has other files or splits than the one that a model was trained on."""
    if differing := _differing(trained, found):
        raise DataError(
            f"{trained.title} was trained on other data: {', '.join(differing.values())} differ, so that images of the "
            f"{found.split} split may be among those it was trained on. Name the data it was trained on with folder= "
            "or data_root=, or train anew."
        )


def _differing(trained: TrainedModel, found: TaskDistribution) -> dict[str, str]:
    """Those of ``FILES`` in which the recipe of the training and that of a task differ."""
    recorded = _recorded(trained)
    both = recorded.keys() & found.recipe.keys()
    both |= {"damaged_left_out"} if "files_sha256" in both else set()
    return {key: said for key, said in FILES.items() if key in both and recorded.get(key) != found.recipe.get(key)}


def _require_same_pixels(trained: TrainedModel, config: Mapping[str, Any]) -> None:
    """Raise DataError where the run's own record says that its images had other pixels."""
    known = lineage.read(trained.path) if trained.path.is_dir() else None
    if known is None or known.episodes_sha256 is None:
        return
    parts, recorded = [build_task(config, part) for part in ("train", "validation")], _recorded(trained)
    for part in parts:
        part.recipe = {**part.recipe, **{key: recorded[key] for key in PACKED if key in recorded}}
    if lineage.stream_hash(*parts) != known.episodes_sha256:
        raise DataError(
            f"{trained.title} was trained on other images than those of data_root={config.get('data_root')}, "
            f"folder={config.get('folder')}: their fingerprint differs. Name the data it was trained on, or train anew."
        )


def _recorded(trained: TrainedModel) -> dict[str, Any]:
    """The recipe of the task that a model was trained on, as its file says; empty where it does not."""
    recipe = read_header(trained.best).get("provenance", {}).get("task")
    return recipe if isinstance(recipe, dict) else {}

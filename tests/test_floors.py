"""Who may import whom: the floors of the house and their rooms, read from every file's syntax tree, notebooks included.

metadensity/   knows no task, no experiment, no tracker, no data package.
tasks/         takes from metadensity the types it has to return, its checks, files and progress bar, and nothing else.
experiments/   is the only floor that knows Sacred and TensorBoard.

Inside a floor every room stands in one list, from the ground up, and imports only rooms that stand before it. No two
files import each other, however long the way round.
"""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TRACKERS = {"sacred", "tensorboard", "torch.utils.tensorboard", "wandb", "mlflow"}
ABOVE = {"notebooks", "tests"}
FORBIDDEN = {
    "metadensity": {"tasks", "experiments", "torchmeta", "learn2learn", "torchvision", *TRACKERS, *ABOVE},
    "tasks": {"experiments", *TRACKERS, *ABOVE},
    "experiments": ABOVE,
    "notebooks": {"tests", *TRACKERS},
    "tests": {"notebooks"},
}
ELSEWHERE = {"experiments", *TRACKERS, *ABOVE}
TASKS_MAY_TAKE = {
    "metadensity": {"Episode", "EpisodeSource", "Density", "checks", "files", "progress"},
    "metadensity.episode": {"Episode", "EpisodeSource"},
    "metadensity.density": {"Density", "FactorisedDensity", "SequentialDensity"},
    "metadensity.drawing": {"Draws"},
    "metadensity.evaluation.nway": {"NWayEpisodes"},
}
# From the ground up: contracts and layers, then what they build, then the numbers and the outer loop.
ROOMS = {
    floor: words.split()
    for floor, words in {
        "metadensity": """
            files checks processes progress native episode drawing density nn model likelihoods networks sampling
            densities coding adaptation models persistence exporting evaluation training testing
        """,
        "tasks": """
            checks data splits styles media base images digits emoji hershey pens films omniglot templates chains
            transduction speech strings folders own episodes interop labelled testing
        """,
        "experiments": """
            results recording ingredients reporting figures benchmarks train evaluate sample episodes compare classify
            compress ensemble memorisation studies reproductions shots_grid split_sensitivity reproduce sweep weights
            bench coverage demo runs run_page report new_task own_project_template __main__
        """,
    }.items()
}
HIDDEN_OR_MADE = {"build", "dist", "runs"}


@dataclass(frozen=True)
class Import:
    """``import module`` (name is None) or ``from module import name``, at a line."""

    module: str
    name: str | None
    line: int

    def reaches(self, package: str) -> bool:
        """Whether this names ``package`` or something within it."""
        full = self.module if self.name is None else f"{self.module}.{self.name}"
        return f"{full}.".startswith(f"{package}.")


def imports(source: str, package: str) -> Iterator[Import]:
    """Yield the imports in ``source``, also those inside functions and by literal name; ``package`` holds the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parents, module] if module else parents)
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "importorskip") and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, None, node.lineno)


def source_of(path: Path) -> str:
    """The Python in a file; of a notebook, its code cells without IPython's own lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in "\n".join(cells).splitlines())


def files(root: Path) -> list[Path]:
    """Every Python file and notebook of the repository, relative to ``root``."""
    found = [path.relative_to(root) for pattern in ("*.py", "*.ipynb") for path in root.rglob(pattern)]
    return sorted(path for path in found if not path.parts[0].startswith(".") and path.parts[0] not in HIDDEN_OR_MADE)


def room_of(module: str) -> tuple[str, str]:
    """The floor and the room of a module; a floor's own ``__init__`` is the room ""."""
    floor, _, rest = module.partition(".")
    return floor, rest.partition(".")[0]


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def arrows(root: Path) -> Iterator[tuple[Path, int, str, str]]:
    """Each import of one file of a floor by another: path, line, the importing module and the imported one."""
    modules = {module_of(path): path for path in files(root) if path.suffix == ".py" and path.parts[0] in ROOMS}
    for module, path in modules.items():
        for item in imports((root / path).read_text(encoding="utf-8"), ".".join(path.parent.parts)):
            full = item.module if item.name is None else f"{item.module}.{item.name}"
            target = full if full in modules else item.module
            if target in modules and target != module:
                yield path, item.line, module, target


def wrong_ways(root: Path) -> list[str]:
    """Each import that goes to a room which stands above, each room that stands in no list, and each circle."""
    found, graph = set(), graphlib.TopologicalSorter[str]()
    for path, line, module, target in arrows(root):
        graph.add(module, target)
        (floor, room), (other_floor, other) = room_of(module), room_of(target)
        if floor != other_floor or not room or room == other:
            continue
        order = ROOMS[floor]
        found |= {f"{path}:{line}: {floor}/{name} stands in no list of rooms" for name in {room, other} - {*order, ""}}
        if not other:
            found.add(f"{path}:{line}: {floor}/{room} must not import {floor} itself, which is made of its rooms")
        elif {room, other} <= set(order) and order.index(other) > order.index(room):
            found.add(f"{path}:{line}: {floor}/{room} must not import {floor}/{other}, which stands above it")
    try:
        graph.prepare()
    except graphlib.CycleError as error:
        found.add(f"a circle of imports: {' <- '.join(error.args[1])}")
    return sorted(found)


def violations(root: Path) -> list[str]:
    """Each import under ``root`` that goes against the arrows, as one line."""
    found = []
    for path in files(root):
        floor = path.parts[0]
        for item in imports(source_of(root / path), ".".join(path.parent.parts)):
            for package in sorted(FORBIDDEN.get(floor, ELSEWHERE)):
                if item.reaches(package):
                    found.append(f"{path}:{item.line}: {floor} must not import {package}")
            if (
                floor == "tasks"
                and item.reaches("metadensity")
                and item.module not in ("metadensity.checks", "metadensity.files", "metadensity.progress")
                and item.name not in TASKS_MAY_TAKE.get(item.module, ())
            ):
                found.append(f"{path}:{item.line}: tasks may import only what TASKS_MAY_TAKE says")
    return found


def test_the_arrows_hold(repo_root: Path) -> None:
    checked = {path.as_posix() for path in files(repo_root)}
    assert {"metadensity/episode.py", "tasks/base.py", "tests/test_floors.py"} <= checked
    assert violations(repo_root) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("metadensity/a.py", "import tasks"),
        ("metadensity/models/a.py", "from tasks.images import ImageTasks"),
        ("metadensity/a.py", "def f():\n    import sacred"),
        ("metadensity/a.py", "from torch.utils.tensorboard import SummaryWriter"),
        ("metadensity/a.py", "from torch.utils import tensorboard"),
        ("metadensity/a.py", "import importlib\nimportlib.import_module('learn2learn.data')"),
        ("metadensity/a.py", "import torchmeta as tm"),
        ("metadensity/a.py", "from experiments import train"),
        ("tasks/a.py", "import metadensity"),
        ("tasks/a.py", "from metadensity import models"),
        ("tasks/a.py", "from metadensity.models import AttentionPixelCNN"),
        ("tasks/a.py", "from metadensity.model import FewShotModel"),
        ("tasks/a.py", "from metadensity.evaluation.nway import stack_nway"),
        ("tasks/a.py", "from experiments.train import ex"),
        ("tasks/a.py", "from sacred import Experiment"),
        ("tasks/a.py", "from tests import conftest"),
        ("tasks/sub/a.py", "from ...experiments import train"),
        ("experiments/a.py", "from tests.conftest import data_root"),
        ("benchmarks/a.py", "import experiments.train"),
        ("notebooks/a.ipynb", "%matplotlib inline\nimport sacred"),
    ],
)
def test_a_violation_is_caught(path: str, source: str, tmp_path: Path) -> None:
    write(tmp_path, path, source)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "metadensity/a.py",
            "import torch\nfrom torch.utils import data\nfrom .episode import Episode\nimport sacred_texts",
        ),
        (
            "tasks/a.py",
            "from metadensity import Density, Episode\nfrom metadensity.episode import Episode, EpisodeSource",
        ),
        ("tasks/a.py", "from metadensity.checks import is_whole\nfrom metadensity import files"),
        ("tasks/a.py", "from metadensity.evaluation.nway import NWayEpisodes"),
        ("tasks/a.py", "from . import base\nfrom tasks.images import ImageTasks\nimport torchmeta"),
        ("experiments/a.py", "import sacred, tasks, metadensity\nfrom torch.utils.tensorboard import SummaryWriter"),
        ("notebooks/a.ipynb", "%matplotlib inline\nimport metadensity\nfrom experiments import load_run"),
        ("tests/a.py", "import sacred\nfrom experiments.train import ex"),
        (".venv/lib/a.py", "import sacred, experiments"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str, tmp_path: Path) -> None:
    write(tmp_path, path, source)
    assert violations(tmp_path) == []


def test_the_rooms_stand_in_order(repo_root: Path) -> None:
    assert wrong_ways(repo_root) == []
    assert len(list(arrows(repo_root))) > 500
    for floor, order in ROOMS.items():
        there = {path.stem for path in (repo_root / floor).iterdir() if path.suffix == ".py" or path.is_dir()}
        assert there - {"__init__", "__pycache__"} - set(order) == set(), f"rooms of {floor} that stand in no list"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"metadensity/nn/a.py": "from metadensity.likelihoods import b", "metadensity/likelihoods/b.py": ""}, "above"),
        ({"metadensity/files.py": "import metadensity.checks", "metadensity/checks.py": ""}, "above"),
        ({"metadensity/native/a.py": "def f():\n    from ..nn import b", "metadensity/nn/b.py": ""}, "above"),
        ({"tasks/base.py": "from tasks.images import I", "tasks/images.py": ""}, "above"),
        ({"experiments/recording/a.py": "from experiments.train import ex", "experiments/train.py": ""}, "above"),
        ({"metadensity/nn/a.py": "import metadensity", "metadensity/__init__.py": ""}, "made of its rooms"),
        ({"metadensity/attic/a.py": "import metadensity.files", "metadensity/files.py": ""}, "no list"),
        ({"metadensity/nn/a.py": "from . import b", "metadensity/nn/b.py": "from metadensity.nn import a"}, "circle"),
        (
            {
                "tasks/data/a.py": "from tasks.data.b import f",
                "tasks/data/b.py": "import tasks.data.c",
                "tasks/data/c.py": "from tasks.data import a",
            },
            "circle",
        ),
    ],
)
def test_a_wrong_way_is_caught(sources: dict[str, str], said: str, tmp_path: Path) -> None:
    for path, source in sources.items():
        write(tmp_path, path, source)
    found = wrong_ways(tmp_path)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("metadensity", ["tasks", "experiments", "sacred", "tensorboard", "torchvision", "torchmeta", "learn2learn"]),
        ("tasks", ["experiments", "sacred", "tensorboard", "torchvision", "torchmeta", "learn2learn"]),
        # What takes long to import is imported where it is used: every command begins with this.
        ("experiments.train", ["scipy.special", "scipy.stats", "tensorboard", "sklearn", "matplotlib", "papermill"]),
    ],
)
def test_importing_loads_nothing_from_above_and_nothing_slow(package: str, absent: list[str], repo_root: Path) -> None:
    code = f"import sys, {package}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def write(root: Path, path: str, source: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".ipynb":
        source = json.dumps({"cells": [{"cell_type": "code", "source": source.splitlines(keepends=True)}]})
    target.write_text(source, encoding="utf-8")

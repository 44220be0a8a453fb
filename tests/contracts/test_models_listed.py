"""Every file of metadensity/models is listed in MODELS, as only what is listed is tested, saved and loaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from metadensity import FewShotModel, models
from metadensity.models import MODELS

NO_MODELS = {"__init__", "base"}
FOLDER = Path(models.__file__).parent


def unlisted(folder: Path, listed: Mapping[str, type[FewShotModel]]) -> set[str]:
    """Files in ``folder`` whose module gives no class to ``listed``; those that start with _ are helpers."""
    files = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    named = {kind.__module__.removeprefix("metadensity.models.").partition(".")[0] for kind in listed.values()}
    return {name for name in files if not name.startswith("_")} - NO_MODELS - named


def test_every_file_is_listed() -> None:
    assert not unlisted(FOLDER, MODELS), "add a line to MODELS in metadensity/models/__init__.py"


def test_every_model_is_public() -> None:
    for kind in MODELS.values():
        assert getattr(models, kind.__name__) is kind


def test_a_file_that_is_not_listed_is_seen(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    assert unlisted(folder, MODELS) == set()
    (folder / "forgotten.py").touch()
    (folder / "in_parts").mkdir()
    (folder / "in_parts" / "__init__.py").touch()
    assert unlisted(folder, MODELS) == {"forgotten", "in_parts"}


@pytest.mark.parametrize("name", MODELS)
def test_a_line_that_is_taken_away_is_seen(name: str) -> None:
    rest = {other: kind for other, kind in MODELS.items() if other != name}
    assert unlisted(FOLDER, rest) == {MODELS[name].__module__.rpartition(".")[2]}

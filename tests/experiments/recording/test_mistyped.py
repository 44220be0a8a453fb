"""A key that is mistyped, at any depth of any experiment, is refused with the one that was meant."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import experiments
from experiments import train
from experiments.recording.command_line import SafeExperiment
from experiments.recording.settings import SettingError
from metadensity.models import MODELS
from tasks import TASKS

NAMES = [each.name for each in pkgutil.iter_modules(experiments.__path__)]
EXPERIMENTS: dict[str, SafeExperiment] = {
    name: found
    for name in NAMES
    if isinstance(found := getattr(importlib.import_module(f"experiments.{name}"), "experiment", None), SafeExperiment)
}
Path_ = tuple[str, ...]


def paths(config: Mapping[str, Any], above: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every key, groups of settings among them, with its value."""
    for key, value in config.items():
        yield (*above, key), value
        if isinstance(value, Mapping):
            yield from paths(value, (*above, key))


def misspelt(key: str, number: int) -> str:
    """With a letter doubled, left out, or two exchanged, in turn; short keys with one doubled."""
    middle, kind = len(key) // 2, number % 3
    swapped = key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    short = len(key) < 4 or (kind == 2 and swapped == key)
    return key + key[-1] if kind == 0 or short else key[:middle] + key[middle + 1 :] if kind == 1 else swapped


def require_refused(experiment: SafeExperiment, chosen: dict[str, Any], group: str = "") -> int:
    """Mistype each key of the configuration, or of a group of it, one at a time. Returns the greatest depth."""
    depth = 0
    for number, (path, value) in enumerate(paths(experiment.configuration((), chosen))):
        if group and path[0] != group:
            continue
        *above, key = path
        typed = {above[0]: {**chosen.get(above[0], {}), misspelt(key, number): value}} if above else {}
        typed = typed or {misspelt(key, number): value}
        with pytest.raises(SettingError, match=rf"Did you mean .*\b{'.'.join(path)}\b"):
            pytest.fail(f"taken: {experiment.configuration((), {**chosen, **typed})}")
        depth = max(depth, len(path))
    return depth


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_key_of_every_experiment(name: str) -> None:
    assert require_refused(EXPERIMENTS[name], {}) == (2 if EXPERIMENTS[name].ingredients else 1)


@pytest.mark.parametrize(
    ("group", "name"), [*itertools.product(["model"], MODELS), *itertools.product(["task"], TASKS)], ids=str
)
def test_every_option_of_every_model_and_task(group: str, name: str) -> None:
    needed = {"folder": "."} if name in ("folder", "mirror") else {}
    assert require_refused(train.experiment, {group: {"name": name, **needed}}, group) == 2


def test_every_experiment_is_here() -> None:
    made = {path.stem for path in Path(experiments.__path__[0]).glob("*.py") if "make_experiment(" in path.read_text()}
    assert EXPERIMENTS.keys() == made
    assert len(made) > 10
    ingredients = {each.path for experiment in EXPERIMENTS.values() for each in experiment.ingredients}
    assert ingredients == {"model", "task", "training"}


@pytest.mark.parametrize(
    ("likelihood", "says"),
    [
        ({"nmae": "logistic"}, "has no 'name', which decides what options there are"),
        ({"name": "logistic", "componets": 3}, "'logistic' has no option 'componets': it takes 'components'"),
        ({"name": "logistci"}, "choose 'categorical'"),
        ({"name": {"name": "logistic"}}, "choose 'categorical'"),
    ],
    ids=str,
)
def test_a_dictionary_within_a_setting_is_refused_before_anything_is_done(
    likelihood: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METADENSITY_RUNS", str(tmp_path))
    settings = {"model": {"likelihood": likelihood}, "task": {"name": "templates"}, "progress": False}
    train.experiment.observers[:] = []
    with pytest.raises(ValueError, match=says):
        train.experiment.run(named_configs=["fast"], config_updates=settings)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_a_key_below_a_plain_setting_is_refused() -> None:
    for settings in ({"training": {"steps": {"a": 3}}}, {"seed": {"a": 3}}, {"model": {"layers": {"a": 3}}}):
        with pytest.raises(SettingError, match=r"=\{'a': 3\}; give a whole number"):
            train.experiment.configuration((), settings)


def test_mistyping_is_no_other_key() -> None:
    """The control: what is spelt right is taken, and every kind of mistype changes the key."""
    assert train.experiment.configuration((), {"training": {"steps": 3}})["training"]["steps"] == 3
    for key in ("name", "run", "split_seed", "ll", "noon"):
        assert all(misspelt(key, number) != key for number in range(3))
    assert {misspelt("steps", number) for number in range(3)} == {"stepss", "stps", "setps"}

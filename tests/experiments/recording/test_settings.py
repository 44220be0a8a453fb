"""What is typed is taken as the kind its setting has, or refused with what to type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from experiments import evaluate, train
from experiments.ingredients import TRAINING_DEFAULTS
from experiments.recording.docstrings import explanations
from experiments.recording.settings import (
    Setting,
    SettingError,
    alike,
    fit,
    fitted,
    in_short,
    in_words,
    kind_of,
    settings_of,
    signature_settings,
)
from metadensity.models import MODELS
from metadensity.training import TrainingConfig
from tasks import TASKS


@pytest.mark.parametrize(
    ("value", "kind", "taken"),
    [
        (3, int, 3),
        (1e3, int, 1000),
        (3, float, 3),
        (0.5, float, 0.5),
        (True, bool, True),
        ("runs/7", str, "runs/7"),
        (7, str, "7"),
        (Path("runs/7"), str, "runs/7"),
        (4, list[int], [4]),
        ((1, 2), list[int], [1, 2]),
        (4, list[int] | None, [4]),
        (None, list[int] | None, None),
        ("training.steps", list[str], ["training.steps"]),
        (3, list[str], ["3"]),
        ([3, "runs/4"], list[str | int], [3, "runs/4"]),
        (3, str | int, 3),
        ([[1], [2, 4]], list[list[int]], [[1], [2, 4]]),
        ([1, 2], tuple[int, ...], [1, 2]),
        ("mixture", str | Mapping[str, Any], "mixture"),
        ({"name": "mixture"}, str | Mapping[str, Any], {"name": "mixture"}),
        ("a", Literal["a", "b"], "a"),
        ("one", str | Sequence[str] | None, "one"),
        (object, Any, object),
        (len, Callable[..., int], len),
    ],
    ids=str,
)
def test_what_is_taken(value: Any, kind: Any, taken: Any) -> None:
    found = fitted("x", value, kind)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ("abc", float, "x='abc'; give a number."),
        (True, int, "x=True; give a whole number."),
        (True, float, "x=True; give a number."),
        (1.5, int, "x=1.5; give a whole number."),
        (None, int, "x=None; give a whole number."),
        ("true", bool, "x='true'; give True or False."),
        (1, bool, "x=1; give True or False."),
        ("[1,2", list[int], "x='[1,2'; give a list of whole numbers, for example x=\"[1,2]\"."),
        ([1, "b"], list[int] | None, "x=[1, 'b']; give a list of whole numbers or None, for example x=\"[1,2]\"."),
        ("c", Literal["a", "b"], "x='c'; give 'a' or 'b'."),
        ([1], str, "x=[1]; give text."),
    ],
    ids=str,
)
def test_what_is_refused(value: Any, kind: Any, says: str) -> None:
    with pytest.raises(SettingError) as caught:
        fitted("x", value, kind)
    assert str(caught.value) == says


@pytest.mark.parametrize("seed", [-1, 2**32, True, 0.5, "abc"])
def test_a_seed_out_of_range_is_refused(seed: Any) -> None:
    with pytest.raises(SettingError, match=rf"seed={seed!r}; give a whole number from 0 to 4294967295"):
        fitted("seed", seed, Any)
    assert fitted("seed", 2**32 - 1, Any) == 2**32 - 1


def test_only_what_was_typed_is_fitted() -> None:
    settings = {"training.shots": Setting((1,), list[int]), "run": Setting("latest", str), "free": Setting()}
    typed: dict[str, Any] = {"training": {"shots": 3, "steps": 4}, "free": "1"}
    fit(typed, settings)
    assert typed == {"training": {"shots": [3], "steps": 4}, "free": "1"}


def test_annotations_and_names_for_them() -> None:
    assert kind_of("list[int] | None") == list[int] | None
    assert kind_of("Sequence[str]") == Sequence[str]
    assert kind_of("SomethingOfItsOwnModule") is Any
    assert kind_of(inspect.Parameter.empty) is Any
    assert (in_short(list[int] | None), in_short(str | Mapping[str, Any]), in_short(Any)) == (
        *("list[int] | None", "str | dict", ""),
    )
    assert in_words(str | None) == "text or None"


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("training.step", ["training.steps", "seed", "task.size"], ["training.steps"]),
        ("steps", ["training.steps", "seed"], ["training.steps"]),
        ("model.sise", ["task.size", "model.planes"], ["task.size"]),
        ("digit", ["digits", "dot", "templates"], ["digits"]),
        ("zzz", ["digits", "dot"], []),
    ],
)
def test_what_was_meant(name: str, known: list[str], meant: list[str]) -> None:
    assert alike(name, known) == meant


def documented(one: int, *, two: float = 0.5, three: str = "a", four: bool = False) -> None:
    """Does something.

    one, two: how many, and
        how much of each. three: what it is called.
    Raises ValueError for four: never.
    """


def test_docstrings_explain_arguments() -> None:
    found = explanations(documented, {"one", "two", "three", "four"})
    text = "how many, and how much of each"
    assert found == {"one": text, "two": text, "three": "what it is called"}
    settings = signature_settings(inspect.signature(documented).parameters.values(), found)
    assert settings["two"] == Setting(0.5, float, text)
    assert settings["four"] == Setting(False, bool, "")


def test_every_setting_of_training_and_most_options_are_explained() -> None:
    assert explanations(TrainingConfig, TRAINING_DEFAULTS.keys()).keys() == TRAINING_DEFAULTS.keys()
    for group, registered in (("model", MODELS), ("task", TASKS)):
        for name in registered:
            found = settings_of(train.experiment, {group: {"name": name}})
            own = {key: each for key, each in found.items() if key.startswith(f"{group}.")}
            silent = [key for key, each in own.items() if not each.text]
            assert len(silent) <= len(own) // 3, (name, silent)
            assert not [key for key, each in own.items() if "Raises" in each.text], name


def test_the_settings_of_an_experiment_have_kinds_and_texts() -> None:
    found = settings_of(evaluate.experiment, {})
    assert found["shots"].kind == list[int] | None
    assert found["shots"].text.startswith("a list; None: 0, 1, 2, 4 and 8")
    assert found["run"].default == "latest"
    assert found["seed"].text == "of the supports, of what a bound draws, and of what is trained"
    assert not any("noqa" in each.text for each in found.values())

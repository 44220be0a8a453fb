"""Settings of an experiment: of what kind each is, what it is for, and what was typed, as that kind.

Kinds are those of the signatures that take the settings; explanations are the comments beside their defaults, or what
the docstrings of the model, the task and the training say of them. So nothing is said twice.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import types
import typing
from collections import abc
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from sacred import Ingredient
from sacred.config import ConfigScope
from sacred.utils import SacredError, join_paths

LARGEST_SEED = 2**32 - 1  # numpy's
EXAMPLES = {int: "[1,2]", float: "[0.1,0.2]", str: "['one','other']"}
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None"}
_NAMES = {**vars(typing), **{name: getattr(abc, name) for name in abc.__all__}, "Path": Path, "os": os}
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number that YAML takes for text where it has no point
_MISFIT = object()


class SettingError(SacredError, ValueError):
    """A setting that was typed, and cannot be meant."""

    def __init__(self, message: str) -> None:
        super().__init__(message, print_traceback=False, print_usage=False)


@dataclass(frozen=True)
class Setting:
    """default: ``inspect.Parameter.empty`` where there is none. kind: a type hint, Any where nothing is known."""

    default: Any = inspect.Parameter.empty
    kind: Any = Any
    text: str = ""


def kind_of(annotation: Any) -> Any:
    """The type that an annotation means, as text or as it is; Any where this cannot tell."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(_NAMES))
    except Exception:  # a name of its own module
        return Any


def signature_settings(parameters: Iterable[inspect.Parameter], texts: Mapping[str, str]) -> dict[str, Setting]:
    """The settings that are these parameters of a function, with what its docstring says of them."""
    return {
        each.name: Setting(_listed(each.default), kind_of(each.annotation), texts.get(each.name, ""))
        for each in parameters
    }


def settings_of(experiment: Ingredient, chosen: Mapping[str, Any]) -> dict[str, Setting]:
    """All settings of an experiment and its ingredients, by their whole names.

    chosen: what is set already, as a model's name decides what options there are.
    """
    found = {"seed": Setting(kind=int, text="of all that is drawn")}  # every experiment of Sacred's has one
    ingredients = [each for each, _ in experiment.traverse_ingredients()]
    for ingredient in ingredients[::-1]:
        path = "" if ingredient is experiment else ingredient.path
        given = chosen.get(path, {}) if path else chosen
        for scope in ingredient.configurations:
            own = scope.settings(given) if hasattr(scope, "settings") else _plain_settings(scope)
            found |= {join_paths(path, name): setting for name, setting in own.items()}
        for function in (each for each in ingredient.captured_functions if not each.__module__.startswith("sacred.")):
            for name, parameter in inspect.signature(function.__wrapped__).parameters.items():
                whole = join_paths(path, function.prefix, name)
                kind = kind_of(parameter.annotation)
                if name.startswith("_") or any(known.startswith(f"{whole}.") for known in found):
                    continue
                known = found.get(whole, Setting(parameter.default))
                found[whole] = replace(known, kind=kind) if kind is not Any else known
    return found


def fit(typed: MutableMapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Give what was typed the kind that its setting has, in place: 3 as [3] for a list, 7 as "7" for text.

    Raises SettingError for what is of another kind, and for a seed out of range.
    """
    for name, setting in settings.items():
        *parts, last = name.split(".")
        place: Any = typed
        for part in parts:
            place = place.get(part) if isinstance(place, Mapping) else None
        if isinstance(place, MutableMapping) and last in place:
            place[last] = fitted(name, place[last], setting.kind)


def fitted(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the setting ``name`` of this kind takes it. Raises SettingError where it cannot."""
    if name == "seed":
        if value is None or (_is(value, Integral) and 0 <= value <= LARGEST_SEED):
            return value
        raise SettingError(f"seed={value!r}; give a whole number from 0 to {LARGEST_SEED}.")
    found = _as(value, kind, convert=False)
    if found is _MISFIT:
        found = _as(value, kind, convert=True)
    if found is _MISFIT:
        examples = [EXAMPLES[_item(each)] for each in _arms(kind) if _is_list(each) and _item(each) in EXAMPLES]
        shown = f', for example {name}="{examples[0]}"' if examples else ""
        raise SettingError(f"{name}={value!r}; give {in_words(kind)}{shown}.")
    return found


def unknown_setting(name: str, known: Iterable[str]) -> SettingError:
    """The error for a setting there is not, with those that look like it."""
    near = alike(name, known)
    meant = f" Did you mean {' or '.join(near)}?" if near else " --help lists those there are."
    return SettingError(f"There is no setting {name}.{meant}")


def alike(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of ``known`` that ``name`` may have been meant for: with the same last part, or spelt nearly so."""
    known = list(known)
    last = {each: each.rpartition(".")[2] for each in known}
    same = [each for each in known if last[each] == name.rpartition(".")[2]]
    near = difflib.get_close_matches(name, known, 3, 0.75)
    parts = difflib.get_close_matches(name.rpartition(".")[2], set(last.values()), 1, 0.75)
    return list(dict.fromkeys([*same, *near, *(each for each in known if last[each] in parts)]))[:3]


def in_words(kind: Any) -> str:
    """What a setting of this kind is to be given."""
    return " or ".join(dict.fromkeys(_in_words(each) for each in _arms(kind)))


def in_short(kind: Any) -> str:
    """The kind, as Python has it; nothing where it is not known."""
    if kind is Any or kind is object:
        return ""
    return " | ".join(dict.fromkeys(filter(None, map(_in_short, _arms(kind)))))


def _plain_settings(scope: Any) -> dict[str, Setting]:
    """Those of a configuration scope of Sacred's: a dictionary, or the local variables of a function."""
    try:
        values = dict(scope())
    except KeyError:  # it takes settings of other scopes
        values = {}
    texts = _comments(scope) if isinstance(scope, ConfigScope) else {}
    return {
        name: Setting(value, list[Any] if isinstance(value, list) else Any, texts.get(name, ""))
        for name, value in values.items()
    }


def _comments(scope: ConfigScope) -> dict[str, str]:
    """What Sacred finds beside the settings, and beside ``seed``, for which it has words of its own."""
    texts = {name: text for name, text in scope._var_docs.items() if name != "seed"}
    beside = re.search(r"^\s*seed = [^#\n]*#\s*(.+)$", inspect.getsource(scope._func), re.MULTILINE)
    if beside is not None:
        texts["seed"] = beside[1]
    return {name: re.sub(r"^noqa(: ?[A-Z0-9, ]+)?\s*", "", text) for name, text in texts.items()}


def _arms(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _is_list(kind: Any) -> bool:
    found = typing.get_origin(kind) or kind
    return isinstance(found, type) and issubclass(found, Iterable) and not issubclass(found, str | bytes | Mapping)


def _item(kind: Any) -> Any:
    """Of what kind the items of a list are."""
    return next((each for each in typing.get_args(kind) if each is not ...), Any)


def _is(value: Any, kind: Any) -> bool:
    """``isinstance``, but True and False are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _as(value: Any, kind: Any, convert: bool, wrap: bool = True) -> Any:
    """``value`` as this kind, or _MISFIT. convert: also what only looks like it. wrap: one item stands for a list."""
    if len(arms := _arms(kind)) > 1:
        return next((found for each in arms if (found := _as(value, each, convert, wrap)) is not _MISFIT), _MISFIT)
    origin = typing.get_origin(kind) or kind
    if kind is None or origin is type(None):
        return None if value is None else _MISFIT
    if origin is Literal:
        return value if value in typing.get_args(kind) else _MISFIT
    if origin is bool:
        return value if isinstance(value, bool) else _MISFIT
    if origin is int:
        whole = convert and _is(value, float) and float(value).is_integer()
        return value if _is(value, Integral) else int(value) if whole else _MISFIT
    if origin is float:
        if convert and isinstance(value, str) and EXPONENT.fullmatch(value):
            return float(value)
        return value if _is(value, Real) else _MISFIT
    if origin is str:
        if convert and (_is(value, int | float) or isinstance(value, os.PathLike)):  # a run by its number, or a path
            return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        return value if isinstance(value, str) else _MISFIT
    for abstract, accepted in ((Mapping, Mapping), (os.PathLike, str | os.PathLike)):
        if isinstance(origin, type) and issubclass(origin, abstract):
            return value if isinstance(value, accepted) else _MISFIT
    if _is_list(kind):
        return _as_list(value, _item(kind), convert, wrap)
    return value if value is not None or origin in (Any, object) or not isinstance(origin, type) else _MISFIT


def _as_list(value: Any, item: Any, convert: bool, wrap: bool) -> Any:
    if value is None or isinstance(value, Mapping):
        return _MISFIT
    if isinstance(value, str) or not isinstance(value, Iterable):
        found = _as(value, item, convert, wrap=False) if convert and wrap else _MISFIT
        return found if found is _MISFIT else [found]
    if _is_list(item):  # what lists of lists mean is for those who take them to say
        return list(value)
    items = [_as(each, item, convert, wrap=False) for each in value]
    return _MISFIT if any(each is _MISFIT for each in items) else items


def _in_words(kind: Any) -> str:
    if _is_list(kind):
        plural = {int: "whole numbers", float: "numbers", str: "names"}
        item = _item(kind)
        return f"a list of {plural[item]}" if item in plural else "a list"
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    origin = typing.get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping such as {'name': ...}"
    return WORDS.get(origin, "text")


def _in_short(kind: Any) -> str:
    if _is_list(kind):
        item = _in_short(_item(kind))
        return f"list[{item}]" if item else "list"
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(repr, typing.get_args(kind)))
    origin = typing.get_origin(kind) or kind
    if kind is Any or not isinstance(origin, type):
        return ""
    if issubclass(origin, Mapping):
        return "dict"
    if issubclass(origin, os.PathLike):
        return "str"
    return "None" if origin is type(None) else origin.__name__


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

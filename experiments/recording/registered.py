"""Settings that are the options of something registered under a name, a model or a task.

Its own signature says which there are and what they are by default, so nothing is said twice, and what users register
themselves has its options on the command line at once.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from sacred.config import ConfigDict
from sacred.config.config_summary import ConfigSummary

from experiments.recording.docstrings import explanations
from experiments.recording.settings import Setting, SettingError, alike, signature_settings
from metadensity import FewShotModel


class UnknownOptionError(SettingError):
    """A setting that was typed, and that what was chosen does not take."""


class RegisteredOptions:
    """A configuration scope of Sacred's: ``name``, and the options of what is found under it, at their own defaults.

    path: of the ingredient. find: by name, the class or function whose options these are; raises for a name there is
    not. default: the name where none is given. given: arguments that are no settings, as the experiment gives them.
    """

    def __init__(
        self, path: str, find: Callable[[str], Callable[..., Any]], default: str, given: Collection[str]
    ) -> None:
        self.path, self.find, self.default, self.given = path, find, default, frozenset(given)

    def __call__(
        self, fixed: Mapping[str, Any] | None = None, preset: Any = None, fallback: Any = None
    ) -> ConfigSummary:
        """Sacred's: the settings, of which ``fixed`` are typed or of named configurations."""
        name = (fixed or {}).get("name", self.default)
        if isinstance(fixed, dict):  # in place, as Sacred writes it over the result in the end
            fixed.update(self.absolute(name, fixed))
        fixed = dict(fixed or {})
        return ConfigDict({"name": name, **self.complete(name, fixed)})(fixed, preset, fallback)

    def complete(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options of what is called ``name``: those given, and the defaults of the others.

        Raises UnknownOptionError for one that it does not take, and for one without a default that is not given.
        """
        options = {key: value for key, value in options.items() if key != "name"}
        takes = self.takes(name, options)
        if unknown := sorted(options.keys() - takes.keys()):
            said = ", ".join(f"{self.path}.{key}" for key in unknown)
            near = alike(unknown[0], ["name", *takes])
            meant = f" Did you mean {' or '.join(f'{self.path}.{key}' for key in near)}?" if near else ""
            raise UnknownOptionError(
                f"There is no {said} where {self.path}.name={name}; it takes {', '.join(takes) or 'none'}.{meant}"
            )
        whole = {**takes, **options}
        if absent := [key for key, value in whole.items() if value is inspect.Parameter.empty]:
            raise UnknownOptionError(f"{self.path}.{absent[0]} has no default where {self.path}.name={name}; give it.")
        return whole

    def read(self, config: Mapping[str, Any], earlier: Collection[str]) -> dict[str, Any]:
        """Recorded settings, the name among them, complete.

        earlier: options that earlier versions recorded whether they were taken or not, which are left out where they
        are not. What a model of an earlier version did where it had no option counts, not the default of today. Raises
        as ``complete``.
        """
        name = config["name"]
        takes = self.takes(name, {key: value for key, value in config.items() if key != "name" and key not in earlier})
        kept = {key: value for key, value in config.items() if key != "name" and (key in takes or key not in earlier)}
        if isinstance(found := self.find(name), type) and issubclass(found, FewShotModel):
            kept = found.complete(kept)
        return {"name": name, **self.absolute(name, self.complete(name, kept))}

    def absolute(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """``options`` with absolute paths for relative ones that there are from here.

        So a record means the same wherever it is read. Others, such as those relative to the data root, stay.
        """
        parameters = inspect.signature(self.find(name)).parameters
        paths = {key for key, each in parameters.items() if "PathLike" in str(each.annotation)}
        return {
            key: str(Path(value).absolute()) if key in paths and _is_there(value) else value
            for key, value in options.items()
        }

    def knows(self, name: str) -> bool:
        """Whether something is registered under this name."""
        try:
            self.find(name)
        except (KeyError, ValueError):
            return False
        return True

    def takes(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of what is called ``name``, with their defaults, where ``options`` are among those chosen."""
        signature = self._signature(name, options)
        open_ended = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        takes = {
            key: list(each.default) if isinstance(each.default, tuple) else each.default
            for key, each in signature.parameters.items()
            if key not in self.given and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        }
        return {**dict.fromkeys(options.keys() - takes.keys()), **takes} if open_ended else takes

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Setting]:
        """The name, and the options of what is called so: of what kind they are, and what its docstring says of them.

        chosen: some of the settings, which decide what there is. Raises for a name there is not.
        """
        name = chosen.get("name", self.default)
        options = {key: value for key, value in chosen.items() if key != "name"}
        takes, signature = self.takes(name, options), self._signature(name, options)
        texts = explanations(self.find(name), takes.keys())
        own = [each for key, each in signature.parameters.items() if key in takes]
        return {"name": Setting(self.default, str, f"which {self.path}"), **signature_settings(own, texts)}

    def _signature(self, name: str, options: Mapping[str, Any]) -> inspect.Signature:
        found = self.find(name)
        if isinstance(found, type) and issubclass(found, FewShotModel):
            return found.signature(options)  # which one option may decide
        return inspect.signature(found)

    def fitting(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``options`` that what is called ``name`` takes."""
        takes = self.takes(name, options)
        return {key: value for key, value in options.items() if key in takes}


def _is_there(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and Path(path).exists()

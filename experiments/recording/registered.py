"""Settings that are the options of something registered under a name, a model or a task.

Its own signature says which there are and what they are by default, so nothing is said twice, and what users register
themselves has its options on the command line at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sacred.config import ConfigDict
from sacred.config.config_summary import ConfigSummary
from sacred.utils import SacredError

from metadensity import FewShotModel


class UnknownOptionError(SacredError, ValueError):
    """A setting that was typed, and that what was chosen does not take."""

    def __init__(self, message: str) -> None:
        super().__init__(message, print_traceback=False, print_usage=False)


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
        fixed = dict(fixed or {})
        name = fixed.get("name", self.default)
        return ConfigDict({"name": name, **self.complete(name, fixed)})(fixed, preset, fallback)

    def complete(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options of what is called ``name``: those given, and the defaults of the others.

        Raises UnknownOptionError for one that it does not take, and for one without a default that is not given.
        """
        options = {key: value for key, value in options.items() if key != "name"}
        takes = self.takes(name, options)
        if unknown := sorted(options.keys() - takes.keys()):
            said = ", ".join(f"{self.path}.{key}" for key in unknown)
            raise UnknownOptionError(
                f"There is no {said} where {self.path}.name={name}; it takes {', '.join(takes) or 'none'}."
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
        return {"name": name, **self.complete(name, kept)}

    def knows(self, name: str) -> bool:
        """Whether something is registered under this name."""
        try:
            self.find(name)
        except (KeyError, ValueError):
            return False
        return True

    def takes(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of what is called ``name``, with their defaults, where ``options`` are among those chosen."""
        found = self.find(name)
        if isinstance(found, type) and issubclass(found, FewShotModel):
            signature = found.signature(options)  # which one option may decide
        else:
            signature = inspect.signature(found)
        open_ended = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        takes = {
            key: list(each.default) if isinstance(each.default, tuple) else each.default
            for key, each in signature.parameters.items()
            if key not in self.given and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        }
        return {**dict.fromkeys(options.keys() - takes.keys()), **takes} if open_ended else takes

    def fitting(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``options`` that what is called ``name`` takes."""
        takes = self.takes(name, options)
        return {key: value for key, value in options.items() if key in takes}

"""The pages of the site: the READMEs and notebooks as they are, and what is read from the modules and commands."""

from __future__ import annotations

import ast
import base64
import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import rest, summary
from sphinx.pycode import ModuleAnalyzer

from experiments.recording.command_line import SafeExperiment
from experiments.recording.flat_configs import flatten
from experiments.recording.settings import in_short, settings_of

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("metadensity", "tasks", "experiments", "notebooks")
FIRST = ("CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]*)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# The packages with a page for each of their folders; of experiments, the commands have one.
REFERENCE = ("metadensity", "tasks")
NOTHING = "\\ "  # a paragraph without words


def lay(folder: Path) -> None:
    """Write the source of every page into ``folder``."""
    readmes = [page.relative_to(ROOT) for floor in FLOORS for page in sorted((ROOT / floor).rglob("[A-Z]*.md"))]
    for page in (Path("README.md"), *readmes, *map(Path, FIRST)):
        text = _with_links((ROOT / page).read_text(), page.parent, folder)
        if page.name == "README.md" and (reference := _reference_of(page.parent)):
            text += f"\nEvery name, with its arguments: [{page.parent}](/{reference}.rst)\n"
        _write(folder / page.parent / page.name.replace("README", "index"), text)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = _notebook(json.loads(notebook.read_text()), folder / "notebooks", notebook.stem)
        _write(folder / "notebooks" / f"{notebook.stem}.md", _with_links(text, Path("notebooks"), folder))
    for name in packages():
        _write(folder / "reference" / f"{name}.rst", _package_page(name))
    _write(folder / "reference" / "index.rst", _reference_page())
    for name in commands():
        _write(folder / "commands" / f"{name}.rst", _command_page(name))
    _write(folder / "commands" / "index.rst", _commands_page())
    with (folder / "index.md").open("a") as first:
        first.write(_contents(readmes))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _contents(readmes: Iterable[Path]) -> str:
    """The tables of contents beside every page."""
    names = [str(page.with_suffix("")).replace("README", "index") for page in readmes]
    guides = {floor: [name for name in names if name.startswith(f"{floor}/")] for floor in FLOORS}
    notebooks = [f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    tables = {
        "Library": guides["metadensity"],
        "Tasks": guides["tasks"],
        "Experiments": [*guides["experiments"], "commands/index"],
        "Notebooks": ["notebooks/index", *notebooks],
        "Reference": ["reference/index"],
        "Project": ["CONTRIBUTING", "CHANGELOG"],
    }
    return "\n".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in tables.items()
    )


def _with_links(text: str, place: Path, folder: Path) -> str:
    """A page of the folder ``place``, its links leading to what is here of what they lead to there."""

    def target(found: re.Match[str]) -> str:
        name, heading = found[1], found[2] or ""
        path = Path(os.path.normpath(place / name)) if name else place
        if not name:
            return heading
        if path.suffix == ".ipynb":
            return f"/{path.with_suffix('.md')}"
        if path.suffix == ".py" and path.parts[0] in REFERENCE:
            return f"project:#{module_of(path)}"
        if path.name == "README.md":
            return f"/{path.parent / 'index.md'}{heading}"
        if (ROOT / path).is_dir():
            _write(folder / path / "index.md", _listing(path))
            return f"/{path}/index.md"
        if path.suffix != ".md" and not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
        return f"/{path}{heading}"

    parts = CODE.split(text)
    return "".join(part if number % 2 else LINK.sub(target, part) for number, part in enumerate(parts))


def _listing(place: Path) -> str:
    """What is in a folder that has no page: the files, those of Python with the first sentence of theirs."""
    lines = []
    for path in sorted((ROOT / place).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            said = summary(_docstring(path)) if path.suffix == ".py" else ""
            lines.append(f"`{path.relative_to(ROOT / place)}`\n: {said or f'{path.stat().st_size:,} bytes'}\n")
    return f"---\norphan: true\n---\n# {place}\n\n" + "\n".join(lines)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _notebook(notebook: Mapping[str, Any], folder: Path, name: str) -> str:
    """A notebook with its stored outputs as a page; pictures are written into ``folder``."""
    parts = []
    for number, cell in enumerate(notebook["cells"], 1):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source.strip():
            parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell.get("outputs", ())):
            data = {kind: "".join(said) for kind, said in output.get("data", {}).items()}
            if "image/png" in data:
                picture = f"{name}_{number}_{place}.png"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / picture).write_bytes(base64.b64decode(data["image/png"]))
                parts.append(f"![what this cell shows]({picture})")
            elif "text/html" in data:
                parts.append(f"````{{raw}} html\n{data['text/html']}\n````")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```{{code-block}} text\n:class: output\n\n{text}\n```")
    return "\n\n".join(parts) + "\n"


# The reference


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@cache
def packages() -> tuple[str, ...]:
    """The packages that have a page, in order."""
    return tuple(name for name in _modules() if hasattr(importlib.import_module(name), "__path__"))


@cache
def _modules() -> tuple[str, ...]:
    found = []
    for floor in REFERENCE:
        found.append(floor)
        package = importlib.import_module(floor)
        found += [each.name for each in pkgutil.walk_packages(package.__path__, f"{floor}.")]
    return tuple(sorted(found))


@cache
def homes() -> dict[tuple[str, str], str]:
    """For each public object, by the module and name of its definition: the shortest name to import it by."""
    found: dict[tuple[str, str], str] = {}
    for name in _modules():
        module = importlib.import_module(name)
        for key in _own(module):
            found[name, key] = f"{name}.{key}"
    for name in sorted(_modules(), key=lambda name: -name.count(".")):
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", ()):
            if (place := _place(module, key)) in found:
                found[place] = f"{name}.{key}"
    return found


@cache
def _own(module: ModuleType) -> list[str]:
    """What a module defines for others, in the order of its source: classes, functions, and explained values."""
    analyzer = ModuleAnalyzer.for_module(module.__name__)
    analyzer.analyze()
    explained = {name for (scope, name) in analyzer.attr_docs if not scope} | set(getattr(module, "__all__", ()))
    found = []
    for key, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__ and getattr(value, "__qualname__", "") == key
        is_value = key in explained and not isinstance(value, type | ModuleType) and not inspect.isroutine(value)
        if not key.startswith("_") and (is_own or (is_value and key in analyzer.tagorder)):
            found.append(key)
    return sorted(found, key=lambda key: analyzer.tagorder.get(key, 0))


def _place(module: ModuleType, key: str) -> tuple[str, str]:
    """Where a name of ``module`` is defined; a value has no such mark, so it is looked up where it came from."""
    value = getattr(module, key)
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__module__, value.__qualname__
    for name in _modules():
        other = importlib.import_module(name)
        if key in _own(other) and getattr(other, key) is value:
            return name, key
    return module.__name__, key


def entry_of(documented: Any) -> str | None:
    """Under what name an object, or a method of it, has its entry; None where it has none."""
    if isinstance(documented, property):
        documented = documented.fget
    if isinstance(documented, ModuleType):
        return documented.__name__ if documented.__name__ in _modules() else None
    first, _, method = getattr(documented, "__qualname__", "").partition(".")
    home = homes().get((getattr(documented, "__module__", ""), first))
    return home and (f"{home}.{method}" if method else home)


def _reference_of(folder: Path) -> str | None:
    """The page of the reference that belongs to a folder."""
    name = ".".join(folder.parts)
    return f"reference/{name}" if name in packages() else None


def _reference_page() -> str:
    contents = "\n".join(f"   {name}" for name in packages())
    about = {name: _rst(_first(importlib.import_module(name))) for name in packages()}
    return (
        _title("Reference", "=")
        + _definitions({f":doc:`{name}`": said for name, said in about.items()})
        + (f"\n.. toctree::\n   :hidden:\n\n{contents}\n")
    )


def _package_page(name: str) -> str:
    """A package: what it offers at its top, then each module with what it defines."""
    package = importlib.import_module(name)
    parts = [_title(name, "="), f".. automodule:: {name}\n   :no-members:\n"]
    if (ROOT / Path(*name.split(".")) / "README.md").is_file():
        parts.append(f"Read first: :doc:`/{'/'.join(name.split('.'))}/index`.\n")
    offered = {}
    for key in getattr(package, "__all__", ()):
        place = _place(package, key)
        if key != "__version__" and (entry := homes().get(place) or entry_of(getattr(package, key))):
            offered[f":py:obj:`{key} <{entry}>`"] = _rst(_first(getattr(package, key)))
    parts.append(_definitions(offered))
    modules = [name, *(each for each in _modules() if each.rpartition(".")[0] == name and each not in packages())]
    for module_name in modules:
        module = importlib.import_module(module_name)
        entries = [_entry(module, key) for key in _own(module)]
        if module_name != name:
            # A module may be hidden by a function of the same name, which is meant where it is linked to.
            hidden = "   :no-index:\n" if module_name in homes().values() else ""
            parts += [_title(module_name, "-"), f".. automodule:: {module_name}\n   :no-members:\n{hidden}"]
        parts += entries
    return "\n".join(parts)


def _entry(module: ModuleType, key: str) -> str:
    value, home = getattr(module, key), homes()[module.__name__, key]
    if inspect.isclass(value):
        shown = "" if value.__bases__ == (object,) else "   :show-inheritance:\n"
        return f".. autoclass:: {home}\n   :members:\n{shown}"
    if inspect.isroutine(value):
        return f".. autofunction:: {home}\n"
    shown = ""
    if isinstance(value, Mapping):
        names = {f"``{name}``": entry_of(each) for name, each in value.items()}
        items = [f"{name} :py:obj:`~{entry}`" if entry else name for name, entry in names.items()]
        shown = "\n   " + ", ".join(items) + "\n"
    return f".. autodata:: {home}\n   :no-value:\n{shown}"


def _first(documented: Any) -> str:
    """The first sentence of what is said of an object; of a value, nothing, as its docstring is that of its type."""
    of_its_own = isinstance(documented, ModuleType) or inspect.isclass(documented) or inspect.isroutine(documented)
    return summary(documented.__doc__) if of_its_own else ""


def _rst(text: str) -> str:
    return " ".join(rest(text, None, entry_of)).strip()


# The commands


def commands() -> list[str]:
    return sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))


def _command_page(name: str) -> str:
    """A command: what it is for, its settings and its named configurations, or its flags."""
    module = importlib.import_module(f"experiments.{name}")
    parts = [_title(name, "="), *rest(module.__doc__ or "", module, entry_of)]
    experiment = getattr(module, "experiment", None)
    if isinstance(experiment, SafeExperiment):
        settings = sorted(settings_of(experiment, {}).items(), key=lambda item: "." in item[0])
        parts += [_title("Settings", "-"), _definitions({_heading(*each): _rst(each[1].text) for each in settings})]
        if configs := {each: flatten(dict(found())) for each, found in experiment.gather_named_configs()}:
            shown = {f"``{each}``": _assignments(config) for each, config in configs.items()}
            parts += [_title("Named configurations", "-"), _definitions(shown)]
        parts.append(":doc:`Flags that all experiments have <index>`.\n")
    elif "argparse" in vars(module):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            module.main(["--help"])
        parts += [_title("Flags", "-"), "::", "", *(f"   {line}" for line in said.getvalue().splitlines()), ""]
    return "\n".join(parts)


def _heading(name: str, setting: Any) -> str:
    kind = in_short(setting.kind)
    given = "" if setting.default is inspect.Parameter.empty else f" = {setting.default!r}"
    return f"``{name}{f': {kind}' if kind else ''}{given}``"


def _assignments(config: Mapping[str, Any]) -> str:
    return (
        " ".join(f"``{name}={str(value).replace(' ', '')}``" for name, value in config.items()) or "Nothing of its own."
    )


def _commands_page() -> str:
    about = {f":doc:`{name}`": _rst(_first(importlib.import_module(f"experiments.{name}"))) for name in commands()}
    options = importlib.import_module("experiments.train").experiment.all_cli_options
    flags = {f"``{_flag(option)}``": _rst(option.get_description()) for option in options}
    contents = "\n".join(f"   {name}" for name in commands())
    return (
        _title("Commands", "=")
        + "Each is started as ``python -m experiments.NAME``; :doc:`/experiments/index` shows them at work.\n\n"
        + _definitions(about)
        + _title("Flags", "-")
        + "Those of Sacred, which all experiments have:\n\n"
        + _definitions(flags)
        + f"\n.. toctree::\n   :hidden:\n\n{contents}\n"
    )


def _flag(option: Any) -> str:
    return " ".join((*option.get_flags(), *([option.arg] if option.arg else [])))


def _title(text: str, mark: str) -> str:
    return f"\n{text}\n{mark * len(text)}\n\n"


def _definitions(texts: Mapping[str, str]) -> str:
    return "".join(f"{term}\n   {said or NOTHING}\n\n" for term, said in texts.items())

"""The site is built without a warning, holds every public name, setting and page, and needs no other host."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

from experiments.recording.command_line import SafeExperiment
from experiments.recording.settings import settings_of

FLOORS = ("metadensity", "tasks")
LOADED = {"script": "src", "img": "src", "source": "src", "audio": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and not {"next", "prev", "canonical"} & set(given.get("rel", "").split()):
            self.loaded.append(given.get("href", ""))
        if tag in LOADED and LOADED[tag] in given:
            self.loaded.append(given[LOADED[tag]])


def faults(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Links that lead nowhere within the site, and all that would be loaded from another host."""
    for path, page in pages.items():
        for target in (*page.links, *page.loaded):
            if re.match(r"https?:|//", target):
                if target in page.loaded:
                    yield f"{path}: {target} is loaded from another host"
                continue
            if target.startswith(("data:", "mailto:")):
                continue
            name, _, place = target.partition("#")
            file = (site / path.parent / unquote(name.partition("?")[0])).resolve() if name else (site / path).resolve()
            if not file.is_file():
                yield f"{path}: {target} is no file"
                continue
            other = pages.get(file.relative_to(site.resolve()))
            if place and other is not None and unquote(place) not in other.places:
                yield f"{path}: {target} is no place"


def public_names(root: Path) -> set[str]:
    """What the modules of the library and of tasks define or offer without an underscore, by the syntax trees."""
    found = set()
    for path in (path for floor in FLOORS for path in (root / floor).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found.add(module)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found.add(f"{module}.{node.name}")
    return found


def offered_names(root: Path) -> dict[str, set[str]]:
    """By what names the packages offer what their lists have: for each, by the name of its definition."""
    found: dict[str, set[str]] = {}
    for path in (path for floor in FLOORS for path in (root / floor).rglob("__init__.py")):
        package = ".".join(path.parent.relative_to(root).parts)
        module = importlib.import_module(package)
        for name in set(getattr(module, "__all__", ())) - {"__version__"}:
            value = getattr(module, name)
            home = getattr(value, "__module__", package) if callable(value) else package
            full = value.__name__ if isinstance(value, ModuleType) else f"{home}.{name}"
            found.setdefault(full, set()).add(f"{package}.{name}")
    return found


def test_the_site(tmp_path: Path, repo_root: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, str(repo_root / ".site" / "build.py"), str(site), "-t", "without_sources"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr

    pages = {path.relative_to(site): Page(path.read_text()) for path in site.rglob("*.html")}
    assert list(faults(site, pages)) == []
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text()), style

    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    entries = {line.split(" ")[0] for line in inventory.splitlines()}
    names, offered = public_names(repo_root), offered_names(repo_root)
    assert len(names) > 600
    assert [name for name in sorted(names) if not {name, *offered.get(name, ())} & entries] == []
    assert [name for name, others in offered.items() if not {name, *others} & entries] == []

    for script in (repo_root / "experiments").glob("[!_]*.py"):
        text = (site / "commands" / f"{script.stem}.html").read_text()
        experiment = getattr(importlib.import_module(f"experiments.{script.stem}"), "experiment", None)
        if isinstance(experiment, SafeExperiment):
            shown = set(re.findall(r'<span class="pre">([\w.]+?):?</span>', text))
            assert settings_of(experiment, {}).keys() - shown == set(), script.stem

    for readme in repo_root.glob("*/**/README.md"):
        if not readme.relative_to(repo_root).parts[0].startswith(".") and ".venv" not in readme.parts:
            shown = (site / readme.relative_to(repo_root).parent / "index.html").read_text()
            assert shown.count("<h2") >= readme.read_text().count("\n## "), readme
    for notebook in (repo_root / "notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{notebook.stem}.html").read_text()
        assert text.count("<img") >= notebook.read_text().count('"image/png"')

    arguments = (site / "reference" / "metadensity.training.html").read_text()
    assert re.search(
        r"<dt><code[^>]*><span class=\"pre\">steps</span></code></dt>\s*<dd><p>number of updates", arguments
    )
    assert "Search.setIndex(" in (site / "searchindex.js").read_text()[:200]  # a script, so that it loads from the disk


def test_a_fault_is_caught(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<p id="here">')
    good = '<a href="there.html#here"><a href="https://elsewhere.example"><img src="data:image/png;base64,A">'
    bad = [
        '<a href="away.html">',
        '<a href="there.html#away">',
        '<a href="#away">',
        '<script src="https://elsewhere.example/math.js">',
        '<link rel="stylesheet" href="//elsewhere.example/font.css">',
        '<img src="away.png">',
    ]
    other = Page((tmp_path / "there.html").read_text())
    (tmp_path / "page.html").touch()
    for text in (good, *bad):
        pages = {Path("there.html"): other, Path("page.html"): Page(good + text)}
        assert len(list(faults(tmp_path, pages))) == (text != good), text

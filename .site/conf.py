"""Sphinx's settings for the site; ``build.py`` lays the pages."""

from __future__ import annotations

import inspect
from typing import Any

from docstrings import rest
from pages import entry_of, homes

import metadensity

project = "metadensity"
release = metadensity.__version__
html_title = "metadensity"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
if not tags.has("without_sources"):  # noqa: F821  Sphinx gives it; the pages of all sources take as long as all others
    extensions.append("sphinx.ext.viewcode")
root_doc = "index"
highlight_language = "text"
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"
pygments_style, pygments_dark_style = "friendly", "monokai"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = html_show_sphinx = False


def _docstring(app: Any, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    text = "\n".join(lines)
    if what == "data" and inspect.cleandoc(text) == inspect.cleandoc(type(documented).__doc__ or ""):
        text = ""  # of dict, say
    lines[:] = rest(text, documented, entry_of)


def setup(app: Any) -> None:
    homes()
    app.connect("autodoc-process-docstring", _docstring)

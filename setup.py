"""What an index shows of the project: README.md, with links that lead somewhere there. The rest is pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def index_page(text: str, repository: str | None) -> str:
    """A page whose links into the repository lead to its address, or are text where it has none; code stays."""

    def absolute(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if repository is None:
            return "" if picture else words
        return f"{picture}[{words}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/HEAD/{target})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(absolute, part) for part in parts)


if __name__ == "__main__":
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = index_page((HERE / "README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Repository"))
    setup(long_description=page, long_description_content_type="text/markdown")

"""ruff and mypy pass, with the settings of pyproject.toml, and both are seen to catch an offence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OFFENCE = "import os\n\n\ndef double(number):\n    return 2 * number\n"  # an unused import; no types


def run(root: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def test_ruff(repo_root: Path) -> None:
    code, said = run(repo_root, "ruff", "check", "--no-fix", "--output-format=concise", ".")
    assert code == 0, said


def test_format(repo_root: Path) -> None:
    code, said = run(repo_root, "ruff", "format", "--check", ".")
    assert code == 0, said + "\nRun: .venv/bin/ruff format ."


def test_mypy(repo_root: Path) -> None:
    code, said = run(repo_root, "mypy")
    assert code == 0, said


def test_an_offence_is_caught(repo_root: Path, tmp_path: Path) -> None:
    offender = tmp_path / "offender.py"
    offender.write_text(OFFENCE)
    settings = str(repo_root / "pyproject.toml")
    code, said = run(repo_root, "ruff", "check", "--no-fix", f"--config={settings}", str(offender))
    assert code != 0
    assert "F401" in said
    code, said = run(repo_root, "mypy", f"--config-file={settings}", str(offender))
    assert code != 0
    assert "no-untyped-def" in said

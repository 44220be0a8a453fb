"""``metadensity COMMAND``: what it lists, what it runs, and what it says of a command there is not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from experiments import __main__ as console

FOLDER = Path(console.__file__).parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "experiments", *arguments]
    environment = {"PYTHONPATH": str(FOLDER.parent), "METADENSITY_RUNS": str(folder / "runs")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_every_command_has_a_line(repo_root: Path) -> None:
    there = {path.stem for path in FOLDER.glob("*.py") if not path.name.startswith("_")}
    assert {name.replace("-", "_") for name in console.commands()} == there
    for name, text in console.commands().items():
        assert 10 < len(text) < 80, f"begin the docstring of {name} with what it does, in a few words and a colon"
        assert "python -m" not in text
        assert f"\n  {name} " in console.listing()
    module, function = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["scripts"][
        "metadensity"
    ].split(":")
    assert getattr(import_module(module), function) is console.main


@pytest.mark.parametrize("typed", [[], ["--help"], ["help"]])
def test_alone_it_lists_them(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["metadensity", *typed])
    console.main()
    assert capsys.readouterr().out == f"{console.listing()}\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian", "There is no command 'trian'. Did you mean train?\n"),
        ("shots_gird", "There is no command 'shots_gird'. Did you mean shots-grid?\n"),
        ("__main__", "There is no command '__main__'. There are bench, classify, "),
        ("recording", "There is no command 'recording'. There are bench, "),  # a folder
    ],
)
def test_another_gets_the_nearest(
    typed: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["metadensity", typed])
    with pytest.raises(SystemExit) as ended:
        console.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_command_is_run_as_python_would(tmp_path: Path) -> None:
    """With its arguments and exit status."""
    done = run(tmp_path, "runs", "show", "7")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no run 7")


def test_the_list_imports_nothing(tmp_path: Path) -> None:
    code = "import sys; from experiments.__main__ import main; main(); sys.exit(len({'torch', 'sacred', 'numpy'} & "
    code += "set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{console.listing()}\n"

"""What the pages show is run: every program, every command; every link leads somewhere, every list is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from experiments.ingredients import NAMED_CONFIGS
from experiments.new_task import TEMPLATE
from experiments.reproductions.omniglot import OMNIGLOT, PAPER_ATTENTION
from experiments.reproductions.records import read_records
from experiments.results import RECORDS
from experiments.results.shipped_weights import shipped
from metadensity import evaluate
from metadensity.evaluation.cost import parameter_count
from metadensity.models import MODELS
from metadensity.models.attention import AttentionPixelCNN
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("metadensity", "tasks", "experiments", "notebooks", "tests")
FIRST = (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
PAGES = [*FIRST, *sorted(page for floor in FLOORS for page in (ROOT / floor).rglob("README.md"))]
LONGEST = 9 * 1024  # bytes of README.md: five minutes


def page(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def execute(program: str, name: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(program, name, "exec"), names)
    return names


def commands(text: str) -> list[str]:
    """The experiments in the ``bash`` blocks of a page, without their comments."""
    lines = [line.split("#")[0].strip() for block in blocks("bash", text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("python -m experiments.")]


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level that ends so."""
    return re.split(rf"^## .*{heading}$", text, flags=re.MULTILINE | re.IGNORECASE)[1].partition("\n## ")[0]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page, apart from addresses on the web."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(text))


def broken_links(place: Path, text: str) -> list[str]:
    """Links of the page at ``place`` to files or headings there are not, or out of the repository."""
    found = []
    for target in links(text):
        name, _, heading = target.partition("#")
        path = (place.parent / name).resolve() if name else place
        inside = path.is_relative_to(ROOT) and path.exists()
        there = text if not name else path.read_text() if inside and path.suffix == ".md" else ""
        if not inside or (heading and heading not in anchors(there)):
            found.append(target)
    return found


def unlisted(names: Iterable[str], text: str) -> list[str]:
    """Names that the first column of no table of a page has in backticks."""
    firsts = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    listed = {name for first in firsts for name in re.findall(r"`([^`]+)`", first)}
    return [name for name in names if name not in listed]


def unnamed(names: Iterable[str], text: str) -> list[str]:
    """Names that a page has nowhere in backticks."""
    return [name for name in names if f"`{name}`" not in text]


def test_the_first_program_and_the_one_that_adapts_its_model_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = blocks("python", page("README.md"))[0]
    (adapting,) = blocks("python", page("metadensity/adaptation/README.md"))
    first = first.replace("steps=200", "steps=2").replace("progress=True", "progress=False")
    monkeypatch.chdir(tmp_path)
    names = execute(first, "README.md", {})
    printed = capsys.readouterr().out
    assert "torch.Size([4, 16])" in printed
    assert "torch.Size([2, 16, 1, 14, 14])" in printed
    assert printed.count("nats/image, 95 % interval") == 3
    assert (tmp_path / "model.safetensors").is_file()
    execute(adapting, "adaptation/README.md", names)
    assert len(names["steps"]) == 6  # before the first of five, and after each


def my_drawings(folder: Path) -> None:
    """Four crosses, drawn with a thin pen on white paper, their middles at different places."""
    for number, (across, down) in enumerate([(90, 120), (100, 130), (90, 140), (80, 130)]):
        image = Image.new("L", (300, 260), 255)
        for line in ([(40, across), (260, across)], [(down, 30), (down, 230)]):
            ImageDraw.Draw(image).line(line, fill=0, width=2)
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number}.png")


def test_the_program_on_my_drawings_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = blocks("python", page("README.md"))
    monkeypatch.chdir(tmp_path)
    my_drawings(tmp_path / "my_drawings")
    names = execute(program, "README.md", {})
    assert [note.partition(":")[0] for note in names["mine"].notes] == [
        "inverted",
        "boxed and centred, as Omniglot's are",
        "thickened",
    ]
    assert names["samples"].shape == (8, 26, 26)
    assert set(names["samples"].ravel()) == {0, 1}
    with torch.no_grad():  # it is the other drawings that say so
        prior = names["model"](names["mine"].support[:0]).log_prob(names["mine"].support)
    assert (names["nats"] < -prior[:, 0].numpy() - 5).all()


def test_the_program_that_exports_gives_the_numbers_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = blocks("python", page("metadensity/README.md"))
    monkeypatch.chdir(tmp_path)
    names = execute(program, "metadensity/README.md", {})
    assert capsys.readouterr().out == "torch.Size([2, 1])\n"
    support, query = names["support"], names["query"]
    with torch.no_grad():
        torch.testing.assert_close(names["log_prob"](support, query), names["model"].eval()(support).log_prob(query))


def test_the_program_with_learn2learn_and_torchmeta_runs(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADENSITY_DATA", str(data_root))
    (program,) = blocks("python", page("tasks/interop/README.md"))
    names = execute(program, "interop/README.md", {})
    assert names["episode"].support.shape == (4, 40, 1, 13, 13)


def test_the_model_and_the_task_of_the_examples_work() -> None:
    names = {}
    for name in ("counted_pixels.py", "bars.py"):
        execute((TEMPLATE / name).read_text(), name, names)
    train, test = (names["bars"](split=split) for split in ("train", "test"))
    model = names["CountedPixels"](event_shape=train.event_shape, levels=2)
    MetaTrainer(model, train, None, TrainingConfig(steps=60, warmup=0, learning_rate=0.1, shots=(0, 4))).run()
    few = [test.episode(i, tasks=4, shots=8, queries=2) for i in range(8)]
    rows = evaluate(model, (episode.with_shots(shots) for shots in (0, 8) for episode in few)).rows
    assert rows[1].nats_per_image < rows[0].nats_per_image - 3  # a bar of 8 pixels that only the support tells


@pytest.fixture
def clone_with_the_examples(tmp_path: Path) -> Path:
    """A copy of the repository in which the model and the task of CONTRIBUTING are what it says: a file and a line."""
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = page("CONTRIBUTING.md")
    for kind, registry in (("Model", "MODELS"), ("Task", "TASKS")):
        said = " ".join(section(text, kind).split())
        (file,) = re.findall(r"is a file, `((?:metadensity/models|tasks)/\w+\.py)`,", said)
        (line,) = re.findall(rf"one line in `{registry}` there, `([^`]+)`", said)
        shutil.copy(TEMPLATE / Path(file).name, tmp_path / file)
        package = tmp_path / file.rpartition("/")[0] / "__init__.py"
        module = file.removesuffix(".py").replace("/", ".")
        what = f"from {module} import CountedPixels" if kind == "Model" else "from tasks import bars"
        opening = re.search(rf"^{registry}\b.*[{{(]$", package.read_text(), re.MULTILINE)
        assert opening is not None
        package.write_text(package.read_text().replace(opening[0], f"{what}\n{opening[0]}\n    {line},"))
    return tmp_path


def test_the_examples_inherit_every_test_and_pass(clone_with_the_examples: Path) -> None:
    """By the real registries and suites, run there by the command that a contributor would run."""
    folder = clone_with_the_examples
    suites = ["contracts/test_contracts.py", "contracts/test_bad_input.py", "contracts/test_models_listed.py"]
    suites += ["metadensity/models/test_options.py", "tasks/test_registry.py", "experiments/test_scripts.py"]
    suites += ["experiments/test_episodes.py", "experiments/ingredients/test_registered_options.py"]
    of_these = "counted_pixels or bars or left_out or every_file or every_split_file or public or what_there_is"
    command = [sys.executable, "-m", "pytest", "-q", "-k", of_these, *(f"tests/{suite}" for suite in suites)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "METADENSITY_RUNS": str(folder / "runs")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 120, "they inherit less than others"


def test_the_experiment_of_the_example_runs(tmp_path: Path) -> None:
    script = tmp_path / "ink.py"
    script.write_text(blocks("python", page("CONTRIBUTING.md"))[0])
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}
    for command in (["-m", "experiments.train", "with", "hershey", "fast"], [str(script), "with", "fast", "run=1"]):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert {"samples", "queries"} <= json.loads((tmp_path / "runs" / "2" / "run.json").read_text())["result"].keys()


def test_no_program_is_left_out() -> None:
    """Each of these is run by a test above."""
    found = {str(path.relative_to(ROOT)): len(blocks("python", path.read_text())) for path in PAGES}
    executed = {
        "README.md": 2,
        "CONTRIBUTING.md": 1,
        "metadensity/README.md": 1,
        "metadensity/adaptation/README.md": 1,
        "tasks/interop/README.md": 1,
    }
    assert {name: count for name, count in found.items() if count} == executed


def runnable(text: str) -> list[str]:
    """The commands of a page as ``tests.commands`` takes them, each with the named configuration "fast" added.

    What a command says itself counts more than that, so numbers of steps and limits are made small as well.
    """
    shown = [re.sub(r"\b(training\.steps|limit)=\d+", r"\1=4", line) for line in commands(text)]
    shown = [line.removeprefix("python -m ").replace("my_images", "grocery/grocery_64.zip") for line in shown]
    return [f"{line} {'fast' if ' with ' in line else 'with fast'}" for line in shown]


WITH_COMMANDS = [path for path in PAGES if commands(path.read_text())]


def test_pages_with_commands_are_found() -> None:
    assert sum(len(commands(path.read_text())) for path in WITH_COMMANDS) >= 40
    first = "```bash\nmake\npython -m experiments.train with folder x=my_images training.steps=60  # 3 s\n```\n"
    text = first + "and\n```bash\npython -m experiments.compare\n```\n"
    assert runnable(text) == [
        "experiments.train with folder x=grocery/grocery_64.zip training.steps=4 fast",
        "experiments.compare with fast",
    ]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_runs(path: Path, tmp_path: Path, data_root: Path) -> None:
    """Those of a page in order, away from the repository."""
    shown = runnable(path.read_text())
    my_drawings(tmp_path / "my_drawings")
    (tmp_path / "commands").write_text("\n".join(shown))
    own = {"METADENSITY_RUNS": str(tmp_path / "runs"), "METADENSITY_DATA": str(data_root), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.commands", str(tmp_path / "commands")]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True)
    print(done.stdout)  # where the time went, with -rP
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("runs/*/config.json"))) >= len(shown)  # some commands train runs of their own


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


def test_a_broken_link_is_caught() -> None:
    place = ROOT / "tasks" / "README.md"
    good = (
        "# One heading, so\n[a](interop/README.md) ![b](../LICENSE) [c](#one-heading-so) [d](https://nowhere.example)"
    )
    assert broken_links(place, good) == []
    bad = ["interop/README", "tasks/README.md", "#another", "interop/README.md#nothing", "../../outside.md"]
    assert broken_links(place, good + "".join(f" [x]({target})" for target in bad)) == bad
    assert broken_links(place, "```\n[a](nowhere)\n```\n") == []


def test_every_page_is_reached_from_the_first() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        if (path := left.pop()) not in reached and path.suffix == ".md":
            reached.add(path)
            left += [(path.parent / target.partition("#")[0]).resolve() for target in links(path.read_text())]
    assert set(PAGES) <= reached


def test_the_first_page_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= LONGEST


def test_the_tables_list_what_there_is() -> None:
    models = page("metadensity/models/README.md")
    for name, kind in MODELS.items():
        assert f"| `{name}` | {kind.__name__}" in models
        assert f"{parameter_count(kind(event_shape=(1, 26, 26), levels=2)):,} |" in models
    assert unlisted(TASKS, page("tasks/README.md")) == []
    experiments = page("experiments/README.md")
    assert (
        unnamed(NAMED_CONFIGS.keys() - MODELS.keys() - TASKS.keys(), experiments) == []
    )  # those have tables of their own
    assert unlisted((path.stem for path in (ROOT / "experiments").glob("[!_]*.py")), experiments) == []
    assert unlisted(shipped(), page("experiments/results/README.md")) == []
    notebooks = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert set(notebooks) <= set(links(page("notebooks/README.md")))


def test_an_unlisted_name_is_caught() -> None:
    table = "| name | what |\n| --- | --- |\n| `one`, `two` | as `three` |\n\nand `four`"
    assert unlisted(["one", "two", "three", "four", "on"], table) == ["three", "four", "on"]
    assert unnamed(["one", "three", "four", "five"], table) == ["five"]


def test_the_size_of_the_published_net_is_explained() -> None:
    ours = parameter_count(AttentionPixelCNN(event_shape=(1, 26, 26), levels=2))
    assert abs(ours / 286_000 - 1) < 0.10
    assert f"{1 - ours / 286_000:.0%}".replace("%", " %") in page("metadensity/models/README.md")


def test_the_first_pages_results_are_those_of_the_records() -> None:
    records = read_records(RECORDS / OMNIGLOT.name, OMNIGLOT)
    section = page("README.md").partition("## Results")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[2:6]] for line in section.splitlines() if line.startswith("| ")]
    names = ("conditional", "attention", "ensemble_tuned")
    recorded = [[f"{row['nats_per_image']:.2f}" for row in records[name].values["rows"]] for name in names]
    published = [f"{test * 26 * 26:.1f}" for test, _ in PAPER_ATTENTION]
    assert rows[2:] == [*recorded, published]

"""A run as one page: what is on it, that it needs nothing else, and that a real browser shows it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import classify, compare, evaluate, memorisation, report, sample, train
from experiments.figures.shown import parse_text
from experiments.recording.run_folder import RunFolder
from experiments.run_page.page import ReportError, write_report
from experiments.run_page.parts import Page, newest_report, table

pytestmark = pytest.mark.filterwarnings("default")  # Jupyter's packages warn of each other
SETTINGS: dict[str, Any] = {"task": {"size": 12}}
NAMED = ("hershey", "attention", "fast")
HEADINGS = [
    *("Run", "Curves", "Likelihood", "Comparison", "Classification", "Support beside samples", "Completions"),
    *("Attention", "Do samples copy the support?", "Cost", "Settings"),
]

PARTS = ("likelihood", "memorisation", "attention", "cost", "comparison", "completions", "classification")


@pytest.fixture(scope="module")
def trained(script: Any) -> RunFolder:
    """A run that went on from another, and was sampled."""
    first = script(train.experiment, *NAMED, **SETTINGS).result["folder"]
    more: dict[str, Any] = {"training": {"steps": 6}, "allow": ["training.steps"], **SETTINGS}
    run = RunFolder(script(train.experiment, *NAMED, resume=first, **more).result["folder"])
    script(sample.experiment, "fast", run=str(run.path))
    return run


@pytest.fixture(scope="module")
def page(trained: RunFolder) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.run_page.page.LIMIT", 6)
        return write_report(trained.path)


class Reader(HTMLParser):
    """Text by heading, pictures, and all that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.text: dict[str, str] = {}
        self.images: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag == "img":
            self.images.append(dict(attributes))
        for name, value in attributes:
            if tag in ("link", "script", "iframe", "object") or (
                name == "src" and not (value or "").startswith("data:")
            ):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if self.inside == "h2" and data.strip():
            self.headings.append(data)
        elif self.headings:
            self.text[self.headings[-1]] = self.text.get(self.headings[-1], "") + f" {data}"

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


@pytest.fixture(scope="module")
def seen(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def test_all_parts_are_there(seen: Reader, trained: RunFolder) -> None:
    assert seen.headings == HEADINGS
    for heading in HEADINGS:
        assert seen.text[heading].strip() or heading in ("Curves", "Attention")
    assert [str(image["alt"]).split(",")[0] for image in seen.images] == [
        *("Curves of training and validation", "Shot curve", "Supports beside samples", "Supports beside samples"),
        *("Attention of a query over its supports", "Closest pairs of support and sample"),
    ]
    assert "resumed from" in seen.text["Run"]
    assert "Dotted: where a run went on from another." in seen.text["Curves"]
    assert "training.learning_rate" in seen.text["Settings"]
    assert "p" in seen.text["Do samples copy the support?"]


def test_the_numbers_are_those_of_the_reports(seen: Reader, trained: RunFolder) -> None:
    found, folder = newest_report(trained, "evaluated", "evaluation.json")
    assert found is not None
    assert folder is not None
    for row in found["rows"]:
        assert f"{row['nats_per_image']:.2f}" in seen.text["Likelihood"]
        assert f"{row['interval_low']:.2f} to {row['interval_high']:.2f}" in seen.text["Likelihood"]
    assert f"Run {folder.name}:" in seen.text["Likelihood"]
    checked, _ = newest_report(trained, "memorisation", "memorisation.json")
    assert checked is not None
    assert f"{checked['tests']['support']['auc']:.3f}" in seen.text["Do samples copy the support?"]
    assert checked["verdict"] in seen.text["Do samples copy the support?"]
    assert "4 to 6" in seen.text["Cost"]


def test_it_needs_no_other_file_and_no_network(page: Path, seen: Reader, repo_root: Path) -> None:
    assert seen.fetched == []
    text = re.sub(r"base64,[^\"]+", "", page.read_text())
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert str(repo_root) not in text
    assert page.stat().st_size < 2_000_000


PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images];
  document.body.dataset.images = images.length;
  document.body.dataset.broken = images.filter(image => !image.complete || !image.naturalWidth).length;
  document.body.dataset.wide = document.documentElement.scrollWidth > window.innerWidth;
  const fetched = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:"));
  document.body.dataset.fetched = fetched.length;
});</script></body>"""


@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_it(page: Path, seen: Reader, tmp_path: Path, width: int) -> None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(names)}); the tests above read the page's HTML")
    probed = tmp_path / "page.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    common = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},3000",
    ]
    common += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [*common, "--virtual-time-budget=5000", "--dump-dom", probed.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (body,) = re.findall(r"<body([^>]*)>", shown)
    data = dict(re.findall(r'data-(\w+)="(\w+)"', body))
    assert data == {"images": str(len(seen.images)), "broken": "0", "wide": "false", "fetched": "0"}
    shot = tmp_path / "shot.png"
    subprocess.run([*common, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] >= width
    assert (pixels[:2000] < 128).mean() > 0.005, "the page is blank"


def test_making_it_again_makes_no_new_runs(page: Path, trained: RunFolder, runs: Path) -> None:
    before = sorted(path.name for path in runs.glob("[0-9]*"))
    other = trained.path / "other.html"
    assert write_report(trained.path, other) == other
    assert sorted(path.name for path in runs.glob("[0-9]*")) == before
    assert other.read_text() == page.read_text()


def test_parts_that_were_not_made_say_how_to(script: Any) -> None:
    run = RunFolder(script(train.experiment, "digits", "support_mean", "fast").result["folder"])
    said = {name: getattr(Page(run.path), name)().data for name in PARTS}
    assert f"python -m experiments.evaluate with run={run.path.name}" in said["likelihood"]
    assert f"python -m experiments.memorisation with run={run.path.name}" in said["memorisation"]
    for name in ("comparison", "completions", "classification"):
        assert "python -m experiments." in said[name]
    assert "support_mean has no attention" in said["attention"]
    assert f"training, run {run.path.name}" in said["cost"]


def test_what_was_done_with_a_run_is_shown_as_what_it_is(script: Any) -> None:
    """Completions are no samples, samples of another model in a run of this one are not its own."""
    run = RunFolder(script(train.experiment, "digits", "support_mean", "fast").result["folder"])
    other = script(train.experiment, "digits", "support_mean", "fast", seed=1).result["folder"]
    drawn = script(sample.experiment, "fast", run=str(run.path), temperature=0.5).result["folder"]
    completed = script(sample.experiment, "fast", run=str(run.path), observed="top").result["folder"]
    script(sample.experiment, "fast", run=other, against=[str(run.path)])
    page = Page(run.path)
    samples, completions = page.samples().data, page.completions().data
    assert f"Run {Path(drawn).name}, test classes: supports, a line, samples." in samples
    assert "Drawn at temperature 0.5, not from the density itself." in samples
    assert (samples.count("<img"), completions.count("<img")) == (2, 1)
    assert f"Run {Path(completed).name}, test classes: supports, a line, the whole image, completions of" in completions
    assert "(top)" in completions
    assert "python -m experiments.sample with run=" in Page(other).completions().data
    result = script(classify.experiment, run=str(run.path), ways=2, episodes=3).result
    shown = page.classification().data
    for text in (
        f"{100 * result['accuracy']:.1f}",
        f"{result['nll']:.3f}",
        "2-way, 1-shot",
        "nearest neighbour",
        "50.0",
    ):
        assert text in shown
    evaluated = script(evaluate.experiment, "fast", run=str(run.path), against=[other], baselines=False).result
    compared = script(compare.experiment, runs=[evaluated["folder"]]).result
    shown = page.comparison().data
    for row in compared["rows"]:
        assert f"{row['mean']:+.3f}" in shown
    assert "Paired differences" in shown
    checked = script(memorisation.experiment, "fast", run=str(run.path)).result
    assert checked["verdict"] in page.memorisation().data
    third = script(train.experiment, "digits", "support_mean", "fast", training={"steps": 2}).result["folder"]
    run.best.write_bytes(RunFolder(third).best.read_bytes())
    later = Page(run.path)  # other weights: nothing of it was made with them
    assert later.samples().data.count("<img") == 1
    for part in (later.completions, later.classification, later.comparison, later.memorisation):
        assert "python -m experiments." in part().data


def test_completions_are_not_taken_for_samples(script: Any) -> None:
    run = script(train.experiment, "digits", "support_mean", "fast").result["folder"]
    drawn = script(sample.experiment, "fast", run=run).result["folder"]
    completed = script(sample.experiment, "fast", run=run, observed="top").result["folder"]  # the newer of the two
    shown = Page(run).samples().data
    assert f"Run {Path(drawn).name}," in shown
    assert f"Run {Path(completed).name}," not in shown


def test_an_evaluation_of_other_weights_is_not_shown(
    trained: RunFolder, page: Path, tmp_path: Path, script: Any
) -> None:
    found, folder = newest_report(trained, "evaluated", "evaluation.json")
    assert found is not None
    assert folder is not None
    path = folder / "evaluation.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps({**found, "weights_sha256": "0" * 64}))
        assert newest_report(trained, "evaluated", "evaluation.json") == (None, None)
    finally:
        path.write_text(before)


def test_text_is_escaped() -> None:
    assert "<script>" not in table(["<script>"], [["<script>alert(1)</script>"]])


def test_bad_input_is_named(trained: RunFolder, script: Any, capsys: Any, runs: Path) -> None:
    scored = script(evaluate.experiment, "fast", run=str(trained.path), baselines=False).result["folder"]
    with pytest.raises(ReportError, match=rf"trained nothing \(evaluated\). Give the run it used: {trained.path.name}"):
        write_report(scored)
    other = runs / "counted"
    other.mkdir()
    (other / "config.json").write_text('{"clusters": [5]}')
    with pytest.raises(FileNotFoundError, match="is no training and holds no model"):
        write_report(other)
    assert report.main(["nowhere"]) == 1
    assert "There is no run at" in capsys.readouterr().err
    empty = runs / "empty"
    empty.mkdir()
    with pytest.raises(ReportError, match="has no best model yet"):
        write_report(empty)


def test_strings_and_sounds_are_read_and_played(script: Any, data_root: Path) -> None:
    names = script(train.experiment, "names", "independent", "fast").result
    script(evaluate.experiment, "fast", run=names["folder"], shots=[0, 1], limit=4, baselines=False)
    page = Page(names["folder"])
    assert "<th>nats/character</th>" in page.likelihood().data
    assert "<th>nats/string</th>" in page.likelihood().data
    read = page.samples().data
    for _, lines in parse_text(Path(names["text"]).read_text()):
        for _, string in lines:
            assert escape(json.dumps(string, ensure_ascii=False), quote=False) in read
    assert "<audio" not in read
    task = {"length": 300, "data_root": str(data_root)}
    speech = script(train.experiment, "speech", "independent", "fast", task=task).result
    reader = Reader()
    page = Page(speech["folder"])
    reader.feed(str(page.samples().data))
    assert reader.fetched == []
    assert [str(image["alt"]) for image in reader.images] == ["Supports beside samples, validation classes"]
    played = re.findall(r'aria-label="(\S+)" src="data:audio/wav;base64,([^"]+)"', page.samples().data)
    assert [name for name, _ in played[:4]] == ["00-support-0", "00-query-0", "00-sample-0", "00-sample-1"]
    assert len(played) == 6 * (1 + 1 + 6)
    for name, data in played:
        assert base64.b64decode(data) == (Path(speech["sounds"]) / f"{name}.wav").read_bytes()


def test_a_page_plays_no_more_than_there_is_room_for(
    script: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"length": 300, "data_root": str(data_root)}
    run = script(train.experiment, "speech", "independent", "fast", task=task).result["folder"]
    monkeypatch.setattr("experiments.run_page.parts.PLAYED", 2 * 8 * (44 + 600))
    shown = Page(run).samples().data
    assert shown.count("<audio") == 2 * 8
    assert "4 further rows are in the folder validation of the run, as WAV." in shown

"""The parts of a run's page as self-contained HTML; ``report.ipynb`` puts them in order.

A part whose numbers were never made says so, with the command that makes them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.figures.legends import legend_beside
from experiments.figures.shown import parse_text
from experiments.recording import lineage
from experiments.recording.flat_configs import flatten
from experiments.recording.run_folder import RunFolder
from experiments.recording.run_table import read_run
from experiments.reporting.headings import MEMORISATION
from experiments.reporting.offsets import Offsets
from experiments.reporting.tables import likelihood_headings
from metadensity.density import EXACT
from metadensity.files import DamagedFileError, JsonLines, read_header
from tasks.media import Words

PLAYED = 600_000  # bytes of sound in a part of the page; what is more is named


class Page:
    """The parts of the page of one run.

    run: the folder of a training run. Raises FileNotFoundError as ``RunFolder`` does.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = RunFolder(run)
        self.record = read_run(self.run.path)
        self.name = self.run.path.name
        result = _json(self.run.path / "run.json").get("result")
        self.words = Words.of_record(result.get("words") if isinstance(result, dict) else None)

    def summary(self) -> HTML:
        """What the run is, how it ended, what it came from."""
        record, config = self.record, self.record.config
        rows = [
            ["model", str(config.get("model.name", ""))],
            ["task", str(config.get("task.name", ""))],
            ["status", record.status + (f" ({record.problem})" if record.problem else "")],
            ["started", f"{record.started} UTC"],
            ["steps", f"{record.metrics.get('steps', record.metrics.get('step', 0)):.0f}"],
        ]
        if "parameters" in record.metrics:
            rows.append(["parameters", f"{record.metrics['parameters']:,.0f}"])
        if record.lineage:
            rows.append(["lineage", lineage.summary(record.lineage)])
            rows.append(["episodes", f"sha256 {record.lineage.get('episodes_sha256')}"])
        if self.run.best.is_file():
            provenance = self.run.model().provenance
            rows.append(["best model", f"step {provenance['step']}, weights sha256 {provenance['weights_sha256']}"])
        return HTML(table(["", ""], rows))

    def config(self) -> HTML:
        """Every setting."""
        rows = [[key, json.dumps(value)] for key, value in sorted(flatten(self.run.config()).items())]
        return HTML(table(["setting", "value"], rows))

    def curves(self) -> HTML:
        """Training and validation over the whole chain of runs that this one went on from."""
        curve = lineage.curve(self.run)
        if curve.empty:
            return note("This run recorded no numbers.")
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        if "train/nats_per_dim" in curve:
            found = curve[["step", "train/nats_per_dim"]].dropna()
            left.plot(found["step"], found["train/nats_per_dim"], linewidth=0.8, color="0.5", label="training")
        prefix = "validation/nats_per_dim_"
        names = [name for name in curve.columns if name.startswith(prefix)]
        for name in sorted(names, key=lambda name: int(name.removeprefix(prefix).split("_")[0])):
            found = curve[["step", name]].dropna()
            label = f"validation, {name.removeprefix(prefix).replace('_', ' ')}"
            left.plot(found["step"], found[name], marker="o", markersize=2.5, linewidth=1, label=label)
        left.set(xlabel="step", ylabel=self.words.nats_per_dim)
        legend_beside(left, fontsize=7)
        for name, label in (("train/gradient_norm", "gradient norm"), ("train/learning_rate", "learning rate")):
            if name in curve:
                found = curve[["step", name]].dropna()
                right.plot(found["step"], found[name], linewidth=0.9, label=label)
        right.set(xlabel="step", yscale="log")
        legend_beside(right, fontsize=7)
        for axes in (left, right):
            axes.grid(alpha=0.3)
        for _, began in lineage.chain(self.run)[1:]:
            left.axvline(began, color="0.7", linestyle=":", linewidth=0.8)
        text = "" if len(lineage.chain(self.run)) == 1 else paragraph("Dotted: where a run went on from another.")
        return HTML(drawn(figure, "Curves of training and validation") + text)

    def likelihood(self) -> HTML:
        """The newest evaluation of this run's best model: nats with 95 % intervals."""
        report, folder = self._newest("evaluated", "evaluation.json")
        if report is None or folder is None:
            return note(f"Not evaluated. Evaluate it: python -m experiments.evaluate with run={self.name}")
        models = list(dict.fromkeys(row["model"] for row in report["rows"]))
        subject, others = models[0], models[1:]
        by = {(row["model"], row["shots"]): row for row in report["rows"]}
        quantity = {row["model"]: row.get("quantity", EXACT) for row in report["rows"]}  # old reports are exact
        marked = {name: name if quantity[name] == EXACT else f"{name}, {quantity[name]}" for name in models}
        words = Words.of_record(report.get("words"))
        headings = [*likelihood_headings(words), *(marked[name] for name in others)]
        rows = []
        for model, shots in by:
            if model == subject:
                row = by[model, shots]
                cells = [str(shots), _number(row["nats_per_dim"], 4), _number(row["bits_per_dim"], 4)]
                cells += [_number(row["nats_per_image"]), _interval(row["interval_low"], row["interval_high"])]
                rows.append(cells + [_number(by[other, shots]["nats_per_image"]) for other in others])
        first = next(iter(by.values()))
        said = (
            f"Run {folder.name}: {first['images']} {words.nouns} of {first['classes']} classes, split "
            f"{report['split']}, episodes sha256 {report['episodes_sha256'][:16]}. Intervals are over classes."
        )
        if quantity[subject] != EXACT:
            said += f" {marked[subject]}: its numbers are no likelihoods."
        used = report.get("support_use", {}).get(subject)
        verdict = paragraph(f"{subject} {used['verdict']}.") if used else ""
        verdict = Markup().join([*map(paragraph, report.get("remarks", [])), verdict])
        plot = folder / "evaluation.png"
        curve = picture(plot, "Shot curve") if plot.is_file() else ""
        offsets = _offsets(report.get("offsets"))
        return HTML(table(headings, rows) + paragraph(said) + verdict + offsets + curve)

    def samples(self) -> HTML:
        """Support beside samples: of validation classes from training, and of the newest run that sampled this one."""
        found = []
        own = shown(self.run.path / "samples", "validation", "Supports beside samples, validation classes")
        if own:
            text = "Validation classes, drawn when training ended: supports, a line, samples."
            found.append(own + paragraph(text))
        found += self._drawn(completed=False)
        return (
            HTML(Markup().join(found))
            if found
            else note(f"No samples: python -m experiments.sample with run={self.name}")
        )

    def completions(self) -> HTML:
        """Completed images, of the newest run that completed any with this run's best model."""
        found = self._drawn(completed=True)
        command = f"python -m experiments.sample with run={self.name} observed=top"
        return HTML(Markup().join(found)) if found else note(f"No completions: {command}")

    def _drawn(self, completed: bool) -> list[Markup]:
        """The newest picture of samples, or of completions, of the model that is now this run's best."""
        for run in reversed(lineage.descendants(self.run, ["sampled"])):
            header = _header(run.path / "samples.safetensors")
            observed = header.get("observed")
            if header.get("weights_sha256") != self._weights() or (observed is not None) != completed:
                continue
            split = run.config().get("split", "")
            what = (
                f"the whole {self.words.noun}, completions of what was observed ({observed})"
                if completed
                else "samples"
            )
            text = f"Run {run.path.name}, {split} classes: supports, a line, {what}."
            if header.get("against"):
                text += (
                    f" After each further line those of {', '.join(Path(other).name for other in header['against'])}."
                )
            if header.get("temperature", 1.0) != 1:
                text += f" Drawn at temperature {header['temperature']}, not from the density itself."
            if header.get("approximate"):
                text += " They are approximate: each pixel is drawn given those before it alone."
            name = f"Supports beside {'completions' if completed else 'samples'}, {split}"
            if found := shown(run.path, "samples", name):
                return [found + paragraph(text)]
        return []

    def attention(self) -> HTML:
        """Where the query looks in its supports."""
        path = self.run.path / "samples" / "attention.png"
        if not path.is_file():
            return note(f"{self.record.config.get('model.name')} has no attention over its supports.")
        text = (
            "A validation image, a line, its supports; red (in colour: bright, the rest dark) where the image looks "
            "while it is scored, on average over its ink: where the task does not say which level that is, "
            "what differs from the median one. The strongest mark of a row is its largest weight."
        )
        return HTML(picture(path, "Attention of a query over its supports") + paragraph(text))

    def memorisation(self) -> HTML:
        """Whether samples copy the support."""
        report, folder = self._newest("memorisation", "memorisation.json")
        if report is None or folder is None:
            return note(f"Not checked: python -m experiments.memorisation with run={self.name}")
        rows = []
        for name, count in (("support", report["shots"]), ("unseen", report["unseen_images"])):
            test = report["tests"][name]
            rows.append(
                [
                    f"{count} {'supports' if name == 'support' else f'unseen {self.words.nouns}'}",
                    f"{test['sample_distance']:.4f}",
                    f"{test['heldout_distance']:.4f}",
                    f"{100 * test['sample_copies']:.1f} %",
                    f"{test['auc']:.3f}",
                    _interval(test["interval"][0], test["interval"][1], 3),
                    f"{test['p_value']:.4f}",
                ]
            )
        said = f"Run {folder.name}, split {report['split']}, {report['shots']} shots. {report['verdict']}"
        found = table(MEMORISATION, rows) + paragraph(said)
        if (folder / "memorisation.png").is_file():
            name = "Closest pairs of support and sample, of support and held-out"
            found += picture(folder / "memorisation.png", name)
            found += paragraph(
                f"Left: the closest pairs (support, sample). Right: those of (support, held-out {self.words.noun})."
            )
        return HTML(found)

    def classification(self) -> HTML:
        """The newest classification by likelihood with this run's best model."""
        report, folder = self._newest("classified", "classification.json")
        if report is None or folder is None:
            return note(f"Not classified: python -m experiments.classify with run={self.name}")
        ways = int(report["ways"])
        low, high = report["accuracy_interval"]
        model = str(self.record.config.get("model.name", ""))
        rows = [[model, f"{100 * report['accuracy']:.1f}", _percent(low, high), _number(report["nll"], 3)]]
        rows[0].append(f"{report['ece']:.3f}")
        nearest = report.get("nearest_neighbour")
        if nearest is not None:
            rows.append(
                ["nearest neighbour", f"{100 * nearest['accuracy']:.1f}", _percent(*nearest["interval"]), "", ""]
            )
        rows.append(["chance", f"{100 / ways:.1f}", "", f"{math.log(ways):.3f}", "0.000"])
        source = report["source"]
        where = f"split {source['split']}" if "split" in source else f"file {Path(source['file']).name}"
        said = (
            f"Run {folder.name}, {where}: {ways}-way, {report['shots']}-shot, {report['queries']} queries in "
            f"{report['episodes']} episodes."
        )
        if impossible := report.get("impossible"):
            said += f" {impossible} of them have probability 0 under every class, and count as chance."
        return HTML(table(["classifier", "accuracy %", "95 % interval", "NLL, nats", "ECE"], rows) + paragraph(said))

    def comparison(self) -> HTML:
        """The newest comparison of an evaluation of this run's best model with others, query by query."""
        for evaluation in reversed(lineage.descendants(self.run, ["evaluated"])):
            if _json(evaluation.path / "evaluation.json").get("weights_sha256") != self._weights():
                continue
            for run in reversed(lineage.descendants(evaluation, ["compared"])):
                report = _json(run.path / "comparison.json")
                if not report.get("rows"):
                    continue
                rows = [
                    [
                        *(row["model"], str(row["shots"]), f"{row['mean']:+.3f}"),
                        _interval(row["interval_low"], row["interval_high"], 3),
                    ]
                    for row in report["rows"]
                ]
                words = Words.of_record(report.get("words"))
                said = (
                    f"Run {run.path.name}, split {report.get('split')}: {words.nats} minus those of "
                    f"{report['reference']}, on the same queries; below 0 the model is better than the reference."
                )
                found = table(["model", "shots", "difference", "95 % interval"], rows) + paragraph(said)
                if (run.path / "comparison.png").is_file():
                    found += picture(run.path / "comparison.png", "Paired differences")
                return HTML(found)
        return note(
            f"Not compared: evaluate it (python -m experiments.evaluate with run={self.name}), then "
            "python -m experiments.compare"
        )

    def cost(self) -> HTML:
        """Time and size of training, over the chain, and of scoring."""
        rows = []
        for link, began in lineage.chain(self.run):
            record = read_run(link.path)
            speeds = [
                line["train/images_per_second"]
                for line in JsonLines(link.path / "timing.jsonl").read()
                if "train/images_per_second" in line
            ]
            speed = f"{sorted(speeds)[len(speeds) // 2]:,.0f}" if speeds else ""
            last = record.metrics.get("steps", record.metrics.get("step", 0))
            seconds = "" if record.seconds is None else f"{record.seconds:.0f}"
            device = str(record.config.get("training.device", ""))
            rows.append([f"training, run {link.path.name}", f"{began:.0f} to {last:.0f}", seconds, speed, device, ""])
        report, _ = self._newest("evaluated", "evaluation.json")
        for name, cost in (report or {}).get("cost", {}).items():
            if cost:
                memory = f"{cost['peak_memory'] / 2**20:,.0f}"
                speed = f"{cost['images_per_second']:,.0f}"
                rows.append([f"scoring, {name}", "", f"{cost['seconds']:.1f}", speed, str(cost["device"]), memory])
        headings = ["", "steps", "seconds", f"{self.words.nouns}/s (training: median)", "device", "peak memory, MiB"]
        return HTML(table(headings, rows))

    def _newest(self, kind: str, file: str) -> tuple[dict[str, Any] | None, Path | None]:
        """The newest report of a kind on the model that is now this run's best."""
        return newest_report(self.run, kind, file)

    def _weights(self) -> str | None:
        """The hash of the weights of the model that is now this run's best; None where there is none."""
        return _header(self.run.best).get("sha256")


def newest_report(run: RunFolder, kind: str, file: str) -> tuple[dict[str, Any] | None, Path | None]:
    """The newest report of ``kind`` whose subject is the model that is now ``run``'s best, and its folder."""
    weights = run.model().provenance["weights_sha256"] if run.best.is_file() else None
    for found in reversed(lineage.descendants(run, [kind])):
        report = _json(found.path / file)
        if report and report.get("weights_sha256") == weights:
            return report, found.path
    return None, None


def _offsets(record: dict[str, Any] | None) -> Markup:
    """Of an evaluation of recordings, whether their offsets tell who speaks; "" of others."""
    if record is None:
        return Markup()
    found = Offsets.of_record(record).section()
    return Markup().join([table(found.headings, found.rows), *map(paragraph, found.notes)])


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no such file."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _header(path: Path) -> dict[str, Any]:
    """The header of a file of tensors; an empty one where there is no such file, or it is damaged."""
    try:
        return read_header(path)
    except (FileNotFoundError, DamagedFileError):
        return {}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], style: str = "wide") -> Markup:
    """An HTML table; all text is escaped. Empty headings are left out. style: a class of the page's."""
    frame = pd.DataFrame(list(rows), columns=list(headings), dtype=object)
    with pd.option_context("display.max_colwidth", None):  # whole cells
        found = frame.to_html(index=False, header=any(headings), border=0, justify="left")
    return Markup('<div class="{}">{}</div>').format(style, Markup(found))


def paragraph(text: str) -> Markup:
    """A paragraph of escaped text."""
    return Markup("<p>{}</p>").format(text)


def note(text: str) -> HTML:
    """A part that is not there, and how to get it."""
    return HTML(Markup('<p class="missing">{}</p>').format(text))


def drawn(figure: Figure, name: str) -> Markup:
    """A figure within the page."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return _embedded(data.getvalue(), name)


def shown(folder: Path, stem: str, name: str) -> Markup:
    """What ``experiments.figures.shown.write`` made, within the page: a picture, a film, players, tables; or ""."""
    found = picture(folder / f"{stem}.png", name) if (folder / f"{stem}.png").is_file() else Markup()
    if (film := folder / f"{stem}.gif").is_file():
        found += _embedded(film.read_bytes(), f"{name}, in motion", "gif")
    sounds = sorted((folder / stem).glob("*.wav")) if (folder / stem).is_dir() else []
    if sounds:
        found += _players(sounds)
    if (folder / f"{stem}.txt").is_file():
        found += _strings((folder / f"{stem}.txt").read_text(encoding="utf-8"))
    return found


def _players(sounds: Sequence[Path]) -> Markup:
    """A row of players for each task, tasks as far as there is room for them, and where the others are."""
    rows: dict[str, list[Path]] = {}
    for path in sounds:
        rows.setdefault(path.stem.split("-")[0], []).append(path)
    held, kept = 0, Markup()
    for number, paths in enumerate(rows.values()):
        held += sum(path.stat().st_size for path in paths)
        if number and held > PLAYED:
            more = f"{len(rows) - number} further rows are in the folder {paths[0].parent.name} of the run, as WAV."
            return kept + paragraph(more)
        kept += Markup('<p class="sounds">{}</p>').format(
            Markup().join(_player(path) for path in sorted(paths, key=_place))
        )
    return kept


def _place(path: Path) -> tuple[int, str, int]:
    """Supports come first, then the query, then what was drawn."""
    _, *kind, number = path.stem.split("-")
    return {"support": 0, "query": 1}.get(kind[0], 2), " ".join(kind), int(number)


def _player(path: Path) -> Markup:
    _, *kind, number = path.stem.split("-")
    data = base64.b64encode(path.read_bytes()).decode()
    said = Markup('<label>{} {} <audio controls aria-label="{}" src="data:audio/wav;base64,{}"></audio></label> ')
    return said.format(" ".join(kind), number, path.stem, data)


def _strings(text: str) -> Markup:
    """A table with a row for each task: its title, and the strings of each kind, a line each, as JSON has them."""
    tasks = parse_text(text)
    kinds = list(dict.fromkeys(kind for _, lines in tasks for kind, _ in lines))
    rows = [
        [
            title,
            *(
                "\n".join(json.dumps(string, ensure_ascii=False) for each, string in lines if each == kind)
                for kind in kinds
            ),
        ]
        for title, lines in tasks
    ]
    return table(["class", *kinds], rows, "wide strings")


def picture(path: Path, name: str) -> Markup:
    """A PNG file within the page."""
    return _embedded(path.read_bytes(), name)


def _embedded(data: bytes, name: str, kind: str = "png") -> Markup:
    held = base64.b64encode(data).decode()
    return Markup('<img alt="{}" src="data:image/{};base64,{}">').format(name, kind, held)


def _number(value: float | None, digits: int = 2) -> str:
    return "infinite" if value is None else f"{value:.{digits}f}"


def _interval(low: float | None, high: float | None, digits: int = 2) -> str:
    return "none" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def _percent(low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"

"""Cards of shipped weights: what each is, on what data, how trained, its numbers, what it is for and what not.

Numbers and settings are those of the file's header and of its record; a card says nothing by hand but where data come
from and what models of such data are for, once for each task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.recording.flat_configs import flatten
from experiments.reporting.tables import interval, markdown
from experiments.reproductions import PLANS
from experiments.reproductions.plan import Plan
from experiments.reproductions.recognition import RECOGNITION
from experiments.results import CARDS, RECORDS, WEIGHTS
from experiments.results.shipped_weights import SUFFIX, shipped
from metadensity.files import read_header, write_atomically
from metadensity.models import MODELS


@dataclass(frozen=True)
class Source:
    """Where the data of a task come from, under which licence, and what models of them are for."""

    data: str
    licence: str
    use: str
    not_for: str


_RESEARCH = "for research on few-shot density estimation: likelihoods and samples, to compare with and to train on from"
_NO_FACTS = "Its samples state no facts."
SOURCES = {
    "omniglot": Source(
        "Omniglot, drawings of characters of 50 alphabets (Lake, Salakhutdinov and Tenenbaum 2015)",
        "MIT",
        f"{_RESEARCH}, on black and white drawings of this size",
        "recognising handwriting or its writers: it is a density of clean single characters, drawn by 20 people an "
        "alphabet, and was tested on five alphabets",
    ),
    "mirror": Source(
        "windows of the Grocery Store Dataset, photographs in shops (Klasson, Zhang and Kjellström 2019), and their "
        "mirror images",
        "MIT",
        f"{_RESEARCH}, on copying by attention, here mirroring",
        "anything about photographs at large: it has learned to mirror photographs of groceries",
    ),
    "emoji": Source(
        "emoji, each in the drawings of 5 to 7 families: Twemoji, Noto and its older blobs, EmojiOne 2, OpenMoji, "
        "Fluent flat and in colour",
        "Twemoji and EmojiOne 2 CC BY 4.0, Noto Apache-2.0, OpenMoji CC BY-SA 4.0, Fluent MIT",
        f"{_RESEARCH}, on small pictures in colour",
        "making emoji to publish: a sample may resemble a drawing it was trained on, whose licence then counts",
    ),
    "chains": Source(
        "random Markov chains, drawn without end", "none is needed", f"{_RESEARCH}, beside the exact optimum",
        "sequences that no chain of this prior has drawn",
    ),
    "names": Source(
        "lists of first and last names by language, of Faker 40.63.0",
        "MIT",
        f"{_RESEARCH}, on spelling",
        "telling people's origin by their names, which a likelihood of spelling does not know",
    ),
    "tunes": Source(
        "O'Neill's 1850, Aird's Airs and Ryan's Mammoth Collection in the corpus of music21 10.5.1: old tunes, in ABC",
        "the tunes are in the public domain; of the transcriptions see the corpus's own licence",
        f"{_RESEARCH}, on melodies",
        "composing: a bar it draws may be one it was trained on",
    ),
    "text": Source(
        "tiny Shakespeare, 1,115,394 characters", "public domain", f"{_RESEARCH}, on characters of a text",
        f"writing, or any other text than these plays. {_NO_FACTS}",
    ),
    "speech": Source(
        "spoken digits of the Free Spoken Digit Dataset (Z. Jackson and contributors), and, to train on alone, Arabic "
        "Speech Commands (Ghandoura and others 2021), both at 8 kHz",
        "CC BY-SA 4.0, and CC BY 4.0",
        f"{_RESEARCH}, on the waveform of short words",
        "recognising or imitating persons: it has heard a few dozen speakers say a few words, and its samples are not "
        "understood",
    ),
}  # fmt: skip
"""By the name of the task. Weights on another task need a line here."""


def card(name: str) -> str:
    """The card of a shipped model, in Markdown. Raises LookupError where it has no record or its data no ``Source``."""
    header = read_header(WEIGHTS / f"{name}{SUFFIX}")
    scored = _scored(name, header)
    record = scored.record
    config = header["provenance"]["config"]
    task = config["task"]["name"]
    if task not in SOURCES:
        raise LookupError(f"{name} was trained on {task}, of which SOURCES in {__file__} says nothing. Add a line.")
    source = SOURCES[task]
    kind = MODELS[header["model"]].__name__
    shape = " x ".join(map(str, header["config"]["event_shape"]))
    lines = [
        f"# {name}",
        f"{record['title']}: {kind}, {record['parameters']:,} parameters, of {shape} places of "
        f"{header['config']['levels']} levels. {_sentence(source.use)}",
        "```text\n"
        f"python -m experiments.sample with run={name}\n"
        f'metadensity.load(shipped_file("{name}"))     # from experiments.results.shipped_weights\n'
        "```",
        "## Data",
        f"{_sentence(source.data)} Licence: {source.licence}. {_settings('task', config)}",
        "## Training",
        _training(config, record),
        "## Numbers",
        f"{scored.title}: {scored.what}",
        markdown(scored.headings, scored.rows).strip(),
        "## What it is not for",
        f"{_sentence(source.not_for)} It says nothing of people, and takes no decision about any; images of another "
        "shape, other levels or another rendering are to it data of another kind.",
        "## File",
        f"`{name}{SUFFIX}`, SHA-256 `{shipped()[name]}`; of the weights alone `{header['sha256']}`. "
        f"{_settings('model', config)}",
    ]
    return "\n\n".join(lines) + "\n"


def write_cards() -> list[Path]:
    """Write the card of every shipped model, and remove those of others. Returns the files."""
    if not RECORDS.is_dir() or not WEIGHTS.is_dir():
        raise FileNotFoundError(f"There are no records at {RECORDS}: an installed package has none. Use a clone.")
    written = {CARDS / f"{name}.md": card(name) for name in shipped()}
    for path, text in written.items():
        write_atomically(path, text.encode())
    for path in set(CARDS.glob("*.md")) - written.keys():
        path.unlink()
    return list(written)


@dataclass(frozen=True)
class _Scored:
    """The record of a model's scores, and its table."""

    record: Mapping[str, Any]
    title: str
    what: str
    headings: list[str]
    rows: list[list[str]]


def _scored(name: str, header: Mapping[str, Any]) -> _Scored:
    """What is recorded of these very weights: likelihoods of a plan, or recognition."""
    for plan in PLANS.values():
        for entry in plan.entries:
            if name in {f"{prefix}-{entry}" for prefix in plan.weight_prefixes}:
                record = _record_at(RECORDS / plan.name / f"{entry}.json", header)
                if record:
                    return _Scored(record, plan.title, _what_was_scored(plan, record), *_rows(plan, record))
    for table in RECOGNITION:
        record = _record_at(RECORDS / "recognition" / table.name / f"{name}.json", header)
        if record and name.startswith(f"{table.name}-"):
            config, step = record["config"], header["provenance"].get("step")
            known = {"steps": config["training"]["steps"], "best_step": step, "seed": config["seed"], **record}
            count, noun = record["over"]
            what = (
                f"{record['queries']} queries in {record['episodes']} episodes, each of the one of {record['ways']} "
                f"classes whose supports make it most likely. The interval is 95 %, over {count} {noun}."
            )
            row = [str(record["shots"]), f"{100 * record['accuracy']:.1f}", _per_cent(record), f"{record['nll']:.2f}"]
            return _Scored(known, table.title, what, ["shots", "right, %", "95 % interval", "posterior, nats"], [row])
    raise LookupError(f"No record in {RECORDS} is of the weights {name}. Score them: python -m experiments.reproduce.")


def _record_at(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """The record in a file; an empty one where there is none, or it is of other weights."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return record if record.get("weights_sha256") == header["sha256"] else {}


def _per_cent(record: Mapping[str, Any]) -> str:
    low, high = record["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _training(config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    training = config["training"]
    earlier = record.get("steps_before", [])
    before = " after " + " + ".join(f"{steps:,}" for steps in earlier) if earlier else ""
    best = record.get("best_step")
    chosen = f", the best of them by validation classes number {best:,}" if best else ""
    spent = record.get("cpu_seconds")
    time = f" These steps took {spent:,.0f} s of processor time." if spent else ""
    begun = f" They begin with the weights of `{record['config']['initial']}`." if record["config"]["initial"] else ""
    return (
        f"{record['steps']:,} steps{before}, of {training['tasks']} tasks, queries a task {training['queries']}, "
        f"supports {', '.join(map(str, training['shots']))}{chosen}.{begun}{time} Seed {record['seed']}. "
        f"{_settings('training', config)}\n\n`{record['command']}` scores it again, or trains it where it is not there "
        "(`weights=None`)."
    )


def _what_was_scored(plan: Plan, record: Mapping[str, Any]) -> str:
    row = record["rows"][0]
    given = f", given the first {record['given']} places of each" if record.get("given") else ""
    return (
        f"{row['images']:,} {_noun(plan)}s of the test split, of {row['classes']:,} classes{given}. Intervals are 95 "
        "%, over classes."
    )


def _noun(plan: Plan) -> str:
    return "image" if plan.unit in ("nats/image", "nats/dim") else "sequence"


def _rows(plan: Plan, record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    headings = ["shots", f"nats/{_noun(plan)}", "95 % interval", "nats/dim", "bits/dim"]
    rows = [
        [
            str(row["shots"]),
            f"{row['nats_per_image']:.2f}",
            interval((row["interval_low"], row["interval_high"]), 2),
            f"{row['nats_per_dim']:.4f}",
            f"{row['bits_per_dim']:.4f}",
        ]
        for row in record["rows"]
    ]
    return headings, rows


def _settings(group: str, config: Mapping[str, Any]) -> str:
    """The recorded settings of a group, as they are typed, apart from what is not set."""
    flat = flatten({group: config[group]}).items()
    return "`" + " ".join(f"{key}={value}".replace(" ", "") for key, value in flat if value is not None) + "`"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")

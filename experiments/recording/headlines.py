"""What came out of a run, in a few words. Imports nothing heavy: listing runs is to be quick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

LONGEST = 400  # characters of a result that has no score
# Numbers that are no results.
SETTINGS = {"seed", "seconds", "steps", "parameters", "shots", "temperature", "size", "repeats", "resamples"}


def score(result: Any) -> str:
    """The number that a run was for, with its unit: ``74.44 nats/image at 8 shots``; "" where it has none.

    Of an evaluation that of its subject at most shots, of a comparison that of the first model with the reference.
    """
    if _is_number(result):
        return f"{result:.5g}"
    if not isinstance(result, Mapping):
        return ""
    if _is_number(result.get("validation/cautious")):
        return f"at most {result['validation/cautious']:.4g} nats/{_word(result, 'dim')} in validation (95 %)"
    rows = result.get("rows")
    unit = f"nats/{_word(result, 'noun')}"
    if isinstance(rows, list) and (found := _of_rows([row for row in rows if isinstance(row, Mapping)], unit)):
        return found
    if _is_number(result.get("accuracy")):
        return f"{100 * result['accuracy']:.1f} % right of {result.get('ways')} ways"
    auc = _within(result, "tests", "support", "auc")
    if _is_number(auc):
        return f"{100 * auc:.1f} % of samples closer"
    if _is_number(result.get("samples")) and (result.get("picture") or result.get("tensors")):
        return f"{result['samples']} {'completions' if result.get('observed') else 'samples'}"
    named = ((key, value) for key, value in result.items() if _is_number(value) and key not in SETTINGS)
    return next((f"{key} {value if isinstance(value, int) else format(value, '.5g')}" for key, value in named), "")


def last_line(experiment: str, result: Any) -> str:
    """What a command ends with: its score, and where all of it is; the result itself where it has no score."""
    folder = result.get("folder") if isinstance(result, Mapping) else None
    place = f" ({folder})" if folder else ""
    if folder or score(result):
        return f"{experiment}: {score(result) or 'done'}{place}"
    text = str(result)
    return f"{experiment}: {text if len(text) <= LONGEST else f'{text[:LONGEST]} ... (whole in the record of the run)'}"


def command(meta: Any) -> str:
    """What was typed after the command, ``with digits fast``, of Sacred's record of it; "" where nothing was."""
    if not isinstance(meta, Mapping):
        return ""
    typed = _within(meta, "options", "UPDATE")
    if not typed:
        typed = [*_listed(meta.get("named_configs")), *_assignments(meta.get("config_updates"))]
    return f"with {' '.join(map(str, typed))}" if typed else ""


def _of_rows(rows: Iterable[Mapping[str, Any]], unit: str) -> str:
    """Of the rows of an evaluation or a comparison, the last one of the first model."""
    rows = list(rows)
    own = [row for row in rows if row.get("model") == rows[0].get("model")]
    for row in reversed(own):
        at = f" at {row['shots']} shot{'s' * (row['shots'] != 1)}" if "shots" in row else ""
        if row.get("nats_per_image", 0) is None:  # some image has probability 0
            return f"infinite {unit}{at}"
        if _is_number(row.get("nats_per_image")):
            return f"{row['nats_per_image']:.2f} {unit}{at}"
        if _is_number(row.get("mean")):
            return f"{row['model']}: {row['mean']:+.3f} {unit}{at}"
    return ""


def _word(result: Any, which: str) -> str:
    """The "noun" or the "dim" of what a result is of (``tasks.media.Words``); before results said it, of an image."""
    return str(_within(result, "words", which) or {"noun": "image", "dim": "dim"}[which])


def _assignments(updates: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in updates.items() if isinstance(updates, Mapping) else ():
        inner = isinstance(value, Mapping)
        found += _assignments(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}={value}"]
    return found


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _within(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)

"""TensorBoard's event files read back, and where they differ from metrics.jsonl, which is a run's record.

Curves can lack values: TensorBoard writes them from a queue, which a killed process takes with it. And its reader
keeps a random choice of what there is (4 images of 10, 10,000 points of a curve) where it is not told to keep all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator

from metadensity.files import JsonLines

FLOAT32 = 1e-6  # relative; TensorBoard keeps single precision
FINAL = "final/"  # of tags that are no curves: settings beside final metrics


def read_events(folder: Path) -> EventAccumulator:
    """Everything in the event files of a folder: no image, point or value is left out, as by default some are.

    Raises RuntimeError, naming the folder, where a file is damaged; one that was cut off is read up to there.
    """
    events = EventAccumulator(str(folder), dict(STORE_EVERYTHING_SIZE_GUIDANCE), purge_orphaned_data=False)
    try:
        return events.Reload()
    except Exception as error:  # TensorBoard's own, of several kinds
        raise RuntimeError(f"The event files in {folder} are damaged ({error}).") from error


def differences(run: Path) -> list[str]:
    """A line for each number of which the curves of a run are other than its record; none where all are equal.

    A number that was infinite is null in the record and stands in no curve. Raises DamagedFileError where the record is
    damaged, RuntimeError where the event files are.
    """
    recorded: dict[str, dict[int, float]] = defaultdict(dict)
    for lines in ("metrics.jsonl", "timing.jsonl"):
        for record in JsonLines(run / lines).read():
            for name in record.keys() - {"step"}:
                if record[name] is not None:
                    recorded[name][record["step"]] = record[name]
    events, curves = read_events(run / "tensorboard"), defaultdict[str, dict[int, list[float]]](dict)
    for name in events.Tags()["scalars"]:
        if not name.startswith(FINAL):
            for event in events.Scalars(name):
                curves[name].setdefault(event.step, []).append(event.value)
    return [
        f"{name}: {said}"
        for name in sorted(recorded.keys() | curves.keys())
        for said in _compared(recorded.get(name, {}), curves.get(name, {}))
    ]


def _compared(recorded: Mapping[int, float], curve: Mapping[int, list[float]]) -> list[str]:
    """What is missing, what is there beyond, and what is another number, each with the first step of it."""
    found = []
    other = [
        step
        for step in sorted(recorded.keys() & curve.keys())
        if any(not math.isclose(recorded[step], value, rel_tol=FLOAT32) for value in curve[step])
    ]
    for what, steps in {
        "missing from the event files": sorted(recorded.keys() - curve.keys()),
        "in the event files alone": sorted(curve.keys() - recorded.keys()),
        "another number": other,
    }.items():
        if steps:
            found.append(f"{len(steps)} of {len(recorded.keys() | curve.keys())} values {what}, at step {steps[0]}")
            found[-1] += "" if len(steps) == 1 else f" to {steps[-1]}"
    if other:
        found[-1] += f" ({recorded[other[0]]:g} in the record, {curve[other[0]][-1]:g} in the event files)"
    return found

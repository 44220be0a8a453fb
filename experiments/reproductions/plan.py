"""The plan of a reproduction: a table whose entries are models with their training recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from metadensity.adaptation.fine_tuning import FineTuning


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    title: what the row is called. named, updates: named configurations of experiments.train, and settings beside them.
    initialised_from: the entry whose weights training begins with.
    ensemble_of: instead of training, the entries whose models are the members of its ensemble.
    combine, weights: how these are one density; fitted weights are those of validation classes, see EnsemblePixelCNN.
    fine_tunes, tunings: instead of training, the entry whose model is fine-tuned on each support at test time, and the
        settings to choose from, by the likelihood of validation classes.
    paper: nats/dim that were published: (test, train) by number of shots; None where it is not known.
    optimum: instead of a model, the truth that the task knows; the table then has the gap of each model to it.
    in_table: whether it has a row; one without only gives its weights to another.
    """

    title: str
    named: tuple[str, ...] = ()
    updates: Mapping[str, Any] = field(default_factory=dict)
    initialised_from: str | None = None
    ensemble_of: tuple[str, ...] = ()
    combine: str = "mean"
    weights: str = "equal"
    fine_tunes: str | None = None
    tunings: tuple[FineTuning, ...] = ()
    paper: Mapping[int, tuple[float, float | None]] = field(default_factory=dict)
    optimum: bool = False
    in_table: bool = True


@dataclass(frozen=True)
class Plan:
    """A table that one command makes.

    weight_prefixes: how the names of its weight files begin, the first where it writes them; weights of the same recipe
        are taken from any of them.
    entries: by name, those that others build on first. shots: numbers of supports. queries: images that share a
    support. limit: at most so many test episodes (None: every test image once), spread over the classes.
    train_limit: as many of training classes, for the likelihood of training images; 0: it is not asked for, and the
    table has the interval of each number in its place. tuning_limit: as many of validation classes, by which settings
    of fine-tuning and weights of ensembles are chosen. baseline: the entry that the others are compared with in pairs.
    gain: (model, baseline) whose gain is shown in per cent. notes: to stand below.
    unit: "nats/image"; "nats/dim", as is usual for colour, with bits/dim beside it; or nats or bits a place of a
    sequence, by its name, such as "bits/character": the sum over all queries divided by that of their sizes.
    given: places at the beginning of each sequence that are given and not scored.
    fast_task: settings of the task for a quick look.
    published: what a row of published numbers is called.
    timed: whether it has the seconds that scoring took, adaptation included.
    own_images_config: the named configuration of the task where images are the user's own; None: they cannot be.
    """

    name: str
    weight_prefixes: tuple[str, ...]
    title: str
    entries: Mapping[str, Entry]
    shots: tuple[int, ...]
    baseline: str
    queries: int = 4
    limit: int | None = None
    train_limit: int = 90
    tuning_limit: int = 6
    gain: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()
    unit: str = "nats/image"
    given: int = 0
    fast_task: Mapping[str, Any] = field(default_factory=lambda: {"size": 8})
    published: str = "the paper's, as recalled"
    own_images_config: str | None = None
    timed: bool = False

    @property
    def rows(self) -> list[str]:
        """The entries that have a row."""
        return [name for name, entry in self.entries.items() if entry.in_table]

    def on(self, folder: str) -> Plan:
        """The same on a folder of images in place of the plan's. Raises ValueError where the plan cannot take one."""
        if self.own_images_config is None:
            raise ValueError(f"folder={folder!r}, but {self.name} is of a data set of its own; leave folder=None.")
        entries = {
            name: replace(
                entry,
                named=(self.own_images_config, *entry.named[1:]),
                updates={**entry.updates, "task": {**entry.updates.get("task", {}), "folder": folder}},
            )
            for name, entry in self.entries.items()
        }
        return replace(self, entries=entries)

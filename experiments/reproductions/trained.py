"""The trained model of an entry: shipped, of an earlier run, resumed, or trained now."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacred.run import Run

import metadensity
from experiments import train
from experiments.ingredients import NAMED_CONFIGS
from experiments.recording import lineage
from experiments.recording.root import runs_root
from experiments.recording.run_folder import RunFolder, folder_of
from experiments.recording.run_table import read_runs
from experiments.reproductions.plan import Entry, Plan
from experiments.results.shipped_weights import SUFFIX, shipped, shipped_file
from experiments.studies.same_training import ELSEWHERE, KEPT, same_config
from experiments.studies.training_runs import train_run
from metadensity import FewShotModel
from metadensity.adaptation import layer_pattern
from metadensity.files import JsonLines, read_header
from metadensity.models import EnsemblePixelCNN

SHIPPED = "shipped"


@dataclass(frozen=True)
class Trained:
    """A trained entry. file: its weights. config: what decided them. run: of its training, None where it had none here.

    members: of an ensemble.
    """

    file: Path
    config: dict[str, Any]
    run: RunFolder | None
    members: tuple[Trained, ...] = ()

    def model(self, device: str) -> FewShotModel:
        """The model, ready to evaluate."""
        return metadensity.load(self.file, device)

    def values(self, initialised_from: str | None) -> dict[str, Any]:
        """What a record says of the training, which began with the weights of the entry ``initialised_from``."""
        header, training = read_header(self.file), self.config["training"]
        return {
            "config": {**self.config, "initial": initialised_from},
            "seed": self.config["seed"],
            "weights_sha256": header["sha256"],
            "steps": training["steps"],
            "images": training["steps"] * training["tasks"] * training["queries"],
            "best_step": header["provenance"].get("step"),
            "cpu_seconds": self.cpu_seconds(),
        }

    def cpu_seconds(self) -> float | None:
        """CPU time of the training, of all members; None where it is not known."""
        if self.members:
            spent = [member.cpu_seconds() for member in self.members]
            known = [seconds for seconds in spent if seconds is not None]
            return sum(known) if len(known) == len(spent) else None
        if self.run is not None:
            return cpu_seconds(self.run)
        found: float | None = read_header(self.file)["provenance"].get("cpu_seconds")
        return found

    def ship(self, path: Path, initialised_from: str | None) -> None:
        """Write the weights with what a record says of their training, so that the run is no longer needed."""
        model, values = self.model("cpu"), self.values(initialised_from)
        known = {key: value for key, value in model.provenance.items() if key != "weights_sha256"}
        metadensity.save(model, path, {**known, **{key: values[key] for key in ("config", "cpu_seconds")}})


def trained(
    plan: Plan,
    name: str,
    run: Run,
    made: dict[str, Trained],
    weights: str | None,
    fast: bool,
    device: str,
    progress: bool,
) -> Trained:
    """The model of an entry, kept in ``made``; what it begins with comes first. device: where to train it."""
    if name in made:
        return made[name]
    entry = plan.entries[name]
    if entry.ensemble_of:
        members = [trained(plan, each, run, made, weights, fast, device, progress) for each in entry.ensemble_of]
        together = folder_of(run) / weights_name(plan.weight_prefixes[0], name)
        made[name] = _together(members, together, entry, plan.shots)
        return made[name]
    named, updates = recipe(plan, entry, fast)
    config = kept(named, updates)
    file = find_weights(weights, plan, name, config) if weights else None
    if file is not None:
        made[name] = Trained(file, config, None)
        return made[name]
    initial = None
    if entry.initialised_from is not None:
        initial = str(trained(plan, entry.initialised_from, run, made, weights, fast, device, progress).file)
        config = kept(named, {**updates, "initial": initial})
    folder = find_run(config)
    if folder is None or not finished(folder):
        if weights not in (None, SHIPPED):  # who names a folder does not ask for hours of training
            raise FileNotFoundError(
                f"weights={weights!r} holds no {weights_name(plan.weight_prefixes[0], name)}, and no finished run has "
                f"this model ({plan.name}, {name}). Give weights=shipped for what is shipped, or weights=None to train."
            )
        resume = None if folder is None else str(folder.path)
        print(f"{plan.name}: training {name}" + (f", going on with {resume}" if resume else ""))
        updates["training"] = {**updates.get("training", {}), "device": device, "graphs": device.startswith("cuda")}
        beside = {"initial": initial, "resume": resume, "allow": sorted(ELSEWHERE)}
        folder = train_run(run, {**updates, **beside}, progress, named)
    made[name] = Trained(folder.best, config, folder)
    return made[name]


@dataclass(frozen=True)
class Training:
    """What an entry has to be trained with. begins_with: the entry whose training comes first, for its weights."""

    entry: str
    config: dict[str, Any]
    begins_with: str | None = None


def trainings(plan: Plan, names: Sequence[str], weights: str | None, fast: bool, device: str) -> list[Training]:
    """The trainings that entries ask for, each once, those that others begin with before them.

    Entries whose weights lie in ``weights`` ask for none. Raises as ``find_weights``.
    """
    found: dict[str, Training] = {}

    def add(name: str) -> Path | None:
        """The file of an entry's weights, None where it is to be trained."""
        entry = plan.entries[name]
        for other in entry.ensemble_of or ((entry.fine_tunes,) if entry.fine_tunes else ()):
            add(other)
        if entry.ensemble_of or entry.fine_tunes or entry.optimum:
            return None
        named, updates = recipe(plan, entry, fast)
        config = kept(named, updates)
        file = find_weights(weights, plan, name, config) if weights else None
        if file is None and name not in found:
            first = entry.initialised_from
            initial = None if first is None else add(first)
            config |= {"initial": None if initial is None else str(initial)}
            config["training"] |= {"device": device, "graphs": device.startswith("cuda")}
            found[name] = Training(name, config, first if initial is None else None)
        return file

    for name in names:
        add(name)
    return list(found.values())


def _together(members: Sequence[Trained], file: Path, entry: Entry, shots: Sequence[int]) -> Trained:
    """Trained models as an ensemble, in a file of its own; weights that are to be fitted are equal still."""
    models, config = [member.model("cpu") for member in members], members[0].config
    known = {key: models[0].provenance[key] for key in ("task", "split")}
    weights = [model.provenance["weights_sha256"] for model in models]
    settings: dict[str, Any] = {}
    if (entry.combine, entry.weights) != ("mean", "equal"):
        settings = {"combine": entry.combine, "weights": entry.weights, "anchors": list(shots)}
    ensemble = EnsemblePixelCNN.of(models, **settings)
    metadensity.save(ensemble, file, {**known, "members": weights})
    if isinstance(ensemble.config["members"], int):
        one = config["model"]
        sizes = {**one, "name": "ensemble", "members": len(members), "member": one["name"], **settings}
    else:
        sizes = {"name": "ensemble", **{k: v for k, v in ensemble.config.items() if k not in ("event_shape", "levels")}}
    return Trained(file, {**config, "model": sizes}, None, tuple(members))


def kept(named: tuple[str, ...], updates: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the weights, of the configuration of a training."""
    config = train.experiment.configuration(named, updates)
    return {key: config[key] for key in KEPT}


def steps_before(plan: Plan, name: str, fast: bool) -> list[int]:
    """Training steps of the entries that an entry's weights come from, the first one's first; of one of its members."""
    if plan.entries[name].ensemble_of:
        return steps_before(plan, plan.entries[name].ensemble_of[0], fast)
    before = plan.entries[name].initialised_from
    if before is None:
        return []
    steps = kept(*recipe(plan, plan.entries[before], fast))["training"]["steps"]
    return [*steps_before(plan, before, fast), steps]


def recipe(plan: Plan, entry: Entry, fast: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Named configurations of experiments.train and settings beside them; fast: a net of two layers, four steps.

    Encoders that can have norms of our own, which came later than what is shipped, are the published ones without, but
    where the entry says otherwise.
    """
    named, updates = entry.named, copy.deepcopy(dict(entry.updates))
    model = train.experiment.configuration(named, updates)["model"]
    if "support_norm" in model:
        named = (*named, "plain_encoders")
    if not fast:
        return named, updates
    updates.pop("training", None)
    own = updates.get("model", {})
    if own.get("adapts"):
        own["adapts"] = layer_pattern(1, 2)
    small = NAMED_CONFIGS["fast"]
    of_model = {key: value for key, value in small["model"].items() if key in model}
    if plan.fast_task:
        updates["task"] = {**updates.get("task", {}), **plan.fast_task}
    sizes = {**own, **of_model}
    return named, {**updates, **({"model": sizes} if sizes else {}), "training": small["training"]}


def find_weights(folder: str, plan: Plan, name: str, config: Mapping[str, Any]) -> Path | None:
    """The file of an entry's weights that were trained with this configuration, or None.

    folder: where they lie, or "shipped". Raises as ``shipped_file``, and ValueError where the plan's own file says that
    it was trained in another way.
    """
    for family in plan.weight_prefixes:
        path = _file_in(folder, weights_name(family, name))
        if path is None:
            continue
        said = read_header(path)["provenance"].get("config")
        if said is None or same_config({**said, "initial": None}, {**config, "initial": None}):
            return path
        if family == plan.weight_prefixes[0]:
            raise ValueError(
                f"{path} was trained with another configuration than {plan.name} has for {name}. Move it away to train "
                "anew, or give weights=None."
            )
    return None


def _file_in(folder: str, file: str) -> Path | None:
    if folder != SHIPPED:
        return path if (path := Path(folder) / file).is_file() else None
    return shipped_file(name) if (name := file.removesuffix(SUFFIX)) in shipped() else None


def weights_name(family: str, name: str) -> str:
    """What the file of an entry's weights is called."""
    return f"{family}-{name}{SUFFIX}"


def find_run(config: Mapping[str, Any]) -> RunFolder | None:
    """The run of experiments.train with this configuration: a finished one, else one with a state to go on from."""
    if not runs_root().is_dir():
        return None
    found = [
        RunFolder(record.folder)
        for record in read_runs()
        if record.experiment == "train"
        and record.status not in ("RUNNING", "UNKNOWN")
        and same_config(record.config, config)
    ]
    return next((run for run in found if finished(run)), next((run for run in found[::-1] if run.states()), None))


def finished(run: RunFolder) -> bool:
    """Whether a run was trained to its last step."""
    states = run.states()
    steps = int(run.config()["training"]["steps"])
    return bool(states) and run.best.is_file() and int(read_header(states[-1])["step"]) >= steps


def cpu_seconds(run: RunFolder) -> float | None:
    """CPU time of the training steps over a chain of resumed runs; None where a run did not record it."""
    lines = [line for link, _ in lineage.chain(run) for line in JsonLines(link.path / "timing.jsonl").read()]
    spent = [line["train/cpu_seconds"] for line in lines if "train/cpu_seconds" in line]
    return float(sum(spent)) if spent and len(spent) == len(lines) else None

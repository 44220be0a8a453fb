"""The tables of the paper and ours, from one command each: ``python -m experiments.reproduce omniglot``.

An entry whose weights are shipped is evaluated; otherwise its training is taken from the runs folder, gone on
with where it was stopped, or made. Each training is a recorded run of its own. All entries are scored on the same
episodes, each once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred.run import Run

import metadensity
from experiments.benchmarks.timing import machine
from experiments.evaluate import optimal
from experiments.ingredients import build_task
from experiments.ingredients.evaluation_episodes import EpisodeBatches, choose_episodes, pixel_identity
from experiments.recording import lineage
from experiments.recording.command_line import main, make_experiment
from experiments.recording.comparability import UNITS
from experiments.recording.run_folder import folder_of
from experiments.reporting.document_blocks import replace_block
from experiments.reporting.ensemble_weights import weight_lines
from experiments.reporting.tables import cost_record, records
from experiments.reproductions import GROUPS, MEANS, PLANS, Entry, Plan
from experiments.reproductions.omniglot_adaptation import QUARTER_HOUR
from experiments.reproductions.recognition import (
    RECOGNITION,
    read_recognition,
    recognised,
    save_fitted,
    write_recognition,
)
from experiments.reproductions.recognition import markdown as recognition_markdown
from experiments.reproductions.recognition import section as recognition_section
from experiments.reproductions.records import Record, read_records, write_record
from experiments.reproductions.speeds import section, step_seconds
from experiments.reproductions.tables import markdown, mean_section, sections
from experiments.reproductions.trained import Trained, kept, recipe, steps_before, trained, weights_name
from experiments.results import RECORDS
from experiments.results.shipped_weights import write_registry
from metadensity import FewShotModel
from metadensity.adaptation.fine_tuning import FineTuned, FineTuning
from metadensity.evaluation.cost import parameter_count
from metadensity.files import write_atomically
from metadensity.models import EnsemblePixelCNN
from metadensity.progress import with_progress

SPLITS = ("train", "validation", "test")
GENERATED = 1000  # episodes of tasks that draw without end
DOCUMENT = Path(__file__).parent / "reproductions" / "README.md"
experiment = make_experiment(
    "reproduce", named_configs={"fast": {"fast": True, "limit": 2, "train_limit": 2, "weights": None}}
)


@experiment.config
def _defaults() -> None:
    only = list[str]()  # names of entries; none: all
    weights = "shipped"  # or a folder that holds FAMILY-ENTRY.safetensors for each entry; None: do not look
    keep_weights = None  # a folder to copy the trained models to
    keep_records = None  # a folder to write the records to, besides the run's
    folder = None  # mirror, products: images to take in place of the plan's (a folder, or a zip archive)
    limit = None  # at most so many test episodes; None: as the plan says
    train_limit = None  # the same of training classes
    document = None  # of the command readme; None: reproductions/README.md
    tasks_per_batch = 16
    fast = False  # tiny nets and four steps: to see that it works
    device = "cpu"  # where to train and to evaluate
    progress = True  # whether bars are shown


@experiment.main
def plans() -> list[str]:
    """Print the tables there are."""
    for plan in PLANS.values():
        print(f"python -m experiments.reproduce {plan.name:<12} {plan.title}: {', '.join(plan.rows)}")
    for table in RECOGNITION:
        print(f"python -m experiments.reproduce recognition  {table.title}: {', '.join(table.titles)}")
    return list(PLANS)


def _add_command(plan: Plan) -> None:
    def command(_run: Run, _config: dict[str, Any]) -> dict[str, Any]:
        return reproduce(plan, _run, folder_of(_run), **_settings(_config))

    command.__name__, command.__doc__ = plan.name, f"{plan.title}."
    experiment.command(command)


def _add_group(name: str, plans: Sequence[Plan]) -> None:
    def command(_run: Run, _config: dict[str, Any]) -> dict[str, Any]:
        settings = _settings(_config)
        if settings["only"]:
            known = ", ".join(plan.name for plan in plans)
            raise ValueError(
                f"only={settings['only']} names entries of one table; {name} makes {known}: make that one."
            )
        folder = folder_of(_run)
        made = {plan.name: reproduce(plan, _run, folder / plan.name, **settings) for plan in plans}
        if name in MEANS:
            records = {plan.name: read_records(folder / plan.name / "records", plan) for plan in plans}
            print("\n" + mean_section(plans, records).plain())
        return made

    command.__name__, command.__doc__ = name, f"All of {', '.join(plan.name for plan in plans)}."
    experiment.command(command)


for _plan in PLANS.values():
    _add_command(_plan)
for _name, _plans in GROUPS.items():
    _add_group(_name, _plans)


@experiment.command
def speeds(fast: bool, _run: Run) -> dict[str, Any]:
    """How long a training step of each way to adapt takes: what the numbers of steps of ``adaptation`` come from."""
    found = step_seconds(PLANS["adaptation"], fast)
    table = section(PLANS["adaptation"], found, QUARTER_HOUR)
    print("\n" + table.plain())
    folder = folder_of(_run)
    write_atomically(folder / "speeds.md", table.markdown().encode())
    return {"folder": str(folder), "seconds": found}


@experiment.command
def recognition(
    only: Sequence[str],
    weights: str | None,
    keep_weights: str | None,
    keep_records: str | None,
    limit: int | None,
    fast: bool,
    device: str,
    progress: bool,
    _run: Run,
) -> dict[str, Any]:
    """Digits and speakers by likelihood alone: find or fit each model, print the tables of how many are right.

    only: names of tables.
    """
    tables = {table.name: table for table in RECOGNITION}
    if unknown := set(only) - tables.keys():
        raise ValueError(f"only={sorted(only)} names {sorted(unknown)}; there are {', '.join(tables)}.")
    folder, kept_folders = folder_of(_run) / "records", [Path(keep_records) / "recognition"] if keep_records else []
    for table in [tables[name] for name in only or tables]:
        episodes = table.drawn(fast, limit)
        for name in table.titles:
            if fast and name in table.nets:
                continue  # they are of whole recordings
            model = table.model(name, weights, fast, progress).to(device)
            own: dict[str, Any] = {
                "command": f"python -m experiments.reproduce recognition with only=\"['{table.name}']\""
            }
            own |= {"table": table.name, "title": table.titles[name], "machine": machine()}
            if keep_weights and name not in table.nets:
                path = Path(keep_weights) / f"{name}.safetensors"
                model.provenance["weights_sha256"] = save_fitted(model, path)
            record = {**own, **recognised(model, episodes, name, progress)}
            for where in (folder, *kept_folders):
                write_recognition(where, table, name, record)
        print("\n" + recognition_section(table, read_recognition(folder, table)).plain())
    write_atomically(folder.parent / "recognition.md", recognition_markdown(RECOGNITION, folder).encode())
    return {"folder": str(folder.parent)}


@experiment.command
def readme(document: str | None) -> None:
    """Write the tables of the repository's records into reproductions/README.md, or another with their marks."""
    if not RECORDS.is_dir():
        raise FileNotFoundError(f"There are no records at {RECORDS}: an installed package has none. Use a clone.")
    for plan in PLANS.values():
        replace_block(Path(document or DOCUMENT), plan.name, markdown(plan, read_records(RECORDS / plan.name, plan)))
    replace_block(Path(document or DOCUMENT), "recognition", recognition_markdown(RECOGNITION, RECORDS / "recognition"))
    for name, plans in MEANS.items():
        records = {plan.name: read_records(RECORDS / plan.name, plan) for plan in plans}
        replace_block(Path(document or DOCUMENT), name, mean_section(plans, records).markdown())


@experiment.command
def registry() -> list[str]:
    """Make the weights that lie in the repository the shipped ones: write their names and checksums. Returns them."""
    return write_registry()


def reproduce(
    plan: Plan,
    run: Run,
    here: Path,
    only: Sequence[str],
    weights: str | None,
    keep_weights: str | None,
    keep_records: str | None,
    folder: str | None,
    limit: int | None,
    train_limit: int | None,
    tasks_per_batch: int,
    fast: bool,
    device: str,
    progress: bool,
) -> dict[str, Any]:
    """Train or find each entry's model, score it, print and write the table. Returns the rows by entry.

    here: where its tables and records go. folder: images to train and score on in place of the plan's.

    Raises ValueError for a name that is no entry of the plan, and a folder where it takes none.
    """
    if folder is not None:
        plan, weights = plan.on(str(Path(folder).resolve())), None
    if unknown := set(only) - plan.entries.keys():
        raise ValueError(f"only={sorted(only)} names {sorted(unknown)}; {plan.name} has {', '.join(plan.rows)}.")
    limits = {
        "train": max(1, plan.train_limit) if train_limit is None else train_limit,
        "test": plan.limit if limit is None else limit,
        "validation": plan.tuning_limit if limit is None else min(limit, plan.tuning_limit),
    }
    made: dict[str, Trained] = {}
    done: dict[str, Record] = {}
    for name in only or plan.rows:
        entry = plan.entries[name]
        source = None
        if entry.optimum:
            config = kept(*recipe(plan, plan.entries[plan.baseline], fast))
        else:
            source = trained(plan, entry.fine_tunes or name, run, made, weights, fast, device, progress)
            config = source.config
        sets = {split: _batches(plan, config["task"], split, limits[split], tasks_per_batch) for split in SPLITS}
        own: dict[str, Any] = {}
        if source is None:
            best = optimal(sets["test"].task, sets["test"], device, "trust_ids", progress)
            if best is None:
                raise ValueError(f"{plan.name}: {sets['test'].task.name} does not know its optimum.")
            found = {"test": best}
        else:
            model, chosen = source.model(device), None
            weights_found = _fitted(model, source.file, sets["validation"], name, progress)
            if entry.tunings:
                model, chosen = _tuned(model, entry, sets["validation"], progress)
            found = {
                split: metadensity.evaluate(
                    model,
                    with_progress(sets[split], f"scoring {name}, {split}", "batches", progress),
                    given=plan.given,
                )
                for split in _scored(plan, entry)
            }
            own = {
                **source.values(plan.entries[entry.fine_tunes or name].initialised_from),
                "steps_before": steps_before(plan, entry.fine_tunes or name, fast),
                "parameters": parameter_count(model),
                "fine_tuning": chosen,
                **({} if weights_found is None else {"weights_by_shots": weights_found}),
            }
        values = {
            "plan": plan.name,
            "entry": name,
            "title": entry.title,
            "command": f"python -m experiments.reproduce {plan.name} with only=\"['{name}']\"",
            "config": config,
            **own,
            "units": UNITS,
            **({"given": plan.given} if plan.given else {}),
            "data_sha256": lineage.stream_hash(*(sets[split].task for split in SPLITS)),
            "pixels": pixel_identity(sets["test"].task),
            "split": sets["test"].task.split,
            "episodes_sha256": sets["test"].chosen.hash,
            "train_episodes_sha256": sets["train"].chosen.hash,
            "rows": _plain(records({name: found["test"]})),
            "train_rows": _plain(records({name: found["train"]})) if "train" in found else [],
            "cost": cost_record(found["test"].cost),
            "machine": machine(),
        }
        for where in (here / "records", *([Path(keep_records) / plan.name] if keep_records else [])):
            done[name] = write_record(where, name, values, found["test"])
        if keep_weights and source is not None and not entry.fine_tunes:
            source.ship(Path(keep_weights) / weights_name(plan.weight_prefixes[0], name), entry.initialised_from)
        print("\n" + sections(plan, {name: done[name]})[0].plain())
    tables = sections(plan, done)
    print("\n" + "\n".join(table.plain() for table in tables))
    write_atomically(here / f"{plan.name}.md", "\n".join(table.markdown() for table in tables).encode())
    models = [source.run for source in made.values() if source.run is not None]
    lineage.record_use(run, here, "reproduced", models, next(iter(done.values())).values["episodes_sha256"])
    return {"folder": str(here), "rows": {name: record.values["rows"] for name, record in done.items()}}


def _scored(plan: Plan, entry: Entry) -> tuple[str, ...]:
    """The splits that a model is scored on."""
    if entry.fine_tunes or plan.train_limit == 0:
        return ("test",)  # fine-tuning takes minutes for a few images
    return ("test", "train")


def _batches(
    plan: Plan, task: Mapping[str, Any], split: str, limit: int | None, tasks_per_batch: int
) -> EpisodeBatches:
    """The fixed episodes of a split at all the plan's numbers of shots."""
    built, shots = build_task({**task, "styles": 0}, split), list(plan.shots)  # the likelihood of real drawings
    return EpisodeBatches(
        choose_episodes(built, None, shots, plan.queries, 1, limit, 0, GENERATED), built, shots, tasks_per_batch
    )


def _tuned(
    model: FewShotModel, entry: Entry, validation: EpisodeBatches, progress: bool
) -> tuple[FineTuned, dict[str, Any]]:
    """The model with the settings of fine-tuning that validation classes like best, and what they said of each.

    Where there is one alone nothing is asked.
    """
    if len(entry.tunings) == 1:
        return FineTuned(model, entry.tunings[0]), {"chosen": dataclasses.asdict(entry.tunings[0]), "tried": []}

    def score(settings: FineTuning) -> float:
        stream = with_progress(validation, f"fine-tuning by {settings.steps} steps", "batches", progress)
        rows = metadensity.evaluate(FineTuned(model, settings), stream).rows
        return sum(row.nats_per_image for row in rows) / len(rows)

    scores = [score(settings) for settings in entry.tunings]
    best = entry.tunings[scores.index(min(scores))]
    tried = [
        {**dataclasses.asdict(settings), "validation_nats_per_image": found}
        for settings, found in zip(entry.tunings, scores, strict=True)
    ]
    return FineTuned(model, best), {"chosen": dataclasses.asdict(best), "tried": tried}


def _fitted(
    model: FewShotModel, file: Path, validation: EpisodeBatches, name: str, progress: bool
) -> dict[str, list[float]] | None:
    """Let an ensemble whose weights are fitted have those of validation classes, and its file as well; prints them."""
    if not isinstance(model, EnsemblePixelCNN) or model.weights not in ("fitted", "leave_one_out"):
        return None
    found = model.fit_weights(with_progress(validation, f"weights of {name}", "batches", progress))
    known = {key: value for key, value in model.provenance.items() if key != "weights_sha256"}
    model.provenance = {**known, "weights_sha256": metadensity.save(model, file, known)}
    print("\n" + "\n".join(weight_lines(model)))
    return {str(shots): weights for shots, weights in found.items()}


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "model"} for row in rows]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("seed", "document")}


if __name__ == "__main__":
    main(experiment)

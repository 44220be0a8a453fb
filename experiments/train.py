"""Meta-train a model: ``python -m experiments.train with omniglot attention``.

Training that ended goes on in a new run: ``with resume=runs/1``, at the settings of that run. What is to change is
given beside it, and named: ``training.steps=8000 allow=training.steps``.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sacred.run import Run
from sacred.utils import SacredError, SacredInterrupt

from experiments.figures.attention_maps import attention_picture
from experiments.figures.images import draw_samples, save_picture
from experiments.figures.shown import Written, add_to_tensorboard, events_of, titles_of, write
from experiments.ingredients import (
    NAMED_CONFIGS,
    TRAINING_DEFAULTS,
    build_model,
    build_task,
    model,
    read_config,
    task,
    training,
    training_config,
)
from experiments.recording import lineage
from experiments.recording.command_line import ENDING, INTERRUPTED, main, make_experiment
from experiments.recording.flat_configs import flatten
from experiments.recording.folder_observer import FolderObserver
from experiments.recording.initial_weights import load_initial_weights, weights_file
from experiments.recording.launched import STOPPED, require_equal
from experiments.recording.numerics import compare_numerics
from experiments.recording.resume import (
    find_resumable,
    inherit_best,
    require_same_config,
    require_steps_left,
    state_to_resume,
)
from experiments.recording.run_folder import RunFolder, folder_of
from experiments.reporting.training_overlap import shared_groups
from metadensity.evaluation.cost import parameter_count
from metadensity.processes import current
from metadensity.training import MetaTrainer
from tasks import DataError, TaskDistribution
from tasks.data.notices import say_once

experiment = make_experiment("train", [task, model, training], NAMED_CONFIGS)
experiment.shares = experiment.goes_on = True


class TrainingStopped(SacredInterrupt, SacredError):  # noqa: N818  it is no error
    """A signal asked the run to end; its state was saved. No error, so no traceback is printed."""

    STATUS = "INTERRUPTED"

    def __init__(self, message: str, number: int | None) -> None:
        super().__init__(message, print_traceback=False)
        self.exit_status = INTERRUPTED if number == signal.SIGINT else STOPPED


@experiment.config
def _defaults() -> None:
    seed = 0  # of the initial weights and the numbers of shots
    resume = None  # a run to go on from, in a new run that names it; or one of its states, to go on from that
    initial = None  # a run, a shipped model's name or a file of weights to begin from
    allow = list[str]()  # settings that may differ from the resumed run, for example ["training.steps"]
    validate = True  # False: without validation classes; the newest model stands for the best
    require_same_bits = False  # True: to resume where threads, processor or kernels differ is refused, not only said
    keep = 2  # how many of the newest states stay, besides the best model
    progress = True  # whether bars are shown


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the weights."""
    return {key: config[key] for key in ("task", "model", "training", "seed", "initial") if key in config}


@experiment.goes_on_from
def _settings_of_the_parent(typed: Mapping[str, Any]) -> dict[str, Any] | None:
    if typed.get("resume") is None:
        return None
    found = _deciding(read_config(find_resumable(typed["resume"]).config()))
    known = {key: value for key, value in found.get("training", {}).items() if key in TRAINING_DEFAULTS}
    return {**found, "training": known}


@experiment.check
def _can_begin(config: Mapping[str, Any]) -> None:
    """Raise for settings that no training can begin with."""
    parts, processes = training_config(config["training"], config["seed"]).parts, current().size
    if parts % processes:
        raise ValueError(
            f"training.parts={parts} for {processes} processes, which share the parts of a step; give a multiple of "
            f"{processes}. The weights depend on it, and not on the number of processes."
        )
    if config["resume"] is not None:
        parent = find_resumable(config["resume"])
        require_same_config(read_config(parent.config()), _deciding(config), config["allow"])
        require_steps_left(parent, config["training"]["steps"])
    elif config["initial"] is not None:
        weights_file(config["initial"])
    if config["keep"] < 1:
        raise ValueError(f"keep={config['keep']}; at least 1 state must stay, or nothing could be resumed.")


def _say_what_ends(task: TaskDistribution, model: Mapping[str, Any]) -> None:
    """Warn where strings end and the model could know it, but was not told."""
    end = getattr(task, "end", None)
    if end is not None and "end" in model and model["end"] in (None, False):
        told = "True" if model["end"] is False else str(end)
        say_once(
            f"The strings of {task.name} end with level {end}, and {model['name']} was not told: it learns what stands "
            f"after the end as well, and its samples go on. On the command line: model.end={told}."
        )


@experiment.main
def train(
    task: dict[str, Any],
    model: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    resume: str | None,
    initial: str | None,
    allow: list[str],
    validate: bool,
    require_same_bits: bool,
    keep: int,
    progress: bool,
    _run: Run,
) -> dict[str, Any]:
    """Meta-train, validate, keep checkpoints, draw samples. Returns the run's folder, steps and best validation."""
    began = time.perf_counter()
    folder = folder_of(_run)
    train_tasks = build_task(task, "train")
    validation_tasks = _validation_tasks(task) if validate else None
    config = training_config(training, seed)
    for tasks in (train_tasks, validation_tasks):
        require_room(tasks, config.shots, config.queries)
    _say_what_ends(train_tasks, model)
    net = build_model(model, train_tasks.event_shape, train_tasks.levels, seed)
    provenance = {"run": folder.name, "task": train_tasks.recipe, "split": "train", "seed": seed}
    settings = {"task": task, "model": model, "training": training, "seed": seed, "initial": initial}
    episodes = lineage.stream_hash(*(tasks for tasks in (train_tasks, validation_tasks) if tasks is not None))
    parents = []
    if initial is not None and resume is None:
        weights = weights_file(initial)
        fresh = load_initial_weights(net, weights)
        parents = [lineage.parent_of_file(folder, weights)]
        provenance["initial"] = parents[0].sha256
        absent = sorted({".".join(name.split(".")[:2]) for name in fresh})
        print(f"Beginning from {weights}; not in it: {', '.join(absent) or 'nothing'}.")
    trainer = MetaTrainer(net, train_tasks, validation_tasks, config)
    if resume is None:
        lineage.record(_run, folder, "trained", parents, episodes)
    else:
        parent, state = state_to_resume(resume)
        compare_numerics(state, config.device, require_same_bits)
        if not any(name.startswith("task.") and name not in lineage.PLACES for name in allow):
            lineage.require_same_episodes(parent, episodes)
        trainer.resume(state)
        lineage.record(_run, folder, "resumed", [lineage.parent_of(folder, parent.path, state)], episodes)
        if inherit_best(parent, RunFolder(folder), trainer.step) is None:
            trainer.best = math.inf  # a better value without its model would leave the run without any
        provenance["parent"] = parent.path.name
        _run.info["parent"] = {"run": parent.path.name, "state": state.name, "step": trainer.step}
        print(f"Going on from {state} at step {trainer.step}.")
    print(f"{model['name']}: {parameter_count(net):,} parameters; {task['name']}: {train_tasks.event_shape}")
    for said in () if validation_tasks is None else shared_groups(validation_tasks, train_tasks):
        print(f"Of validation, {said}")
    processes = current()
    require_equal({**flatten(settings), "episodes": episodes, "the step to go on from": trainer.step})
    if processes.rank:
        with Signals(trainer) as signals:
            trainer.run()
        signals.require_ended("the first process has the run.")
        return {}
    observer = FolderObserver(folder, _run, provenance, keep)
    try:
        with Signals(trainer) as signals:
            observer.checkpoint(trainer, best=False)  # from here on a killed run can be resumed
            trainer.run(observer, progress)
        if trainer.stopping and trainer.step < trainer.config.steps:
            observer.checkpoint(trainer, best=False)
        signals.require_ended(f"resume={folder} goes on from there.")
        shown = train_tasks if validation_tasks is None else validation_tasks
        samples = _samples(RunFolder(folder), observer, shown, trainer.config.shots, seed, progress)
        observer.settings(settings, _final(RunFolder(folder), trainer.best))
    finally:
        observer.close()
    for remark in trainer.remarks:
        print(remark)
    return {
        "folder": str(folder),
        "steps": trainer.step,
        "parameters": parameter_count(net),
        "validation/cautious": trainer.best if math.isfinite(trainer.best) else None,
        "remarks": trainer.remarks,
        "seconds": time.perf_counter() - began,
        "words": train_tasks.medium.words.record(),
        **samples.record(),
    }


def require_room(tasks: TaskDistribution | None, shots: Sequence[int], queries: int) -> None:
    """Raise ValueError, with settings that fit, where a class has fewer images than an episode needs."""
    size = int(min(getattr(tasks, "class_size", [queries + max(shots)])))  # others draw images without end
    if tasks is not None and queries + max(shots) > size:
        fitting = sorted({0, *(count for count in shots if count < size), size - 1})
        raise ValueError(
            f"An episode of {max(shots)} supports and {queries} {'query' if queries == 1 else 'queries'} needs "
            f"{max(shots) + queries} images, and the smallest class of {tasks.name}, {tasks.split}, has {size}. "
            f"Type training.shots='{fitting}' training.queries=1, or leave small classes out."
        )


def _validation_tasks(task: dict[str, Any]) -> TaskDistribution:
    try:
        return build_task(task, "validation")
    except DataError as error:
        raise DataError(f"{error} To train without validation classes, give validate=False.") from error


class Signals:
    """Within this, signals end a training after its current step. came: the numbers of those that came.

    Batch systems say by SIGTERM, SIGUSR1 or SIGUSR2 that a job's time is up. What is ignored stays ignored: a shell has
    what it starts in the background ignore Ctrl-C.
    """

    def __init__(self, trainer: MetaTrainer) -> None:
        self.trainer, self.came = trainer, list[int]()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            heard = [each for each in (*ENDING, signal.SIGINT) if signal.getsignal(each) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._stop) for number in heard}
        except ValueError:  # not the main thread, which alone may handle signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> None:
        self.came.append(number)
        if self.trainer.stopping and number == signal.SIGINT:  # a second Ctrl-C does not wait for the step to end
            raise KeyboardInterrupt
        self.trainer.stopping = True

    def require_ended(self, then: str) -> None:
        """Raise TrainingStopped where a signal ended the training before its last step, here or in another process.

        Called when the state is saved. Who handled the signal before, submitit for example, is called first.
        """
        trainer = self.trainer
        if not trainer.stopping or trainer.step >= trainer.config.steps:
            return
        name = signal.Signals(self.came[0]).name if self.came else "a signal to another process"
        for number in dict.fromkeys(self.came):
            handler = self._before[number]
            if callable(handler) and not getattr(handler, "__module__", "").startswith(("experiments.", "_signal")):
                handler(number, None)
        raise TrainingStopped(f"Stopped by {name} at step {trainer.step}; {then}", self.came[0] if self.came else None)


def _samples(
    folder: RunFolder,
    observer: FolderObserver,
    tasks: TaskDistribution,
    shots: tuple[int, ...],
    seed: int,
    progress: bool,
) -> Written:
    """Samples of the best model beside supports of validation classes, as files and in TensorBoard."""
    episode = tasks.episode(0, tasks=6, shots=min(4, max(shots)), queries=1)
    model = folder.model()
    drawn = draw_samples(model, episode, samples=6, seed=seed, doing="drawing samples", progress=progress)
    step, shown = model.provenance["step"], (tasks.medium, events_of(episode, [drawn]), titles_of(episode, tasks))
    add_to_tensorboard(observer.writer, "support beside samples", *shown, step)
    attended = attention_picture(model, episode, tasks.ink)
    if attended is not None:
        observer.writer.add_image("attention of the query over its supports", attended, step, dataformats="HWC")
        save_picture(attended, folder.path / "samples" / "attention.png")
    return write(folder.path / "samples", "validation", *shown)


def _final(folder: RunFolder, best: float) -> dict[str, float]:
    """The last value of every number, and the best validation, under names that no curve has."""
    last: dict[str, float] = {}
    for record in folder.metrics():
        last |= {f"final/{name}": value for name, value in record.items() if name != "step" and value is not None}
    return last if math.isinf(best) else {**last, "final/best": best}


if __name__ == "__main__":
    main(experiment)

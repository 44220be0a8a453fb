"""Meta-training: the outer loop over episodes."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from metadensity.checks import require_levels
from metadensity.episode import Episode, EpisodeSource, windows
from metadensity.evaluation.intervals import clustered_mean
from metadensity.evaluation.leaks import SupportLeakError, guard_support
from metadensity.evaluation.likelihood import autocast, evaluate, evaluating
from metadensity.evaluation.support_use import cost_of_supports, supports_cost
from metadensity.files import DamagedFileError, read_tensors, write_tensors
from metadensity.model import FewShotModel
from metadensity.nn.dropout import Dropout, dropping
from metadensity.processes import Processes, current
from metadensity.progress import progress_bar, with_progress
from metadensity.training.config import TrainingConfig
from metadensity.training.contrast import contrast_of, scored_against_rivals
from metadensity.training.cuda_graphs import GraphedUpdate
from metadensity.training.gradients import GradientRows
from metadensity.training.optimizers import build_optimizer, like_parameter, set_learning_rate
from metadensity.training.weight_average import moving_average, newest_share

_VALIDATED_AT_ONCE = 16  # tasks
_WATCHED = 8  # episodes
_OF_WINDOWS, _OF_PARTS = 1, 2  # tell the draws of windows, and of each part, from those of a whole loss
_log = logging.getLogger(__name__)


def _upper(nats: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """The upper end of the 95 % interval of the mean of ``nats``; the mean where there is none.

    Where sizes differ, only what is not in proportion to them is uncertain: the interval of a ratio, linearised.
    """
    mean, (_, upper) = clustered_mean(nats, np.arange(len(nats)))
    if np.ptp(sizes) > 0 and math.isfinite(mean):
        _, (_, beyond) = clustered_mean(nats - sizes * (mean / sizes.mean()), np.arange(len(nats)))
        upper = mean + beyond
    return upper if math.isfinite(upper) else mean


class TrainingDivergedError(RuntimeError):
    """The loss or a gradient stopped being a number."""


class Observer(Protocol):
    """Where a run's numbers and states go; the experiments write run folders with it."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Plain floats after ``step`` updates; infinite where a validation image has probability 0."""

    def checkpoint(self, trainer: MetaTrainer, best: bool) -> None:
        """Keep the trainer's state; ``best`` if it validates better than all before, or nothing is validated."""

    def last_checkpoint(self, before: int) -> Path | None:
        """The newest state kept of a step below ``before``, for error messages."""


class MetaTrainer:
    """Trains ``model`` on episodes of ``train``; validates on ``validation``, whose classes are held out of training.

    The episode of step i is ``train.episode(i, ...)``, a pure function, so all the state there is are parameters,
    their average, the optimiser's moments, the step and the best validation: ``state`` and ``load_state``.
    What is minimised is ``model.loss``, and the contrast where the configuration has one. A loss that draws gets a
    generator seeded by (seed, step); with graphs=True, which record no generator of ours, it draws from torch's own.

    Made within ``metadensity.processes.joined``, it is one of several equal ones that share the parts of each step and
    the batches of validation, and all have the same state after it; one part alone is done by each of them. The first
    may have an observer, the others need none. ``stopping`` set in any ends all after the same step.
    """

    def __init__(
        self, model: FewShotModel, train: EpisodeSource, validation: EpisodeSource | None, config: TrainingConfig
    ) -> None:
        self.processes = current() if config.parts > 1 else Processes()  # one part is done by all, which agree
        if config.parts % self.processes.size:
            raise ValueError(
                f"parts={config.parts} for {self.processes.size} processes; give a multiple of how many there are. The "
                "weights depend on it, and not on the number of processes."
            )
        for source in (train, *(() if validation is None else (validation,))):
            if (tuple(source.event_shape), source.levels) != (model.event_shape, model.levels):
                raise ValueError(
                    f"The model is of images {model.event_shape} with {model.levels} levels, and these episodes have "
                    f"{tuple(source.event_shape)} with {source.levels}. Build it with event_shape=train.event_shape "
                    "and levels=train.levels."
                )
        parameters = list(model.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            raise ValueError("No parameter of the model takes gradients. Type model.requires_grad_(True) first.")
        if config.graphs and any(part.steps for part in model.modules() if isinstance(part, Dropout)):
            raise ValueError("graphs=True with dropout, whose draws are not recorded. Give dropout=0 or graphs=False.")
        self.config, self.train, self.validation = config, train, validation
        self.device = torch.device(config.device)
        self.model = model.to(self.device)
        if config.channels_last and len(model.event_shape) == 3:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.initialise(train, config.tasks, config.queries)
        if config.window and (len(model.event_shape) != 2 or config.window > model.event_shape[-1]):
            raise ValueError(
                f"window={config.window} with events {model.event_shape}; windows are cut from sequences (channels, "
                "places), and have at most as many places. Give 0 to train on whole ones."
            )
        ends = [end for each in (model, train) if (end := getattr(each, "end", None)) is not None]
        if config.window and ends:
            raise ValueError(
                f"window={config.window} for strings that end (end={ends[0]}): a window would begin in the middle of "
                "one, or after its end. Give 0 to train on whole ones."
            )
        self._require_rivals()
        self._trained = self.model.resized(config.window) if config.window else self.model  # of the same parameters
        self.average = AveragedModel(self.model, multi_avg_fn=moving_average(config.average), use_buffers=False)
        self.optimizer = build_optimizer(self.model, config, self.device)
        self._ema_weight = torch.zeros((), device=self.device)  # of the weights in their average, for graphs
        self._graphed = self._fresh_graphs()
        self.step = 0
        self.best = math.inf
        self.losses: list[float] = []  # since the last line of metrics
        self.contrasts: list[float] = []  # the same, of steps that had one
        self._watched = 0  # episodes that were looked at for queries in their own support
        self.stopping = False  # set by a signal handler: end after the current step
        self._all_stop = False  # what the processes agreed on, so that none waits for one that left
        self._rows = GradientRows(self.model.parameters())
        self.remarks: list[str] = []  # what the last validation found that a reader of its numbers should know
        self._progress = False  # whether bars are shown

    @property
    def averaged_model(self) -> FewShotModel:
        """The model with averaged weights: what is validated, saved and reported."""
        return cast(FewShotModel, self.average.module) if self.config.average else self.model

    def run(self, observer: Observer | None = None, progress: bool | str = False) -> FewShotModel:
        """Train to the last step, or until ``stopping`` is set, and return the averaged model.

        progress: show a bar, called so if it is a word; and print what validation found where it is more than a number.
        Raises TrainingDivergedError as soon as the loss is not a number, with the step and the last good checkpoint.
        """
        config = self.config
        doing, self._progress = progress if isinstance(progress, str) else "meta-training", bool(progress)
        bar = progress_bar(doing, config.steps, "steps", self._progress, self.step)
        began, worked, images = time.perf_counter(), time.process_time(), 0
        while self.step < config.steps and not self._stops:
            loss, norm = self.update(observer)
            self.losses.append(loss)
            images += config.tasks * config.queries
            bar.update()
            if self.step % config.log_every == 0 or self.step == config.steps:
                seconds = time.perf_counter() - began
                values = {
                    "train/nats_per_dim": sum(self.losses) / len(self.losses),
                    "train/gradient_norm": norm,
                    "train/learning_rate": config.learning_rate_at(self.step - 1),
                    "train/images_per_second": images / seconds,
                    "train/cpu_seconds": time.process_time() - worked,  # of all threads, since the last line
                }
                if self.contrasts:
                    values["train/contrast"] = sum(self.contrasts) / len(self.contrasts)
                bar.set_postfix({"nats/dim": f"{values['train/nats_per_dim']:.4f}"})
                self.losses, self.contrasts, images, began, worked = [], [], 0, time.perf_counter(), time.process_time()
                if observer is not None:
                    observer.metrics(self.step, values)
            if self._due(config.validate_every):
                self._validate(observer)
                if progress:
                    for remark in self.remarks:
                        bar.write(f"Step {self.step}: {remark}", file=sys.stderr)
                began, worked = time.perf_counter(), time.process_time()
            if self._due(config.checkpoint_every) and observer is not None:
                observer.checkpoint(self, best=False)
        bar.close()
        return self.averaged_model

    @property
    def _stops(self) -> bool:
        return self.stopping if self.processes.size == 1 else self._all_stop

    def shots_of(self, step: int) -> int:
        """Number of supports of the episode of ``step``: drawn from the set, a pure function of (seed, step)."""
        generator = np.random.Generator(np.random.Philox(key=self.config.seed, counter=step))
        return self.config.shots[int(generator.integers(len(self.config.shots)))]

    def validate(self) -> dict[str, float]:
        """Mean nats/dim of the averaged model on the same validation episodes each time, for every number of shots.

        "validation/cautious" selects the best: the upper end of the 95 % interval, averaged over the numbers of
        shots; of sequences with lengths, of nats by places. It takes images as independent, since with few validation
        classes a clustered interval would be so wide as to hide the mean; it serves to order checkpoints on the same
        images, not to be reported.
        An image of probability 0 makes its number infinite, and ``remarks`` says how many there are, as it says where
        supports make the model worse than none.
        """
        assert self.validation is not None
        config = self.config
        shots = sorted({*config.shots, 0} if config.withheld else {*config.shots})
        size = min(_VALIDATED_AT_ONCE, config.validation_tasks)  # not config.tasks: recipes are compared by this
        batches = -(-config.validation_tasks // size)
        episodes = [self.validation.episode(i, size, shots[-1], config.queries) for i in range(batches)]
        nested = [episode.with_shots(s) for s in shots for episode in episodes]
        stream = with_progress(nested, "validating", "batches", self._progress)
        result = evaluate(self.averaged_model, stream, precision=config.precision, duplicates="allow")
        self.remarks = [
            f"{row.impossible} of {row.images} validation queries have probability 0 at {row.shots} shots, so "
            "the number is infinite."
            for row in result.rows
            if row.impossible
        ]
        if costs := cost_of_supports(result.scores):
            self.remarks.append(f"Validation: {supports_cost(costs, 'nats')}.")
        values = {f"validation/nats_per_dim_{row.shots}_shots": row.nats_per_dim for row in result.rows}
        sizes = torch.cat([episode.query_sizes.T.flatten() for episode in episodes]).double().cpu().numpy()
        uppers = [_upper(part.nats, sizes) for part in result.scores.values()]
        upper = sum(uppers) / len(uppers) / float(sizes.mean())
        mean = sum(row.nats_per_dim for row in result.rows) / len(result.rows)
        if config.contrast:
            values |= self._validation_contrast(shots)
        return {"validation/nats_per_dim": mean, "validation/cautious": upper, **values}

    def _validation_contrast(self, shots: Sequence[int]) -> dict[str, float]:
        """The contrast of the averaged model at each number of supports, in nats a query, and its mean over these.

        Whole blocks of rivals at a time. Empty where no two tasks are of different classes.
        """
        config, found = self.config, {}
        ways = 1 + config.rivals
        assert self.validation is not None
        episodes = [
            self._episode(self.validation, i, ways, max(shots), config.queries).to(self.device)
            for i in range(-(-config.validation_tasks // ways))
        ]
        with torch.no_grad(), evaluating(self.averaged_model), autocast(self.device, config.precision):
            for number in filter(None, shots):
                parts = [
                    scored_against_rivals(self.averaged_model, episode.with_shots(number), config.rivals)
                    for episode in episodes
                ]
                contrasts = [float(contrast_of(*part, config.contrast_temperature)) for part in parts if part[2].any()]
                if contrasts:
                    found[f"validation/contrast_{number}_shots"] = sum(contrasts) / len(contrasts)
        return {"validation/contrast": sum(found.values()) / len(found), **found} if found else {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to go on exactly here: tensors, and a JSON header."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():
                tensors[f"optimizer/{names[id(parameter)]}/{key}"] = torch.as_tensor(value)
        best = None if math.isinf(self.best) else self.best
        contrasts = {"contrasts": self.contrasts} if self.config.contrast else {}
        return tensors, {"step": self.step, "best": best, "losses": self.losses, **contrasts}

    def load_state(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Go on from a state of ``state``. The configuration must be the one it was made with."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        self.model.load_state_dict(groups["model"])
        self.average.load_state_dict(groups["average"])
        for name, parameter in self.model.named_parameters():
            moments = {
                key.rpartition("/")[2]: like_parameter(value, parameter)
                for key, value in groups["optimizer"].items()
                if key.rpartition("/")[0] == name
            }
            if moments:
                self.optimizer.state[parameter] = moments
        self._graphed = self._fresh_graphs()  # recorded ones would go on with the moments there were
        self.step = int(header["step"])
        self.best = math.inf if header["best"] is None else float(header["best"])
        self.losses, self.contrasts = list(header["losses"]), list(header.get("contrasts", []))

    def save_state(self, path: str | Path, header: dict[str, Any] | None = None) -> str:
        """Write the state to a file, atomically. Returns its content hash."""
        tensors, own = self.state()
        return write_tensors(path, tensors, {**(header or {}), **own, "training": asdict(self.config)})

    def resume(self, path: str | Path) -> None:
        """Go on from a file of ``save_state``.

        Raises as ``metadensity.files.read_tensors`` does, DamagedFileError where the file is no such state, ValueError
        where it belongs to another model or optimiser.
        """
        tensors, header = read_tensors(path)
        if not {"training", "step", "best", "losses"} <= header.keys():
            raise DamagedFileError(f"{path} is no state of a training run. Resume from a file that save_state wrote.")
        made = header["training"]["optimizer"]
        if made != self.config.optimizer:
            raise ValueError(f"This run has optimizer={self.config.optimizer!r}, but {path} was made with {made!r}.")
        own = {f"model/{name}": tensor.shape for name, tensor in self.model.state_dict().items()}
        theirs = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("model/")}
        if own != theirs:
            odd = min(name for name, _ in own.items() ^ theirs.items())
            raise ValueError(
                f"{path} is the state of another model: of {odd.removeprefix('model/')} this run has "
                f"{tuple(own.get(odd, ())) or 'none'}, the file {tuple(theirs.get(odd, ())) or 'none'}. Build the "
                "model with the arguments it was trained with."
            )
        self.load_state(tensors, header)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def update(self, observer: Observer | None = None) -> tuple[float, float]:
        """One step on the episode of ``step``. Returns its loss in nats/dim and the gradient's norm before clipping.

        observer: asked for the last good checkpoint where the loss is not a number. Raises as ``run`` does.
        """
        config = self.config
        episode = self._episode(self.train, self.step, config.tasks, self.shots_of(self.step), config.queries)
        self._watch_for_leaks(episode)
        if config.window:
            episode = windows(episode, config.window, self._generator(torch.device("cpu"), _OF_WINDOWS))
        for group in self.optimizer.param_groups:
            set_learning_rate(group, config.learning_rate_at(self.step))
        if self._graphed is None:
            value, gradient, *contrast = self._gradients(episode.to(self.device)).tolist()
            self._require_finite(value, gradient, observer)
            self.contrasts += contrast
            self.optimizer.step()
            if config.average:
                self.average.update_parameters(self.model)
        else:
            if episode.support_lengths is not None or episode.query_lengths is not None:
                raise ValueError(
                    "graphs=True with sequences that have lengths, which are not recorded. Leave it False."
                )
            self.model.check_support(episode.support)  # a recorded step looks at no pixel
            require_levels("query", episode.query, self.model.levels)
            count = int(self.average.n_averaged)
            self._ema_weight.fill_(newest_share(config.average, count) if count else 1.0)
            value, gradient = self._graphed(episode).tolist()
            self._require_finite(value, gradient, observer)  # the weights are lost by now; what was kept is not
            self.average.n_averaged += 1
        self.step += 1
        return value, gradient

    def _watch_for_leaks(self, episode: Episode) -> None:
        """Say once, of the first episodes, that queries are in their own support: it would be learned to copy them."""
        if self._watched == _WATCHED:
            return
        self._watched += 1
        try:
            guard_support(episode)
        except SupportLeakError as problem:
            self._watched = _WATCHED
            _log.warning("Step %d of the training: %s", self.step, problem)

    def _gradients(self, episode: Episode) -> Tensor:
        """Set the gradients, clipped. Returns the loss, the norm they had, and the contrast if there is one."""
        self._trained.train()
        loss = self._backward(episode) if self.config.parts == 1 else self._backward_in_parts(episode)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
        return torch.stack([loss[0], norm, *loss[1:]])

    def _backward(self, episode: Episode, part: int | None = None) -> Tensor:
        """Set the gradients to those of one part's summand of the loss; returns it, and the contrast if there is one.

        part: None: the whole.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss, *contrast = self.losses_of(episode, part)
            minimised = loss + self.config.contrast * contrast[0] if contrast else loss
        minimised.backward()
        return torch.stack([each.detach() for each in (loss, *contrast)])

    def _backward_in_parts(self, episode: Episode) -> Tensor:
        """The same of the whole loss, by the sum over parts, of which each process computes its own."""
        each = self.config.parts // self.processes.size
        own = []
        for part in range(self.processes.rank * each, (self.processes.rank + 1) * each):
            loss = self._backward(episode, part)
            own.append(self._rows.row(loss[0], torch.tensor(float(self.stopping))))
        total, stops = self._rows.set_sum(self.processes.rows(torch.stack(own)))
        if stops:
            self.stopping = self._all_stop = True
        return torch.tensor([total], device=self.device)

    def _fresh_graphs(self) -> GraphedUpdate | None:
        return GraphedUpdate(self._graph_step, self.device) if self.config.graphs else None

    def _graph_step(self, episode: Episode) -> Tensor:
        """A whole update for a graph: ``_share`` and the learning rate are tensors that are set before each replay."""
        result = self._gradients(episode)
        self.optimizer.step()
        if self.config.average:
            nets = self.averaged_model, self.model
            averaged, current = ([parameter.detach() for parameter in net.parameters()] for net in nets)
            torch._foreach_mul_(averaged, 1 - self._ema_weight)
            torch._foreach_add_(averaged, list(torch._foreach_mul(current, self._ema_weight)))
        return result

    def _require_finite(self, loss: float, norm: float, observer: Observer | None) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            # The state of this very step gave the loss that is none; all before it gave finite ones.
            kept = observer.last_checkpoint(before=self.step) if observer is not None else None
            raise TrainingDivergedError(
                f"Step {self.step}: the loss is {loss} nats/dim and the gradient norm {norm}. "
                f"The last good checkpoint is {kept or 'none, as none was kept yet at an earlier step'}. Lower "
                f"learning_rate (now {self.config.learning_rate:g}), lengthen warmup, or use precision='float32'."
            )

    def loss(self, episode: Episode, part: int | None = None) -> Tensor:
        """The mean of the model's own loss over the queries, in nats/dim of real places, without the contrast.

        part: the summand of one of ``parts`` slices of the tasks, by its number; None: the whole mean.
        """
        return self.losses_of(episode, part)[0]

    def losses_of(self, episode: Episode, part: int | None = None) -> tuple[Tensor, ...]:
        """``loss`` and, where the configuration and the episode have one, the contrast in nats a query."""
        config, tasks, parts = self.config, episode.tasks, self.config.parts
        withheld = min(round(config.withheld * tasks), tasks - 1) if episode.shots else 0
        first, last = (0, tasks) if part is None else (part * tasks // parts, (part + 1) * tasks // parts)
        generator = (
            None if self._graphed else self._generator(self.device, *(() if part is None else (_OF_PARTS, part)))
        )
        slices = (slice(max(first, withheld), last), False), (slice(first, min(last, withheld)), True)
        sums, contrast = list[Tensor](), tuple[Tensor, ...]()
        for tasks_of, alone in slices:
            piece = episode.take_tasks(tasks_of)
            if config.contrast and episode.shots and not alone:
                with dropping(self._trained, generator):
                    scores = scored_against_rivals(self._trained, piece, config.rivals, withheld)
                if scores[2].any():
                    contrast = (contrast_of(*scores, config.contrast_temperature),)
                own_loss = type(self._trained).loss is not FewShotModel.loss
                sums.append(self._summed(piece, generator) if own_loss else -scores[0].sum())
            elif piece.tasks:
                sums.append(self._summed(piece.with_shots(0) if alone else piece, generator))
        return sum(sums[1:], sums[0]) / int(episode.query_sizes.sum()), *contrast

    def _episode(self, source: EpisodeSource, index: int, tasks: int, shots: int, queries: int) -> Episode:
        """An episode of ``source``, the tasks of each block of one group where the rivals are to be of it."""
        config = self.config
        if config.contrast and config.rivals_within_group:
            return cast(Any, source).grouped_episode(index, tasks, shots, queries, 1 + config.rivals)
        return source.episode(index, tasks, shots, queries)

    def _require_rivals(self) -> None:
        """Raise ValueError where no query of a source could have a rival, or none of its group."""
        config = self.config
        if not config.contrast:
            return
        for source in filter(None, (self.train, self.validation)):
            where = f"{type(source).__name__}, split {getattr(source, 'split', 'unnamed')},"
            if getattr(source, "classes", None) == 1:
                raise ValueError(
                    f"contrast={config.contrast}, but {where} has 1 class, and a rival is of another. Give contrast=0."
                )
            if not config.rivals_within_group:
                continue
            if not hasattr(source, "grouped_episode"):
                raise ValueError(
                    f"rivals_within_group=True, but {where} cannot draw the classes of one group. Give False, or a "
                    "source that has grouped_episode, such as tasks.ImageTasks."
                )
            source.grouped_episode(0, 1 + config.rivals, max(config.shots), config.queries, 1 + config.rivals)

    def _summed(self, part: Episode, generator: torch.Generator | None) -> Tensor:
        lengths = {"support_lengths": part.support_lengths, "query_lengths": part.query_lengths}
        given = {name: tensor for name, tensor in lengths.items() if tensor is not None}
        return self._trained.loss(part.support, part.query, generator, **given).sum()

    def _generator(self, device: torch.device, *of: int) -> torch.Generator:
        """What a loss of this step draws from: a pure function of (seed, step), so a resumed run agrees.

        of: numbers that tell other draws of the step from those.
        """
        seed = np.random.SeedSequence([self.config.seed, self.step, *of]).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))

    def _validate(self, observer: Observer | None) -> None:
        """Validate, and keep the model if it is the best; without validation episodes keep the newest."""
        if self.validation is None:
            if observer is not None:
                observer.checkpoint(self, best=True)
            return
        values = self.validate()
        score = values["validation/cautious"] + self.config.contrast * values.get("validation/contrast", 0.0)
        best = score < self.best or math.isinf(self.best)  # of infinite ones the newest
        self.best = min(self.best, score)
        if observer is not None:
            observer.metrics(self.step, values)
            if best:
                observer.checkpoint(self, best=True)

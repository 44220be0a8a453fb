"""What a meta-training run is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from metadensity.checks import is_whole, require_sizes


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the outer loop.

    steps: number of updates. tasks, queries: tasks and queries of each in one batch.
    parts: fixed slices of the tasks of a step. Each has a backward pass of its own, and their gradients are added in
        order, so that several processes, each with some of the parts, come to the same bits as one with all of them
        (``metadensity.processes``).
    shots: numbers of supports; one is drawn for each step.
    withheld: part of the tasks of each batch whose supports are withheld, so that every step also learns the
        prior, p(x) with no support; 0 leaves that to the steps at zero shots, if ``shots`` has them.
    optimizer: "adamw", "rmsprop" or "muon" (AdamW but for weight matrices, see ``metadensity.training.muon``).
    learning_rate: the peak, after ``warmup`` steps; then ``decay`` ("cosine" or "linear" to 0, or "none").
    weight_decay: decoupled, but part of the gradient in RMSProp.
    clip: largest gradient norm (0: off).
    average: decay of the moving average of the weights that is validated and saved (0: off).
    window: of sequences, places of the windows that are trained on, cut anew for each step from queries and supports;
        0: whole sequences. Validation scores whole ones. Not for models whose weights depend on the number of places,
        nor for those of strings that end.
    contrast: weight of the contrast, 0 for none: to the likelihood, in nats/dim, is added so much of the cross-entropy,
        in nats a query, of the posterior over a query's own task and its ``rivals``, other tasks of the batch, of
        another class where classes are known. For recognition; see ``metadensity.training.contrast``. Steps without
        supports have none. Best is then what validates best in the same sum.
    rivals: of each query; the tasks of a batch are taken in blocks of one more, which score each other's queries, so a
        step costs up to 1 + rivals times as much.
    rivals_within_group: whether the tasks of a block are different classes of one group, words of one speaker or
        characters of an alphabet; of sources that can draw them so.
    contrast_temperature: log-probabilities are divided by it, in nats, before they make a posterior.
    precision: "float32" or "bfloat16" (autocast; parameters stay float32), which is the faster on processors and GPUs
        that multiply it in hardware. channels_last: memory format of images.
    device: "cpu", or a GPU of torch such as "cuda". graphs: on a CUDA device, record the update of each number of
        supports once and replay it, which spares the launch of thousands of small operations a step.
    log_every, validate_every, checkpoint_every: in steps. validation_tasks: tasks scored at each number of shots.
    seed: of the initial weights, the order of the shots, the windows, and nothing else: episodes belong to their task.
    """

    steps: int = 4000
    tasks: int = 16
    queries: int = 2
    parts: int = 1
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    withheld: float = 0.0
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    decay: str = "cosine"
    clip: float = 1.0
    average: float = 0.999
    window: int = 0
    contrast: float = 0.0
    rivals: int = 3
    rivals_within_group: bool = False
    contrast_temperature: float = 1.0
    precision: str = "float32"
    channels_last: bool = True
    device: str = "cpu"
    graphs: bool = False
    log_every: int = 20
    validate_every: int = 500
    validation_tasks: int = 128
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        _choice("optimizer", self.optimizer, ("adamw", "rmsprop", "muon"))
        _choice("decay", self.decay, ("cosine", "linear", "none"))
        _choice("precision", self.precision, ("float32", "bfloat16"))
        if self.graphs and not self.device.startswith("cuda"):
            raise ValueError(f"graphs=True with device={self.device!r}; only CUDA devices record them. Leave it False.")
        if self.graphs and self.optimizer == "muon":
            raise ValueError("graphs=True with optimizer='muon', which is not recorded. Leave graphs False.")
        counts = (
            "steps",
            "tasks",
            "queries",
            "parts",
            "log_every",
            "validate_every",
            "validation_tasks",
            "checkpoint_every",
        )
        require_sizes(**{name: getattr(self, name) for name in counts})
        if self.parts > self.tasks:
            raise ValueError(f"parts={self.parts} with tasks={self.tasks}; a part has at least one task.")
        if self.graphs and self.parts > 1:
            raise ValueError(f"graphs=True with parts={self.parts}, which are not recorded. Leave graphs False.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}; it must be a positive number.")
        if not is_whole(self.window) or self.window < 0:
            raise ValueError(f"window={self.window!r}; give a number of places, or 0 to train on whole sequences.")
        if self.graphs and self.window:
            raise ValueError("graphs=True with windows, which are not recorded. Leave it False.")
        for name in ("weight_decay", "warmup", "clip", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}; it must be 0 or more.")
        shots: Any = tuple(self.shots) if isinstance(self.shots, Iterable) else ()
        if not shots or not all(isinstance(number, Integral) for number in shots) or min(shots) < 0:
            raise ValueError(
                f"shots={self.shots!r}; name at least one number of supports, each 0 or more, such as (1,) or (0, 4)."
            )
        if not 0 <= self.withheld < 1:
            raise ValueError(f"withheld={self.withheld}; the part of tasks without supports must lie in [0, 1).")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average}; the decay of the weight average must lie in [0, 1).")
        self._check_contrast(shots)

    def _check_contrast(self, shots: tuple[int, ...]) -> None:
        if not 0 <= self.contrast < math.inf:
            raise ValueError(f"contrast={self.contrast}; its weight must be a number of 0 or more, 0 for none.")
        if not 0 < self.contrast_temperature < math.inf:
            raise ValueError(f"contrast_temperature={self.contrast_temperature}; it must be a positive number.")
        require_sizes(rivals=self.rivals)
        if not self.contrast:
            return
        if self.rivals >= self.tasks:
            raise ValueError(
                f"rivals={self.rivals} with tasks={self.tasks}; rivals are other tasks of the batch, so there are at "
                f"most {self.tasks - 1}. Give fewer, or tasks={self.rivals + 1} or more."
            )
        if not any(shots):
            raise ValueError(
                f"contrast={self.contrast} with shots={self.shots}: without supports all tasks have one density, and "
                "nothing tells them apart. Give a number of supports, or contrast=0."
            )
        if round(self.withheld * self.tasks) > self.tasks - 2:
            raise ValueError(
                f"withheld={self.withheld} of tasks={self.tasks} leaves no query a rival with supports. Withhold less, "
                "or give contrast=0."
            )
        if self.graphs:
            raise ValueError("graphs=True with contrast, which is not recorded. Leave it False.")
        if self.parts > 1:
            raise ValueError(
                f"contrast={self.contrast} with parts={self.parts}; rivals are of the whole batch. Give parts=1."
            )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the update after ``step`` finished ones: a pure function, so a resumed run agrees."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.decay == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * (1 - progress if self.decay == "linear" else 1)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; choose one of {', '.join(map(repr, allowed))}.")

"""Fine-tuning a trained model on the support at test time: the plain baseline for everything that learns to adapt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metadensity.adaptation.adapted_density import adapted_density
from metadensity.adaptation.functional import FunctionalPair, ParameterDict, adapting_names, map_tasks
from metadensity.adaptation.inner_loop import InnerLoop
from metadensity.adaptation.losses import conditioned, nats_per_dim, support_nll
from metadensity.checks import require_lengths, require_sizes
from metadensity.density import Density
from metadensity.model import FewShotModel

# Parameters through which our networks read their support: encoders, attention, and where they enter the layers.
CONDITIONING = r"^encoder\.|^patches\.|\.contexts\.|\.read\.|\.attention\."

# What is added to the vectors of the supports in f(s): as this alone is fitted, f(s) is a free vector.
EMBEDDING = r"^encoder\.null$"


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned on each task's support, with Adam on the NLL of each support image given the others.

    steps: the most there may be. learning_rate: of Adam.
    tuned_names: a regular expression over parameter names ("": all; ``CONDITIONING``: what reads the support;
        ``EMBEDDING``: f(s) itself).
    early_stopping: the number of steps of each task is the one with the best NLL of held-out support images, and then
        taken on all of its support. Of up to ``leave_one_out_up_to`` supports each is held out in turn; of more, the
        last quarter at once. A single support cannot tell when to stop: no step is taken. False: all ``steps``.
    patience: give up after so many steps in which no task got better on what is held out.
    way, chunk: how tasks are computed together, as in ``InnerLoop``.
    """

    steps: int = 50
    learning_rate: float = 1e-3
    tuned_names: str = ""
    early_stopping: bool = True
    leave_one_out_up_to: int = 4
    patience: int = 10
    way: str = "auto"
    chunk: int | None = None

    def __post_init__(self) -> None:
        require_sizes(steps=self.steps, leave_one_out_up_to=self.leave_one_out_up_to, patience=self.patience)
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate!r}; it must be a positive number.")
        self.loop()

    def loop(self) -> InnerLoop:
        """How tasks are computed together."""
        return InnerLoop(adapts=self.tuned_names, way=self.way, chunk=self.chunk)


def fine_tune(
    model: FewShotModel, support: Tensor, settings: FineTuning | None = None, lengths: Tensor | None = None
) -> Density:
    """The density of ``model`` given ``support``, after fine-tuning its parameters on it, each task on its own.

    support: ``(S, tasks, C, *space)``, integers in [0, levels). With no supports this is ``model(support)``.
    lengths: of sequences, ``(S, tasks)``: how many of the first places of each are real; others move nothing.
    The model itself stays as it is, and no gradients lead back to it. Tasks do not see one another: a task's result is
    the same in any batch (Adam works on each number by itself).

    Raises as ``model(support, lengths)`` does, and ValueError where ``settings.tuned_names`` matches no parameter.
    """
    settings = FineTuning() if settings is None else settings
    model.check_support(support)
    if lengths is not None:
        require_lengths("lengths", lengths, support.shape[:2], support.shape[-1])
    adapting_names(model, settings.tuned_names)
    if not support.numel():
        return conditioned(model, support, lengths)
    budget = best_steps(model, support, settings, lengths)
    return _tuned(model, support, settings, budget, lengths)


class FineTuned(FewShotModel):
    """A trained model that is fine-tuned on every support it is given: what ``evaluate`` and others take as a model.

    ``condition`` is ``fine_tune``. Not listed in MODELS: the weights are the model's own, and are saved with it.
    """

    def __init__(self, model: FewShotModel, settings: FineTuning | None = None) -> None:
        super().__init__(model.event_shape, model.levels)
        self.model = model
        self.settings = FineTuning() if settings is None else settings
        adapting_names(model, self.settings.tuned_names)

    def condition(self, support: Tensor) -> Density:
        """The density after fine-tuning on the support."""
        return fine_tune(self.model, support, self.settings)

    def condition_on_lengths(self, support: Tensor, lengths: Tensor) -> Density:
        """The same of sequences that have lengths."""
        return fine_tune(self.model, support, self.settings, lengths)


def best_steps(model: FewShotModel, support: Tensor, settings: FineTuning, lengths: Tensor | None = None) -> Tensor:
    """The number of steps for each task, ``(tasks,)`` int64, by what is held out of its support; see ``FineTuning``."""
    shots, tasks = support.shape[:2]
    if not settings.early_stopping:
        return torch.full((tasks,), settings.steps, device=support.device)
    if shots == 1:
        return torch.zeros(tasks, dtype=torch.long, device=support.device)
    if shots <= settings.leave_one_out_up_to:
        held = [slice(one, one + 1) for one in range(shots)]
    else:
        held = [slice(shots - max(1, shots // 4), shots)]
    # The folds of a task are trained as tasks of their own: (shots, folds * tasks, C, *space), tasks fastest.
    train, test = _folds(support, held)
    train_lengths, test_lengths = (None, None) if lengths is None else _folds(lengths, held)
    curve: list[Tensor] = []
    best = torch.full((tasks,), float("inf"), dtype=torch.float64, device=support.device)
    since = 0

    def on_step(own: ParameterDict) -> bool:
        nonlocal best, since
        with torch.no_grad():
            density = adapted_density(model, own, train, settings.loop(), train_lengths)
            nll = nats_per_dim(density, test, test_lengths).mean(0)
        curve.append(nll.unflatten(0, (len(held), tasks)).mean(0))
        since = 0 if bool((curve[-1] < best).any()) else since + 1
        best = torch.minimum(best, curve[-1])
        return since < settings.patience

    _descend(model, train, settings, on_step, settings.steps, train_lengths)
    return torch.stack(curve).argmin(0)


def _folds(of_supports: Tensor, held: list[slice]) -> tuple[Tensor, Tensor]:
    """What is not held out, and what is, of ``(S, tasks, ...)``, the folds side by side."""
    rest = [torch.cat([of_supports[: part.start], of_supports[part.stop :]]) for part in held]
    return torch.cat(rest, 1), torch.cat([of_supports[part] for part in held], 1)


def _tuned(
    model: FewShotModel, support: Tensor, settings: FineTuning, budget: Tensor, lengths: Tensor | None
) -> Density:
    """The density after ``budget`` steps of each task, ``(tasks,)``, on all of its support."""
    kept: ParameterDict = {}
    step = -1

    def on_step(own: ParameterDict) -> bool:
        nonlocal step
        step += 1
        for name, tensor in own.items():
            now = (budget >= step).view(-1, *[1] * (tensor.ndim - 1))
            kept[name] = torch.where(now, tensor.detach(), kept[name]) if step else tensor.detach().clone()
        return True

    _descend(model, support, settings, on_step, int(budget.max()), lengths)
    return adapted_density(model, kept, support, settings.loop(), lengths)


def _descend(
    model: FewShotModel,
    support: Tensor,
    settings: FineTuning,
    on_step: Callable[[ParameterDict], bool],
    steps: int,
    lengths: Tensor | None,
) -> None:
    """Adam on every task's own copy of the parameters; ``on_step`` sees them before each step and after the last.

    It ends early where ``on_step`` says False.
    """
    loop, bound = settings.loop(), FunctionalPair(model, support_nll)
    shared = {name: tensor.detach() for name, tensor in bound.tensors().items()}
    names = adapting_names(model, settings.tuned_names)
    tasks, vectorised = support.shape[1], loop.vectorised(model, len(support))
    own = {name: shared[f"model.{name}"].expand(tasks, *shared[f"model.{name}"].shape).clone() for name in names}
    gradients = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    optimizer = torch.optim.Adam([tensor.requires_grad_() for tensor in own.values()], lr=settings.learning_rate)
    for name, tensor in own.items():
        tensor.grad = gradients[name]

    def loss(own: ParameterDict, *given: Tensor) -> Tensor:  # a support, and its lengths where there are some
        mine = {f"model.{name}": tensor for name, tensor in own.items()}
        return bound.call({**shared, **mine}, *(part.unsqueeze(1) for part in given))

    for _ in range(steps):
        if not on_step(own):
            return
        for chunk in loop.chunks(tasks, vectorised):
            part = {name: tensor[chunk].detach().requires_grad_() for name, tensor in own.items()}
            with torch.enable_grad(), torch.autocast(support.device.type, enabled=False):
                given = (of[:, chunk].transpose(0, 1) for of in (support, lengths) if of is not None)
                total = map_tasks(loss, vectorised, part, *given).sum()
                found = torch.autograd.grad(total, list(part.values()), allow_unused=True)
            for name, gradient in zip(own, found, strict=True):
                gradients[name][chunk] = 0 if gradient is None else gradient
        optimizer.step()
    on_step(own)

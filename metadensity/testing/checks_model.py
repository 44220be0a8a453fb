"""What makes a few-shot model one: how its density depends on support, tasks and batch, and that it can be kept.

Every check takes a subject and raises AssertionError where the contract is broken.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from metadensity.adaptation.functional import FunctionalPair
from metadensity.coding import MOST_CONSTANT_BITS, decode, encode
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.density import Density, FactorisedDensity, SequentialDensity
from metadensity.drawing import Draws
from metadensity.persistence import load, save
from metadensity.testing.checks_density import agreement
from metadensity.testing.subjects import Subject, randomise

# Largest mean difference of log p in bfloat16 from float32, in nats/dim, and largest difference of one image.
# bfloat16 keeps 8 bits: each rounding is off by up to 0.4 %, and several layers follow one another.
BFLOAT16_MEAN, BFLOAT16_IMAGE = 0.01, 0.05


def close(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether two log-probabilities are the same but for rounding, to ``dtype`` (None: their own)."""
    return bool((a - b).abs().max() <= agreement(dtype or a.dtype) * max(1.0, float(a.abs().max())))


def order_does_not_matter(subject: Subject) -> None:
    """Every order of four supports gives the same density, but for the rounding of sums in float32.

    Not in float64: a model may take the logarithm of counts, which torch does in float32, and sums of that kind then
    differ with their order.
    """
    support, value = subject.images(4, 3, seed=11), subject.images(8, 3, seed=12)
    reference = subject(support).log_prob(value).detach()
    for order in ([3, 2, 1, 0], [1, 0, 2, 3], [2, 3, 0, 1]):
        other = subject(support[order]).log_prob(value).detach()
        assert close(reference, other, torch.float32), (
            f"supports in the order {order} move log p by {(reference - other).abs().max()}"
        )


def zero_shots_work(subject: Subject) -> None:
    """Without supports there is a density, the same for every task; with them a different one, if they are read."""
    value = subject.images(8, 1, seed=13).expand(8, 3, *subject.event_shape)
    prior = subject(subject.images(0, 3, seed=0))
    log_prob = prior.log_prob(value).detach()
    assert log_prob.shape == (8, 3)
    assert log_prob.isfinite().all(), "log p is not finite at zero shots"
    assert close(log_prob[:, :1], log_prob), "tasks without supports differ"
    assert prior.sample(generator=torch.Generator().manual_seed(0)).shape == (3, *subject.event_shape)
    informed = subject(subject.images(2, 3, seed=14)).log_prob(value).detach()
    assert informed.isfinite().all()
    changed = (informed - log_prob).abs().amax(0)
    if subject.reads_support:
        assert changed.min() > 1e-3, "supports leave the density as it was"
    else:
        assert close(informed, log_prob), "supports change a density that is said not to read them"


def tasks_are_separate(subject: Subject) -> None:
    """A task's log p does not depend on supports and values of others, nor on their being there; in both modes."""
    support, value = subject.images(2, 3, seed=15), subject.images(4, 3, seed=16)
    others_support, others_value = support.clone(), value.clone()
    others_support[:, 1], others_value[:, 1] = subject.images(2, seed=17), subject.images(4, seed=18)
    for training in (True, False):
        subject.model.train(training)
        together = subject(support).log_prob(value).detach()
        alone = [subject(support[:, [i]]).log_prob(value[:, [i]]).detach() for i in range(3)]
        assert close(together, torch.cat(alone, 1)), "a batch of tasks is not the tasks one by one"
        other = subject(others_support).log_prob(others_value).detach()
        assert close(together[:, [0, 2]], other[:, [0, 2]]), "one task's images move the log p of another task"
        single = [subject(support).log_prob(value[i]).detach() for i in range(4)]
        assert close(together, torch.stack(single)), "one query's images move the log p of another query"


def batches_have_shapes(subject: Subject) -> None:
    """log_prob of ``(*sample, tasks, C, *space)`` is ``(*sample, tasks)``, for any sample: the sum of terms, if any."""
    density = subject(subject.images(1, 2, seed=19))
    assert isinstance(density, torch.distributions.Distribution)
    assert tuple(density.batch_shape) == (2,)
    assert tuple(density.event_shape) == subject.event_shape
    value = subject.images(2, 3, 2, seed=20)
    log_prob = density.log_prob(value).detach()
    assert log_prob.shape == (2, 3, 2)
    assert (log_prob < 0).all(), "a discrete probability is above one"
    if isinstance(density, FactorisedDensity):
        terms = density.conditional_log_probs(value).detach()
        assert terms.shape == value.shape
        assert close(terms.flatten(3).sum(-1), log_prob), "the terms do not add up to log p"
    assert close(log_prob[0, 0], density.log_prob(value[0, 0]).detach())
    assert close(log_prob.flatten(0, 1), density.log_prob(value.flatten(0, 1)).detach())
    assert close(log_prob, density.log_prob(value.to(torch.uint8)).detach()), "the integer type of pixels matters"
    assert density.log_prob(value[:, :0]).shape == (2, 0, 2)


def answers(density: Density, subject: Subject) -> dict[str, Callable[[], Tensor]]:
    """All that is asked of a density, by name: what it scores, draws, completes, and looks at."""
    value = subject.images(3, density.tasks, seed=32)
    uniforms = torch.rand(value.shape, generator=torch.Generator().manual_seed(33))
    known = torch.where(uniforms.flip(0) < 0.3, value, -1)
    asked: dict[str, Callable[[], Tensor]] = {
        "log_prob": lambda: density.log_prob(value),
        "sample": lambda: density.sample((3,), torch.Generator().manual_seed(34)),
    }
    if isinstance(density, FactorisedDensity):
        asked["conditional_log_probs"] = lambda: density.conditional_log_probs(value)
    if isinstance(density, SequentialDensity):
        asked["completion"] = lambda: density.sample_from_uniforms(uniforms, known=known)
        if density.has_attention:
            asked["attention_weights"] = lambda: density.attention_weights(value)
    if isinstance(density, RasterDensity):  # which the naive sampler goes by
        asked["logits"] = lambda: density.logits(value)
    return asked


def its_parameters_are_those_it_was_made_with(subject: Subject) -> None:
    """What became of the model's parameters since does not matter, or the density says that they are lost.

    It agrees with a copy that holds the parameters: made within torch.func.functional_call and used after it, in value
    and in gradient; used while a functional call has put others in their place; and used after they were written over,
    unless it refuses then.
    """
    support, parameters = subject.images(2, 2, seed=35), dict(subject.model.named_parameters())
    other = Subject(copy.deepcopy(subject.model), subject.adapt)
    randomise(other.model, seed=36)
    others = {f"model.{name}": parameter.detach().clone() for name, parameter in other.model.named_parameters()}
    before, expected = subject(support), other(support)
    here = {name: ask().detach() for name, ask in answers(before, subject).items()}
    there = {name: ask().detach() for name, ask in answers(expected, subject).items()}
    assert not close(here["log_prob"], there["log_prob"]), "the parameters decide on nothing"

    called = FunctionalPair(subject.model, lambda model: subject.adapt(model, support))
    for name, ask in answers(called.call(others), subject).items():
        assert close(ask().detach(), there[name]), (
            f"{name}, made within a functional call, is not that of its parameters"
        )
    within = FunctionalPair(
        subject.model, lambda model: {name: ask() for name, ask in answers(before, subject).items()}
    )
    for name, found in within.call(others).items():
        assert close(found.detach(), here[name]), f"{name} is moved by another's functional call"

    value = subject.images(3, 2, seed=37)
    gradients = torch.func.grad(lambda given: called.call(given).log_prob(value).sum())(others)
    expected.log_prob(value).sum().backward()
    for name, parameter in other.model.named_parameters():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert close(gradients[f"model.{name}"], wanted), f"torch.func gives {name} another gradient than backward"

    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1)
    for name, ask in answers(before, subject).items():
        try:
            found = ask()
        except RuntimeError as error:
            if "Make a new one: density = model(support)" not in str(error):
                raise
        else:
            assert close(found.detach(), here[name]), f"{name} becomes a mix of old and new parameters"


def gradients_reach_parameters(subject: Subject) -> None:
    """Every parameter gets a gradient that is finite and not zero; at zero shots those that are used do."""
    parameters = dict(subject.model.named_parameters())
    for shots in (2, 0):
        subject.model.zero_grad()
        subject(subject.images(shots, 3, seed=21)).log_prob(subject.images(8, 3, seed=22)).sum().backward()
        given = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
        assert given, "no parameter has a gradient"
        bad = [name for name, gradient in given.items() if not gradient.isfinite().all()]
        assert not bad, f"gradients of {bad} are not finite at {shots} shots"
        if shots and subject.reads_support:
            idle = [name for name in parameters if name not in given or not given[name].any()]
            assert not idle, f"{idle} get no gradient"


def samplers_agree(subject: Subject) -> None:
    """Cached and naive sampler turn the same uniform numbers into the same pixels, and report each of them once."""
    for shots, samples, tasks in ((0, 1, 1), (1, 16, 1), (4, 4, 3)):
        density = subject(subject.images(shots, tasks, seed=23))
        assert isinstance(density, RasterDensity)
        generator = torch.Generator().manual_seed(24)
        uniforms = torch.rand(samples, tasks, *subject.event_shape, generator=generator)
        counts: list[list[int]] = [[], []]
        draws = [Draws(uniforms, report=count.append) for count in counts]
        slow, fast = density.drawn(draws[0], True), density.drawn(draws[1])
        assert [sum(count) for count in counts] == [uniforms.numel()] * 2, "the bars count what is not drawn"
        differ = (slow != fast).sum()
        assert differ == 0, f"{differ} of {slow.numel()} pixels differ ({shots} shots, {samples} x {tasks} images)"
        assert len(slow.unique()) > 1, "the samples are constant, which tests nothing"


def completions_agree(subject: Subject) -> None:
    """Given some pixels, and at a temperature, both samplers draw the same others, and keep those."""
    density = subject(subject.images(1, 2, seed=29))
    assert isinstance(density, RasterDensity)
    generator = torch.Generator().manual_seed(30)
    uniforms = torch.rand(8, 2, *subject.event_shape, generator=generator)
    given = torch.rand(uniforms.shape, generator=generator) < 0.3
    known = torch.where(given, subject.images(8, 2, seed=31), -1)
    slow = density.sample_from_uniforms(uniforms, naive=True, known=known, temperature=0.4)
    fast = density.sample_from_uniforms(uniforms, known=known, temperature=0.4)
    for drawn in (slow, fast):
        assert torch.equal(drawn[given], known[given]), "a pixel that is known comes out as another"
    assert torch.equal(slow, fast), f"{(slow != fast).sum()} of {slow.numel()} pixels differ"
    assert not torch.equal(fast, density.sample_from_uniforms(uniforms, known=known)), "the temperature does nothing"


def codes_are_as_long_as_log_prob(subject: Subject) -> None:
    """Images are coded and come back as they were; the code has as many bits as -log2 p, up to a known constant.

    Conditionals of up to 256 levels are rounded to 24 bits, which costs a pixel next to nothing.
    """
    for shots, samples in ((0, 2), (2, 400)):
        support = subject.images(shots, 2, seed=32)
        density = subject(support)
        if not isinstance(density, SequentialDensity):
            continue  # adapted task by task, a multiscale image has no order in which it can be drawn
        images = subject.images(samples, 2, seed=33)
        counted: list[int] = []
        code = encode(density, images, counted.append)
        assert sum(counted) == images.numel()
        again = subject(support)
        assert isinstance(again, SequentialDensity)
        assert torch.equal(decode(again, code, (samples,)), images)
        information = -float(density.log_prob(images).detach().double().sum()) / math.log(2)
        excess = 8 * len(code) - information
        assert 0 < excess < MOST_CONSTANT_BITS + 1e-4 * images.numel(), f"{excess:.1f} bits more than -log2 p"


def bfloat16_is_close(subject: Subject) -> None:
    """log p under bfloat16 autocast is float32 and lies near that of float64; sampling works there too.

    Under CPU autocast torch's own Categorical gives bfloat16 log-probabilities, of which sums lose whole nats.
    """
    support, value = subject.images(2, 8, seed=25), subject.images(8, 8, seed=26)
    exact = replace(subject, model=copy.deepcopy(subject.model).double())
    precise = exact(support).log_prob(value).detach()
    with torch.autocast("cpu", torch.bfloat16):
        density = subject(support)
        rough = density.log_prob(value).detach()
        draws = density.sample((2,), generator=torch.Generator().manual_seed(0))
    assert draws.shape == (2, 8, *subject.event_shape)
    assert rough.dtype == torch.float32, f"log p comes out as {rough.dtype}"
    off = (rough - precise).abs() / math.prod(subject.event_shape)
    assert off.mean() < BFLOAT16_MEAN, f"bfloat16 moves log p by {off.mean():.3g} nats/dim on average"
    assert off.max() < BFLOAT16_IMAGE, f"bfloat16 moves log p by up to {off.max():.3g} nats/dim"


def a_file_keeps_it(subject: Subject) -> None:
    """Saved and loaded, it is the same to the last bit: weights, log p, arguments, and where it came from."""
    model = subject.model.eval()
    support, value = subject.images(2, 2, seed=27), subject.images(4, 2, seed=28)
    takes = list(type(model).signature(model.config).parameters)
    assert list(model.config) == takes, f"config names {list(model.config)}, the constructor takes {takes}"
    assert json.loads(json.dumps(model.config)) == model.config
    provenance = {"run": 7, "task": "toy", "seed": [1, None]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        digest = save(model, path, provenance)
        loaded = load(path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.provenance == {**provenance, "weights_sha256": digest}
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = Subject(loaded, subject.adapt)
    assert torch.equal(subject(support).log_prob(value), again(support).log_prob(value)), "the loaded model differs"

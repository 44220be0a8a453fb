"""What makes a density one: it sums to one, it is causal, its samples follow it.

Every check takes a subject and raises AssertionError where the contract is broken.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from metadensity.densities.independent import IndependentDensity
from metadensity.densities.multiscale import MultiscaleDensity
from metadensity.densities.pixelcnn import RasterDensity
from metadensity.density import BoundDensity, Density, FactorisedDensity
from metadensity.model import FewShotModel
from metadensity.networks.aligned_bytenet import AlignedByteNetNetwork
from metadensity.networks.bytenet import ByteNetDecoder, MaskedBlocks, SymbolNetwork
from metadensity.networks.causal import CausalNetwork
from metadensity.networks.pixelcnn import PixelCNN
from metadensity.networks.pixelrnn import PixelRNN
from metadensity.nn.causal import CausalConv, GatedLayer
from metadensity.nn.recurrent import DiagonalLayer, RecurrentLayer
from metadensity.nn.residual import ResidualBlock, SequenceConv
from metadensity.testing.subjects import Subject, randomise

DRAWS = 20_000
# Of each chi-square test, if its seed were drawn anew. Seeds are fixed, so that a run is right or wrong for good; over
# the 60 or so tests of the suite a new set of seeds would raise a false alarm in 0.6 % of cases (Bonferroni's bound).
FALSE_ALARM = 1e-4


KNOWN_FIELDS = (PixelCNN, PixelRNN, ByteNetDecoder, AlignedByteNetNetwork)  # see ``field``


def agreement(dtype: torch.dtype) -> float:
    """How far two ways to the same number may lie apart: rounding differs with the place in a batch."""
    return 1e-10 if dtype == torch.float64 else 1e-5


def all_images(event_shape: tuple[int, ...], levels: int) -> Tensor:
    """Every image there is, ``(levels ** dims, *event_shape)``."""
    dims = math.prod(event_shape)
    codes = torch.arange(levels**dims).unsqueeze(-1)
    return (codes // levels ** torch.arange(dims) % levels).view(-1, *event_shape)


def table(density: Density) -> Tensor:
    """Log-probabilities of all images, ``(images, tasks)``."""
    images = all_images(tuple(density.event_shape), density.levels)
    return density.log_prob(images.unsqueeze(1).expand(-1, density.tasks, *images.shape[1:])).detach()


def raster(x: Tensor, dims: int) -> Tensor:
    """``(..., C, *space)`` as ``(..., sites)`` in the order in which sites are generated: channels fastest."""
    return x.movedim(-dims - 1, -1).flatten(-dims - 1)


def past(event_shape: tuple[int, ...], radius: float = math.inf, steps: Tensor | None = None) -> Tensor:
    """Whether site u is before site t and no more than ``radius`` away in any dimension, ``(u, t)``.

    steps: when each place is generated, ``(*space)``; None: in raster order. Of a place, channels follow one another;
    places of one step are not before one another.
    """
    channels, *space = event_shape
    sites = torch.tensor([[*place, c] for *place, c in itertools.product(*map(range, space), range(channels))])
    distance = (sites[:, None, :-1] - sites[None, :, :-1]).abs().amax(-1)
    step = (torch.arange(math.prod(space)) if steps is None else steps.flatten()).repeat_interleave(channels)
    order = torch.arange(len(sites))
    earlier = (step[:, None] < step) | ((distance == 0) & (order[:, None] < order))
    return earlier & (distance <= radius)


def radius(density: Density, model: FewShotModel) -> float:
    """How far back a pixel depends on others: the sum of the reaches of a network's layers; elsewhere any distance."""
    if isinstance(density, MultiscaleDensity):  # upscalers see as far at least in blocks of two, and as far within
        return min(_reach(density.base.network), *(network.reach for network, _ in density.upscalers), math.inf)
    if not isinstance(density, RasterDensity):
        return math.inf
    return next((_reach(part) for part in model.modules() if isinstance(part, PixelCNN)), math.inf)


def _reach(network: PixelCNN) -> int:
    """Along the dimension that is seen least far."""
    return min(map(sum, zip(*(layer.conv(0).reaches for layer in _layers(network)), strict=True)))


def _layers(network: PixelCNN) -> list[GatedLayer]:
    return [cast(GatedLayer, layer) for layer in network.layers]


def _give_slopes(_: Any, given: tuple[Tensor], one_hot: Tensor) -> Tensor:
    """A hook by which symbols, which have no gradient, get one: features ``(batch, places, features)`` move with them.

    ``given`` holds pixels ``(batch, C, *space)`` that are whole numbers, so nothing is added to the features.
    """
    pixels = given[0].flatten(2).mT
    moved = (pixels - pixels.detach()).repeat_interleave(one_hot.shape[-1] // pixels.shape[-1], -1)
    return one_hot + moved * torch.linspace(0.5, 1, moved.shape[-1], dtype=moved.dtype)


def network_of(model: FewShotModel) -> CausalNetwork | None:
    """The first autoregressive network in a model."""
    return next((part for part in model.modules() if isinstance(part, CausalNetwork)), None)


def promised(network: CausalNetwork) -> Tensor:
    """Whether site u is in the field of site t, ``(u, t)``: its place is, or it is an earlier channel of the same."""
    channels = network.event_shape[0]
    places = field(network)
    each = places.repeat_interleave(channels, 0).repeat_interleave(channels, 1)
    same = torch.eye(len(places)).repeat_interleave(channels, 0).repeat_interleave(channels, 1).bool()
    return each | (same & past(network.event_shape))


def field(network: CausalNetwork) -> Tensor:
    """Whether place u is in the receptive field of place t, ``(u, t)``, by the sizes of the kernels alone.

    Layer by layer, place by place: a stack sees what it saw at the taps of its kernel, and what the one before it sees.
    """
    if isinstance(network, ByteNetDecoder):
        return _field_of_blocks(network)
    if isinstance(network, AlignedByteNetNetwork):
        return _field_of_columns(network)
    if isinstance(network, PixelRNN):
        return _field_of_cells(network)
    assert isinstance(network, PixelCNN)
    space = network.event_shape[1:]
    places = list(itertools.product(*map(range, space)))
    number, stacks = {place: n for n, place in enumerate(places)}, [torch.eye(len(places))] * network.stacks
    for layer in _layers(network):
        new: list[Tensor] = []
        for k, seen in enumerate(stacks):
            size, dilations = layer.conv(k).weight.shape[2:], layer.conv(k).dilations
            taps = torch.zeros(len(places), len(places))
            last = size[k] - (not layer.conv(k).excludes_current)  # the tap that is no step back
            for tap in itertools.product(*map(range, size)):
                back = [0] * k + [tap[k] - last] + [tap[j] - size[j] // 2 for j in range(k + 1, len(space))]
                for t, place in enumerate(places):
                    moved = zip(place, dilations, back, strict=True)
                    u = number.get(tuple(here + step * steps for here, step, steps in moved))
                    if u is not None:
                        taps[u, t] = 1
            new.append(((seen @ taps + (new[-1] if k else 0)) > 0).float())
        stacks = new
    return stacks[-1] > 0


def _field_of_cells(network: PixelRNN) -> Tensor:
    """``field`` over rows and columns: what the convolution sees, then cell by cell what is said to come into it."""
    (rows, columns), width = network.space, network.event_shape[-1]
    reach = cast(CausalConv, network.first[-1]).reach
    seen = {
        (row, column): {
            (i, j)
            for i in range(max(0, row - reach), row + 1)
            for j in range(max(0, column - reach), min(width, column + reach + 1))
            if (i, j) < (row, column)
        }
        for row in range(rows)
        for column in range(columns)
    }
    for each in network.layers:
        layer = cast(RecurrentLayer, each)
        if isinstance(layer, DiagonalLayer):
            left = _after_cells(seen, (0, 0), [(0, -1), (-1, 0)], range(columns))
            right = _after_cells(seen, (0, 0), [(0, 1), (-1, 0)], range(columns - 1, -1, -1))
            made = {(i, j): left[i, j] | right.get((i - 1, j), set()) for i, j in seen}
        else:
            half = layer.state_taps // 2
            above = [(-1, step) for step in range(-half, half + 1)]
            made = _after_cells(seen, (1 - layer.input_taps, 0), above, range(columns))
        seen = {place: before | made[place] for place, before in seen.items()}
    pixels = [place for place in seen if place[1] < width]
    return torch.tensor([[source in seen[place] for place in pixels] for source in pixels])


def _after_cells(
    seen: dict[tuple[int, int], set[tuple[int, int]]],
    inputs: tuple[int, int],
    states: list[tuple[int, int]],
    columns: range,
) -> dict[tuple[int, int], set[tuple[int, int]]]:
    """What the state of each cell sees: inputs from the first to the last of two columns, and states at such steps."""
    found: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for i in range(len(seen) // len(columns)):
        for j in columns:
            given = [seen.get((i, j + step), set()) for step in range(inputs[0], inputs[1] + 1)]
            found[i, j] = set().union(*given, *(found.get((i + down, j + step), set()) for down, step in states))
    return found


def _field_of_blocks(network: ByteNetDecoder) -> Tensor:
    """``field`` along the raster: kernels look back by multiples of their dilation, blocks at their own place too."""
    symbols = torch.eye(math.prod(network.event_shape[1:]))
    return _after_blocks(network, symbols, torch.zeros_like(symbols)) > 0


def _field_of_columns(network: AlignedByteNetNetwork) -> Tensor:
    """``field`` where the source is the first half: of a target's place, what its decoder and the columns see."""
    half, places = network.split.half, math.prod(network.event_shape[1:])
    symbols = torch.eye(places)
    source = _after_blocks(network.source, symbols[:, :half], torch.zeros(places, half))
    columns = torch.eye(places, network.encoder.unfolded(half)) * (torch.arange(places) < half).unsqueeze(1)
    for block in network.encoder.layers:
        (conv,) = _convs(block)
        columns = _at_taps(columns, (-conv.dilation, 0, conv.dilation))
    columns = torch.nn.functional.pad(columns, [0, places - half - columns.shape[1]])
    return torch.cat([source, _after_blocks(network.target, symbols[:, half:], columns)], 1) > 0


def _after_blocks(blocks: MaskedBlocks, symbols: Tensor, columns: Tensor) -> Tensor:
    """What masked blocks see, ``(u, t)``, where what comes in at each place is of ``symbols``, and of ``columns``."""
    seen = columns + _at_taps(symbols, range(1, blocks.first.taps + 1))
    for block in blocks.layers:
        within = seen
        for conv in _convs(block):
            within = _at_taps(within, range(0, conv.taps * conv.dilation, conv.dilation))
        seen = ((seen + within) > 0).float()
    return seen


def _convs(block: torch.nn.Module) -> list[SequenceConv]:
    return [cast(SequenceConv, conv) for conv in cast(ResidualBlock, block).convs]


def _at_taps(seen: Tensor, steps_back: Iterable[int]) -> Tensor:
    place = torch.arange(seen.shape[1])
    taps = torch.isin(place - place.unsqueeze(1), torch.tensor(list(steps_back)))
    return ((seen @ taps.to(seen)) > 0).float()


def sums_to_one(subject: Subject) -> None:
    """Probabilities of all images sum to one, given 0 and 2 supports; tolerance 1e-4 on the logarithm."""
    for shots in (0, 2):
        total = table(subject(subject.images(shots, 2, seed=1))).logsumexp(0)
        assert total.abs().max() < 1e-4, f"given {shots} shots the log of the sum over all images is {total.tolist()}"


def is_causal(subject: Subject) -> None:
    """Changing a pixel leaves the terms of all pixels before it, and changes those of pixels after it.

    It is changed to every other level, of many to a few: to a model that counts, two levels may be alike.
    A density with independent pixels must leave those as well.
    """
    dims = len(subject.event_shape) - 1
    changed: list[Tensor] = []
    for seed in range(3):
        randomise(subject.model, seed)
        density = subject(subject.images(2, 1, seed=2))
        image = subject.images(seed=3 + seed)
        sites = raster(torch.arange(image.numel()).view(image.shape), dims)
        assert isinstance(density, FactorisedDensity)
        for step in range(1, min(subject.levels, 4)):
            images = image.repeat(1 + len(sites), *[1] * image.ndim).flatten(1)
            images[1:].scatter_(1, sites[:, None], (image.flatten()[sites, None] + step) % subject.levels)
            terms = raster(density.conditional_log_probs(images.view(-1, 1, *image.shape)).detach(), dims)[:, 0]
            changed.append((terms[1:] - terms[:1]).abs())  # (u, t)
    influence = torch.stack(changed).amax(0)
    plain = subject.model(subject.images(2, 1, seed=2))  # an adapted density keeps the order of its model
    steps = plain.generation_order if isinstance(plain, MultiscaleDensity) else None
    before = past(subject.event_shape, steps=steps)
    tolerance = agreement(terms.dtype)
    leak = influence.masked_fill(before, 0).fill_diagonal_(0)
    assert leak.max() <= tolerance, f"later pixels move the term of an earlier one by {leak.max():.3g} nats"
    if isinstance(density, IndependentDensity):
        assert influence.masked_fill(~before, 0).max() <= tolerance, "pixels said to be independent are not"
        return
    network = network_of(subject.model)
    if isinstance(network, SymbolNetwork | PixelRNN):  # whose reach is not the same in all directions
        seen = promised(network)
    else:
        seen = past(subject.event_shape, radius(density if steps is None else plain, subject.model), steps)
    blind = seen & (influence <= tolerance)
    assert not (subject.sees_whole_past and blind.any()), (
        f"pixels of the past have no influence, as (earlier, later): {blind.nonzero().tolist()}"
    )


def gradients_are_causal(subject: Subject) -> None:
    """Gradient of each term: exactly zero in its own pixel and later ones, non-zero in all earlier ones in reach.

    What is in reach is the receptive field that the kernels of the network promise, no more and no less; with
    prototypes, which compare a place's whole past, it is at least that.
    """
    dims, network = len(subject.event_shape) - 1, network_of(subject.model)
    if isinstance(network, SymbolNetwork):
        network.input.register_forward_hook(_give_slopes)
    total = torch.zeros(())
    for seed in range(3):
        randomise(subject.model, seed)
        density = subject(subject.images(2, 1, seed=2))
        assert isinstance(density, RasterDensity)
        image = subject.images(seed=3 + seed)
        leaf = image.to(torch.float64).repeat(image.numel(), *[1] * image.ndim).requires_grad_()
        log_probs = density._logits(leaf).log_softmax(1)
        terms = raster(log_probs.gather(1, image.expand(log_probs[:, :1].shape)).squeeze(1), dims)  # (row, t)
        terms.diagonal().sum().backward()  # row t holds the image whose term t counts
        assert leaf.grad is not None
        total = total + raster(leaf.grad, dims).mT.abs()  # (u, t)
    leak = total.masked_fill(past(subject.event_shape), 0)
    assert leak.max() == 0, f"a term has a gradient of {leak.max():.3g} in its own pixel or a later one"
    if not isinstance(network, KNOWN_FIELDS):
        return  # of others no kernels are known; ``is_causal`` says whether they have a hole
    seen, before = promised(network), past(subject.event_shape)
    assert not (seen & ~before).any(), "the network promises to see what comes later"
    blind = seen & (total == 0)
    assert not blind.any(), f"no gradient in pixels of the past, as (earlier, later): {blind.nonzero().tolist()}"
    beyond = before & ~seen & (total != 0)
    assert getattr(network, "prototypes", None) is not None or not beyond.any(), (
        f"a gradient outside the field, as (earlier, later): {beyond.nonzero().tolist()}"
    )


def estimates(density: Density, value: Tensor, draws: int, seed: int) -> Tensor:
    """``log_prob`` of ``value`` from so many draws of one generator, ``(draws, *sample, tasks)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([density.log_prob(value, generator).detach() for _ in range(draws)])


def bound_sums_to_one_at_most(subject: Subject) -> None:
    """The sum over all images of exp of the mean bound is at most one, given 0 and 2 supports.

    The mean is over 200 draws, so its logarithm is known to within an error, by the delta method; a bound whose sum is
    exactly one fails in 1 of 100,000 cases (4.26 standard errors, one side), and one with a gap hardly ever.
    """
    for shots in (0, 2):
        density = subject(subject.images(shots, 2, seed=1))
        images = all_images(subject.event_shape, subject.levels)
        found = estimates(density, images.unsqueeze(1).expand(-1, 2, *images.shape[1:]), 200, seed=2)
        mean, error = found.mean(0), found.std(0) / len(found) ** 0.5
        total, weights = mean.logsumexp(0), mean.softmax(0)
        allowed = 4.26 * (weights * error).square().sum(0).sqrt()
        assert (total <= allowed + 1e-9).all(), f"given {shots} shots the log of the sum is {total.tolist()}, above 0"


def bound_grows_with_samples(subject: Subject) -> None:
    """More samples make the bound no worse, and 64 of them better than one, in the mean over 64 images and 50 draws.

    Each comparison is wrong about a bound that keeps its promise in 1 of 100,000 cases (4.26 standard errors).
    """
    value, means, errors = subject.images(32, 2, seed=3), [], []
    for samples in (1, 8, 64):
        setattr(subject.model, "samples", samples)  # noqa: B010, as not every model has them
        density = subject(subject.images(2, 2, seed=4))
        assert isinstance(density, BoundDensity)
        assert density.samples == samples
        assert str(samples) in density.quantity, "the number of samples is not said"
        each = estimates(density, value, 50, seed=5).flatten(1).mean(1)
        means.append(each.mean())
        errors.append(each.std() / len(each) ** 0.5)
    for i, j, least in ((0, 1, -1), (1, 2, -1), (0, 2, 1)):
        margin = 4.26 * (errors[i].square() + errors[j].square()).sqrt()
        assert means[j] - means[i] >= least * margin, f"the bound does not grow with samples: {means}"


def bound_draws_from_its_generator(subject: Subject) -> None:
    """The bound is a function of the generator's seed, differs between seeds, and moves no random state of torch."""
    density, value = subject(subject.images(1, 2, seed=6)), subject.images(4, 2, seed=7)
    state = torch.get_rng_state()
    first, again, other = (estimates(density, value, 1, seed=seed)[0] for seed in (8, 8, 9))
    assert first.shape == (4, 2)
    assert torch.equal(state, torch.get_rng_state()), "scoring with a generator moved torch's own random state"
    assert torch.equal(first, again), "the same generator gives another bound"
    assert not torch.equal(first, other), "another generator gives the same bound"


def samples_follow(subject: Subject) -> None:
    """Chi-square test of draws against the enumerated distribution, for two tasks given 0 and 2 supports."""
    for shots in (0, 2):
        density = subject(subject.images(shots, 2, seed=4))
        probabilities = table(density).double().exp().numpy()
        draws = density.sample((DRAWS,), generator=torch.Generator().manual_seed(5))
        assert draws.shape == (DRAWS, 2, *subject.event_shape)
        codes = draws.flatten(2) @ subject.levels ** torch.arange(math.prod(subject.event_shape))
        for task in range(2):
            counts = np.bincount(codes[:, task].numpy(), minlength=len(probabilities))
            chance = goodness_of_fit(counts, probabilities[:, task] * DRAWS)
            assert chance > FALSE_ALARM / 4, f"draws given {shots} shots do not follow the density (p = {chance:.2g})"


def goodness_of_fit(counts: np.ndarray, expected: np.ndarray) -> float:
    """p-value of Pearson's test; cells that expect fewer than 5 are pooled, the smallest first."""
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    small = int((expected < 5).sum())
    while 0 < small < len(expected) and expected[:small].sum() < 5:
        small += 1
    if small:
        counts = np.concatenate([[counts[:small].sum()], counts[small:]])
        expected = np.concatenate([[expected[:small].sum()], expected[small:]])
    assert len(expected) > 5, "too few cells are left to test anything"
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(expected) - 1))


def draws_are_reproducible(subject: Subject) -> None:
    """Draws are integers in range, come from the generator alone, and leave torch's own random state as it was."""
    density = subject(subject.images(1, 3, seed=6))
    state = torch.get_rng_state()

    def draw(*sample: int, seed: int) -> Tensor:
        return density.sample(sample, generator=torch.Generator().manual_seed(seed))

    first = draw(2, 20, seed=0)
    assert first.shape == (2, 20, 3, *subject.event_shape)
    assert first.dtype == torch.int64
    assert first.min() >= 0
    assert first.max() < subject.levels
    assert draw(seed=0).shape == (3, *subject.event_shape)
    assert torch.equal(first, draw(2, 20, seed=0)), "the same generator gives other draws"
    assert not torch.equal(first, draw(2, 20, seed=1)), "another generator gives the same draws"
    assert torch.equal(state, torch.get_rng_state()), "drawing with a generator moved torch's own random state"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        once = density.sample((20,))
        torch.manual_seed(0)
        assert torch.equal(once, density.sample((20,))), "without a generator, torch's own seed does not decide"

"""What conditions a network is of one scale, whatever the images and whatever the weights; and training uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metadensity import Episode, FewShotModel
from metadensity.models import AttentionPixelCNN, ConditionalPixelCNN, WaveNet
from metadensity.nn.encoders import VECTOR_SCALE, SupportPatchEncoder, SupportVectorEncoder
from metadensity.nn.inputs import SupportInput
from metadensity.nn.support_map import SupportMap
from metadensity.training import MetaTrainer, TrainingConfig


@dataclass(frozen=True)
class Strokes:
    """Each class is three bars across an image, one level on another, each of them shifted by a place or none."""

    event_shape: tuple[int, ...] = (1, 12, 12)
    levels: int = 2
    paper: int = 0
    ink: int = 1
    classes: int = 24
    seed: int = 0

    def drawn(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """An image of each class in ``classes`` ``(tasks,)``."""
        fixed = torch.Generator().manual_seed(self.seed)
        channels, *space = self.event_shape
        images = []
        starts = torch.rand(self.classes, 3, generator=fixed)
        for number in classes.tolist():
            image = torch.full((channels, *space), self.paper, dtype=torch.uint8)
            for bar, where in enumerate(starts[number].tolist()):
                axis = bar % len(space)
                place = int(where * (space[axis] - 1)) + int(torch.randint(2, (), generator=generator))
                image.select(1 + axis, min(place, space[axis] - 1)).fill_(self.ink)
            images.append(image)
        return torch.stack(images)

    def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + index)
        ids = torch.randint(self.classes, (tasks,), generator=generator)
        drawn = [self.drawn(ids, generator) for _ in range(queries + shots)]
        images = torch.stack(drawn)
        return Episode(images[queries:], images[:queries], ids)


DATA = {
    "light on dark": Strokes(),
    "dark on light": Strokes(paper=1, ink=0),
    "8x8, light on dark": Strokes((1, 8, 8)),
    "8x8, dark on light": Strokes((1, 8, 8), paper=1, ink=0),
    "8x8, faint grey": Strokes((1, 8, 8), levels=16, paper=14, ink=12),
    "64x64": Strokes((1, 64, 64), paper=1, ink=0),
    "faint grey": Strokes((1, 16, 16), levels=256, paper=230, ink=224),
    "strong grey": Strokes((1, 16, 16), levels=256, paper=255, ink=0),
    "colour": Strokes((3, 16, 16), levels=256, paper=255, ink=30),
    "sequences": Strokes((1, 40), paper=1, ink=0),
    "volumes": Strokes((1, 8, 8, 8), paper=1, ink=0),
}


def rms(x: Tensor, dim: int = -1) -> Tensor:
    return x.square().mean(dim).sqrt()


def encoders(source: Strokes, seed: int) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    shape, levels = source.event_shape, source.levels
    found = {
        "vector": SupportVectorEncoder(shape, levels, planes=16, features=32),
        "patches": SupportPatchEncoder(shape, levels, planes=16, keys=16, values=16),
        "map": SupportMap(shape, levels, features=16),
    }
    images = source.episode(0, 64, 0, 1).query[0]
    for encoder in found.values():
        encoder.input.look_at(images)  # type: ignore[operator,union-attr]
    return found


def conditions(encoder: nn.Module, support: Tensor, gradients: bool = False) -> list[Tensor]:
    """Vectors of features ``(..., features)`` of one support a task, in units of their bound.

    What is averaged with the null counts twice, and f(s) is bounded by a quarter.
    """
    with torch.set_grad_enabled(gradients):
        made = encoder(support)
    if isinstance(encoder, SupportVectorEncoder):
        return [2 * made / VECTOR_SCALE]
    return list(made) if isinstance(made, tuple) else [2 * made.unflatten(1, (2, -1))[:, 0].movedim(1, -1)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DATA)
def test_scale_at_the_start(name: str, seed: int) -> None:
    """Root mean squares between a quarter and 1, and other images are told apart by at least a twentieth."""
    support = DATA[name].episode(1, 16, 1, 1).support
    for kind, encoder in encoders(DATA[name], seed).items():
        for found in conditions(encoder, support):
            assert 0.25 < float(rms(found).mean()) < 1, (kind, rms(found).mean())
            assert float(rms(found).max()) <= 1, kind
            apart = rms(found - found.mean(0)).mean()
            assert float(apart) > 0.05, (kind, apart)


@pytest.mark.parametrize("name", DATA)
def test_scale_whatever_the_weights(name: str) -> None:
    """Weights a hundred times as large move nothing out of bounds, and leave every unit a gradient."""
    support = DATA[name].episode(1, 16, 1, 1).support
    for kind, encoder in encoders(DATA[name], 0).items():
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(100)
        found = conditions(encoder, support, gradients=True)
        assert max(float(rms(part).detach().max()) for part in found) <= 1, kind
        sum((part * torch.randn_like(part)).sum() for part in found).backward()  # type: ignore[union-attr]
        for label, parameter in encoder.named_parameters():
            if label not in ("null", "shared.weight") and parameter.ndim > 1:
                assert parameter.grad is not None
                assert bool(parameter.grad.flatten(1).any(1).all()), f"units of {kind}.{label} are dead"


def test_dead_units_are_seen() -> None:
    """The published encoder at such weights: its features are thousands, and some units see no gradient."""
    torch.manual_seed(0)
    source = DATA["dark on light"]
    encoder = SupportVectorEncoder(source.event_shape, 2, planes=16, features=32, normed=False)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(100)
    found = encoder(source.episode(1, 16, 1, 1).support)
    assert float(rms(found).detach().max()) > 1000
    found.sum().backward()
    weights = [parameter.grad for name, parameter in encoder.named_parameters() if name.endswith("weight")]
    assert not all(bool(gradient.flatten(1).any(1).all()) for gradient in weights if gradient is not None)


def test_polarity_is_only_a_sign() -> None:
    """Ink on paper and paper on ink are, once centred, the same numbers with another sign."""
    one, other = DATA["light on dark"], DATA["dark on light"]
    inputs = [SupportInput(source.event_shape, source.levels) for source in (one, other)]
    images = [source.episode(0, 64, 0, 1).query[0] for source in (one, other)]
    assert torch.equal(images[0], 1 - images[1])
    seen = []
    for part, pixels in zip(inputs, images, strict=True):
        part.look_at(pixels)
        seen.append(part(pixels)[:, :1])
        assert float(seen[-1].mean()) == pytest.approx(0, abs=1e-5)
        assert float(seen[-1].std()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(seen[0], -seen[1])


def test_padding_is_not_looked_at() -> None:
    """Mean and deviation are those of the real places laid end to end, through a trainer too."""
    random = torch.Generator().manual_seed(0)
    images, lengths = torch.randint(0, 100, (9, 2, 20), generator=random), torch.arange(9) * 2
    real = torch.cat([image[:, :length] for image, length in zip(images, lengths, strict=True)], 1) * (2 / 255) - 1

    def padded(level: int) -> Tensor:
        return torch.where(torch.arange(20) < lengths[:, None, None], images, level)

    class Padded:
        event_shape: tuple[int, ...] = (2, 20)
        levels = 256

        def episode(self, index: int, tasks: int, shots: int, queries: int) -> Episode:
            whole = padded(255).unsqueeze(1)
            return Episode(whole[:0], whole, query_lengths=lengths.unsqueeze(1))

    model = WaveNet((2, 20), 256, layers=2, planes=4, penultimate=4)
    model.initialise(Padded(), tasks=1, queries=9)
    (part,) = (part for part in model.modules() if isinstance(part, SupportInput))
    torch.testing.assert_close(part.mean[:, 0], real.mean(1))
    torch.testing.assert_close(part.deviation[:, 0], real.std(1, correction=0))
    other = SupportInput((2, 20), 256)
    other.look_at(padded(0), lengths)
    assert torch.equal(other.mean, part.mean)
    other.look_at(padded(0))
    assert not torch.allclose(other.mean, part.mean, atol=0.1)


def test_a_channel_that_never_changes_is_finite() -> None:
    part = SupportInput((1, 4, 4), 2)
    blank = torch.ones(3, 1, 4, 4, dtype=torch.uint8)
    part.look_at(blank)
    assert float(part(blank)[:, 0].abs().max()) == 0
    assert part(1 - blank).isfinite().all()


def test_a_model_looks_at_its_data_once() -> None:
    """Before training, and never again: not by a second trainer, nor once loaded."""
    model = small(AttentionPixelCNN, DATA["dark on light"])
    parts = [part for part in model.modules() if isinstance(part, SupportInput)]
    assert len(parts) == 2
    assert not any(part.seen for part in parts)
    config = TrainingConfig(steps=1, tasks=4, queries=1, shots=(1,))
    MetaTrainer(model, DATA["dark on light"], None, config)
    means = [float(part.mean) for part in parts]
    assert min(means) > 0.3
    MetaTrainer(model, DATA["light on dark"], None, config)
    assert [float(part.mean) for part in parts] == means
    assert all(part.seen for part in parts)


def small(kind: type[FewShotModel], source: Strokes, **options: Any) -> FewShotModel:
    return kind(source.event_shape, source.levels, **{"layers": 4, "planes": 12, "penultimate": 12, **options})


def trained(kind: type[FewShotModel], source: Strokes, seed: int, **options: Any) -> dict[int, float]:
    """Nats/dim of queries of the classes it learned at 0 and 4 shots, after a short and hasty training."""
    torch.manual_seed(seed)
    model = small(kind, source, **options)
    config = TrainingConfig(
        steps=80, tasks=16, queries=1, shots=(1, 2, 4), withheld=0.25, learning_rate=2e-2, warmup=10, average=0.9,
        seed=seed, validate_every=80, validation_tasks=64,
    )  # fmt: skip
    run = MetaTrainer(model, source, source, config)
    run.run()
    values = run.validate()
    return {shots: values[f"validation/nats_per_dim_{shots}_shots"] for shots in (0, 4)}


@pytest.mark.parametrize(("kind", "options"), [(ConditionalPixelCNN, {}), (AttentionPixelCNN, {"attention": "dot"})])
@pytest.mark.parametrize("name", ["8x8, light on dark", "8x8, dark on light"])
def test_supports_do_not_hurt_after_a_short_training(
    kind: type[FewShotModel], options: dict[str, Any], name: str
) -> None:
    for seed in range(2):
        found = trained(kind, DATA[name], seed, **options)
        assert found[4] < found[0] + 0.01, f"seed {seed}: {found}"
        assert found[0] < 0.2, f"seed {seed}: {found}"


@pytest.mark.parametrize("name", ["8x8, faint grey", "sequences"])
def test_nor_do_they_in_grey_and_in_one_dimension(name: str) -> None:
    found = trained(ConditionalPixelCNN, DATA[name], 0)
    assert found[4] < found[0] + 0.01, found


def test_supports_hurt_where_encoders_have_no_norms() -> None:
    """The same training of the published encoder: 0.27 nats/dim with none, 0.64 with supports."""
    found = trained(ConditionalPixelCNN, DATA["8x8, dark on light"], 0, support_norm=False)
    assert found[4] > found[0] + 0.2, found

"""On a GPU as on the CPU: run where torch finds a CUDA device."""

from __future__ import annotations

import pytest
import torch

import metadensity
from metadensity import FewShotModel
from metadensity.models import MODELS
from metadensity.testing.subjects import arguments
from tests.contracts.subjects import SMALL

from .toys import Patterns, Recorder, small_network, trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 as on the CPU: by default convolutions on a GPU round their inputs to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def built(name: str) -> FewShotModel:
    torch.manual_seed(0)
    sizes = {**SMALL, "base": 4, "upscaler_layers": 3}
    kind = MODELS[name]
    return kind((1, 8, 8), 2, **{key: value for key, value in sizes.items() if key in arguments(kind)})


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", MODELS)
def test_likelihoods_and_samples(name: str, shots: int) -> None:
    model, episode = built(name), Patterns((1, 8, 8)).episode(0, 4, shots, 2)
    with torch.no_grad():
        expected = model(episode.support).log_prob(episode.query)
        model.cuda()
        density = model(episode.support.cuda())
        found = density.log_prob(episode.query.cuda())
        drawn = density.sample((3,), torch.Generator("cuda").manual_seed(0))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-3)
    assert drawn.device.type == "cuda"
    assert drawn.shape == (3, 4, 1, 8, 8)
    if isinstance(density, metadensity.densities.pixelcnn.RasterDensity):
        uniforms = torch.rand(3, 4, 1, 8, 8, device="cuda")
        assert torch.equal(density.sample_from_uniforms(uniforms), density.sample_from_uniforms(uniforms, naive=True))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "rmsprop"}, {"precision": "bfloat16"}, {"withheld": 0.5}])
def test_recorded_updates_equal_plain_ones(settings: dict[str, object]) -> None:
    runs = {graphs: Recorder() for graphs in (False, True)}
    models = {
        graphs: trainer(small_network(), device="cuda", graphs=graphs, steps=24, **settings).run(observer)
        for graphs, observer in runs.items()
    }
    for name in ("train/nats_per_dim", "train/gradient_norm", "validation/nats_per_dim"):
        plain, recorded = (torch.tensor([value for _, value in run.series(name)]) for run in runs.values())
        torch.testing.assert_close(recorded, plain, rtol=1e-3, atol=1e-4)
    for one, other in zip(models[False].parameters(), models[True].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("graphs", [False, True])
def test_resumed_goes_on(graphs: bool) -> None:
    straight, first, second = (trainer(small_network(), device="cuda", graphs=graphs, steps=12) for _ in range(3))
    straight.run()
    first.run(Recorder(stop_at=6))
    second.load_state(*first.state())
    second.run()
    for one, other in zip(straight.averaged_model.parameters(), second.averaged_model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_recorded_updates_refuse_bad_pixels() -> None:
    run = trainer(small_network(), device="cuda", graphs=True, steps=12)
    run.train = Patterns(levels=3)
    with pytest.raises(ValueError, match="levels=2 they must lie in"):
        run.run()

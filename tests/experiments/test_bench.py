"""The benchmarks, in quick mode: every one runs, both sides compute the same, and a side that does not is caught."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from experiments import bench
from experiments.benchmarks import attention, likelihood, sampling, training
from experiments.benchmarks.peers import MaskedConv2d, PlainPixelCNN
from experiments.benchmarks.sequence_peers import PlainByteNet, PlainWaveNet
from experiments.benchmarks.timing import PeakMemory, interleaved, matmul_peak
from experiments.reporting.document_blocks import read_block
from metadensity.evaluation.cost import parameter_count
from metadensity.models import ByteNet, ConditionalPixelCNN, UnconditionalPixelCNN, WaveNet
from metadensity.testing.subjects import randomise
from metadensity.training import MetaTrainer

README = bench.DOCUMENT.read_text()


@pytest.mark.parametrize("part", bench.PARTS)
def test_a_part_runs_and_is_recorded(part: str, script: Any) -> None:
    run = script(bench.experiment, "quick", only=part)
    assert run.status == "COMPLETED"
    folder = Path(run.result["folder"])
    recorded = json.loads((folder / "benchmark.json").read_text(), parse_constant=pytest.fail)
    assert recorded == run.result
    assert recorded["quick"] is True
    assert {row["part"] for row in recorded["rows"]} == {part}
    for row in recorded["rows"]:
        if "share" in row:
            assert 0 < row["share"] < 1
        else:
            assert row["ours_s"] > 0
            assert row["ratio"] == row["peer_s"] / row["ours_s"]
    text = (folder / "benchmark.md").read_text()
    assert text.startswith("Quick mode")
    assert recorded["machine"]["torch"] == torch.__version__
    assert all(row["name"] in text for row in recorded["rows"])
    assert (folder / "sampling.png").exists() == (part == "sampling")
    if part == "sampling":
        assert {point["sampler"] for point in recorded["curve"]} >= {"naive", "cached, torch alone"}
        with Image.open(folder / "sampling.png") as picture:
            assert picture.width > 500


def test_a_part_is_a_command_of_its_own(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, "-m", "experiments.bench", "likelihood", "-F", str(tmp_path), "with", "fast"]
    environment = {**os.environ, "METADENSITY_RUNS": str(tmp_path / "runs")}
    (tmp_path / "runs" / "7").mkdir(parents=True)
    done = subprocess.run(command, cwd=repo_root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "8" / "benchmark.json").is_file()
    recorded = json.loads((tmp_path / "1" / "benchmark.json").read_text())
    assert {row["part"] for row in recorded["rows"]} == {"likelihood"}
    assert set(bench.PARTS) <= set(bench.experiment.commands)


def test_the_readme_shows_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((bench.BENCH_RECORDS / bench.RECORD).read_text())
    assert record["quick"] is False
    assert {row["part"] for row in record["rows"]} == set(bench.PARTS)
    assert read_block(README, "bench") == bench.table(record).strip()
    copy = tmp_path / "README.md"
    copy.write_text(README.replace(record["rows"][0]["name"], "other"))
    bench.readme(str(copy))
    assert copy.read_text() == README
    copy.write_text(README.replace(record["rows"][0]["name"], "other"))
    monkeypatch.setattr(bench, "DOCUMENT", copy)
    monkeypatch.chdir(tmp_path)
    bench.readme(None)  # the page that is shown, from anywhere
    assert copy.read_text() == README


def test_a_record_is_kept_without_a_path(script: Any, tmp_path: Path) -> None:
    run = script(bench.experiment, "quick", only="likelihood", keep=str(tmp_path / "kept"))
    kept = json.loads((tmp_path / "kept" / bench.RECORD).read_text())
    assert kept == {key: value for key, value in run.result.items() if key != "folder"}


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no benchmark 'speed'; choose from sampling"):
        bench.run_parts(["speed", "sampling"], True, tmp_path)


def test_the_plain_pixelcnn_is_our_network() -> None:
    """The same logits, gradients of its inputs included, and as many parameters as count."""
    model = UnconditionalPixelCNN((1, 7, 6), 3, layers=3, planes=5, penultimate=4, kernel_size=5)
    randomise(model, seed=0)
    peer = PlainPixelCNN(model.network)
    assert peer.effective_parameters == parameter_count(model)
    assert sum(p.numel() for p in peer.parameters()) > parameter_count(model)
    pixels = torch.randint(3, (4, 1, 7, 6), generator=torch.Generator().manual_seed(0))
    ours = model.network(pixels, model.network.conditioning(4))
    torch.testing.assert_close(peer(pixels), ours, rtol=1e-4, atol=1e-4)
    uniforms = torch.rand(4, 1, 7, 6, generator=torch.Generator().manual_seed(1))
    density = model(torch.zeros(0, 1, 1, 7, 6, dtype=torch.uint8))
    assert torch.equal(peer.sample(uniforms), density.sample_from_uniforms(uniforms.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize("name", ["wavenet", "multiplicative", "relu"])
def test_the_plain_sequence_nets_are_our_models(name: str) -> None:
    """The same log-probabilities and gradients of all weights together, and as many of them."""
    shape, sizes = (1, 40), {"layers": 7, "planes": 6, "penultimate": 5}
    model = WaveNet(shape, 7, **sizes) if name == "wavenet" else ByteNet(shape, 7, block=name, **sizes)
    randomise(model, seed=0)
    peer = PlainWaveNet(model) if isinstance(model, WaveNet) else PlainByteNet(model)
    assert sum(p.numel() for p in peer.parameters()) == parameter_count(model)
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randint(7, (2, 3, *shape), generator=generator) for _ in range(2))
    ours, theirs = model(support).log_prob(query), peer(support, query)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-4)
    norms = []
    for loss, net in ((ours, model), (theirs, peer)):
        gradients = torch.autograd.grad(loss.sum(), list(net.parameters()), allow_unused=True)
        norms.append(torch.stack([g.norm() for g in gradients if g is not None]).norm())
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-4, atol=0)


def test_the_plain_sequence_nets_take_no_other() -> None:
    sizes = {"layers": 2, "planes": 4, "penultimate": 4}
    with pytest.raises(ValueError, match="without attention"):
        PlainWaveNet(WaveNet((1, 8), 3, attention="dot", **sizes))
    with pytest.raises(ValueError, match="categorical"):
        PlainWaveNet(WaveNet((1, 8), 3, likelihood="logistic", **sizes))
    with pytest.raises(ValueError, match="with attention"):
        PlainByteNet(ByteNet((1, 8), 3, attention=None, **sizes))


def test_weights_under_a_mask_do_not_count() -> None:
    conv = MaskedConv2d(2, 3, torch.tensor([[1.0, 1.0, 0.0]]))
    assert conv.effective_parameters == 2 * 3 * 2 + 3
    x = torch.randn(1, 2, 1, 5)
    before = conv(x)
    with torch.no_grad():
        conv.weight[..., 2] += 1
    assert torch.equal(before, conv(x))


def test_the_plain_pixelcnn_takes_no_other_network() -> None:
    for network in (
        ConditionalPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4).network,
        UnconditionalPixelCNN((2, 4, 4), 2, layers=2, planes=4, penultimate=4).network,
        UnconditionalPixelCNN((1, 4), 2, layers=2, planes=4, penultimate=4).network,
        UnconditionalPixelCNN((1, 4, 4), 2, layers=2, planes=4, penultimate=4, likelihood="logistic").network,
    ):
        with pytest.raises(ValueError, match="unconditional, categorical"):
            PlainPixelCNN(network)


def test_a_sampler_that_draws_other_pixels_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    density = sampling.unconditional(4, sampling.TINY)
    sample_from_uniforms = density.sample_from_uniforms

    def wrong(uniforms: Tensor, naive: bool = False) -> Tensor:
        drawn = sample_from_uniforms(uniforms, naive)
        if not naive:
            drawn[..., 2, 1] = 1 - drawn[..., 2, 1]
        return drawn

    monkeypatch.setattr(density, "sample_from_uniforms", wrong)
    with pytest.raises(AssertionError, match="1 of 16 pixels differ"):
        sampling.against_naive(density, 1, None, "wrong", plain=False, torch_alone=False)


def test_a_training_step_that_learns_other_things_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    losses_of = MetaTrainer.losses_of

    def wrong(self: MetaTrainer, *given: Any) -> tuple[Tensor, ...]:
        return (losses_of(self, *given)[0] * (1.2 if self.config.precision == "bfloat16" else 1),)

    monkeypatch.setattr(MetaTrainer, "losses_of", wrong)
    monkeypatch.setattr(training, "FAST", {"float32": {"precision": "bfloat16"}})
    with pytest.raises(AssertionError, match="losses of float32 are off"):
        training.rows(quick=True)


def test_an_attention_that_reads_other_things_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = attention.plain
    monkeypatch.setattr(attention, "plain", lambda *given: plain(*given) * 1.01)
    with pytest.raises(AssertionError, match="not close"):
        attention.rows(quick=True)


def test_a_likelihood_that_differs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    anew = likelihood.anew
    monkeypatch.setattr(likelihood, "anew", lambda *given: anew(*given) + 0.1)
    with pytest.raises(AssertionError, match="not close"):
        likelihood.rows(quick=True)


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    x = torch.zeros(1000)
    with PeakMemory() as memory:
        y = x + 1  # 4,000 bytes
        z = y + 1  # 8,000
        del y
        gc.collect()
        w = (z + 1).view(10, 100)[2:]  # 8,000: a view is no memory, nor is writing in place
        w.add_(1)
    assert memory.peak == 8000
    assert memory.now == 8000
    del z, w
    gc.collect()
    assert memory.now == 0


def test_sides_take_turns() -> None:
    calls: list[str] = []
    seconds = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert calls == list("ab" * 4)
    assert all(0 <= value < 1 for value in seconds.values())
    assert math.isfinite(matmul_peak(torch.float32, 16, 2))

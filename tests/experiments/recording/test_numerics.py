"""What the bits of a training depend on is kept in its states, and a resume that finds others says so, or refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import train
from experiments.recording import numerics as module
from experiments.recording.numerics import NUMERICS, OtherBitsError, compare_numerics, numerics
from experiments.recording.run_folder import RunFolder
from metadensity import native
from metadensity.files import read_header, read_tensors, write_tensors

SETTINGS: dict[str, Any] = {"task": {"size": 8}}


@pytest.fixture(scope="module")
def whole(script: Any) -> RunFolder:
    run = script(train.experiment, "hershey", "conditional", "fast", **SETTINGS)
    return RunFolder(run.result["folder"])


@pytest.fixture
def half(whole: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(whole.path, tmp_path / "half")
    (tmp_path / "half" / "checkpoints" / "state-00000004.safetensors").unlink()
    return RunFolder(tmp_path / "half")


def test_a_state_says_what_its_bits_depend_on(half: RunFolder) -> None:
    found = read_header(half.states()[-1])[NUMERICS]
    assert (found["threads"], found["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["kernels"]["gated_layer"] == native.fingerprints(["gated_layer"])["gated_layer"]
    assert NUMERICS not in half.model().provenance


def test_kernels_that_are_absent_are_other_bits(half: RunFolder) -> None:
    here = native.fingerprints(["gated_layer"])
    with native.disabled():
        assert native.fingerprints(["gated_layer"]) == {"gated_layer": None}
        if here["gated_layer"] is not None:
            with pytest.raises(OtherBitsError, match=r"kernels.gated_layer: '\w{16}' -> None"):
                compare_numerics(half.states()[-1], "cpu", required=True)


def test_the_same_bits_are_passed_over_in_silence(half: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    compare_numerics(half.states()[-1], "cpu", required=True)
    assert capsys.readouterr().out == ""


def test_other_bits_are_said_and_refused_where_the_same_are_required(
    half: RunFolder, script: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = module.numerics
    more = torch.get_num_threads() + 1
    monkeypatch.setattr(module, "numerics", lambda *given: {**known(*given), "threads": more})
    before = sorted(runs.iterdir())
    with pytest.raises(OtherBitsError, match=rf"threads: {more - 1} -> {more}\nGo on where .*require_same_bits=False"):
        script(train.experiment, resume=str(half.path), require_same_bits=True)
    assert sorted(runs.iterdir()) == before
    run = script(train.experiment, resume=str(half.path))
    assert run.result["steps"] == 4
    assert f"threads: {more - 1} -> {more}\nThe run goes on; its numbers will differ" in capsys.readouterr().out


def test_a_state_of_an_earlier_version_goes_on_unless_the_same_bits_are_required(half: RunFolder) -> None:
    state = half.states()[-1]
    tensors, header = read_tensors(state)
    del header[NUMERICS], header["sha256"]
    write_tensors(state, tensors, header)
    compare_numerics(state, "cpu", required=False)
    with pytest.raises(OtherBitsError, match=r"does not say what its bits depend on.*require_same_bits=False"):
        compare_numerics(state, "cpu", required=True)


def test_on_a_gpu_the_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    assert numerics("cuda:1") == {"torch": torch.__version__, "device": "a GPU, cuda:1"}

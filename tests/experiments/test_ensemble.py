"""``experiments.ensemble``: members of two kinds from runs, a file that evaluate takes, weights printed."""

from __future__ import annotations

from typing import Any

import pytest

import metadensity
from experiments import ensemble, evaluate, train
from metadensity.models import EnsemblePixelCNN


def test_runs_of_two_kinds_become_one_model(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [script(train.experiment, "digits", name, "fast").result["folder"] for name in ("support_mean", "nade")]
    made = script(ensemble.experiment, "fast", members=runs, combine="product").result
    model = metadensity.load(made["file"])
    assert isinstance(model, EnsemblePixelCNN)
    assert model.member_names == ["support_mean", "nade"]
    assert set(made["weights"]) == {"0", "1", "2"}
    assert made["weights"]["2"] != [0.5, 0.5]
    capsys.readouterr()
    script(evaluate.experiment, "fast", run=made["file"], baselines=False, shots=[0, 2])
    assert "exponents of support_mean, nade (product)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="give two models or more"):
        script(ensemble.experiment, "fast", members=runs[:1])
    other = script(train.experiment, "hershey", "support_mean", "fast").result["folder"]
    with pytest.raises(ValueError, match="were trained on other pixels or classes"):
        script(ensemble.experiment, "fast", members=[runs[0], other])

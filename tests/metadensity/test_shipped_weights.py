"""Every shipped file loads, and gives what it gave when it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import metadensity
from metadensity.files import read_tensors
from metadensity.models import MODELS

# log p in nats of one image of noise given two, by the code of before constructor arguments were recorded once.
LOG_PROB = {
    "mirror-attention": -15479.275390625,
    "mirror-conditional": -14486.6201171875,
    "mirror48-attention_48": -55669.6875,
    "mirror48-conditional_48": -61570.07421875,
    "omniglot-aligned": -997.1731567382812,
    "omniglot-attention": -1098.3616943359375,
    "omniglot-attention_again": -1021.2015991210938,
    "omniglot-attention_again_longer": -903.203857421875,
    "omniglot-attention_longer": -999.5911254882812,
    "omniglot-attention_meta": -1015.70361328125,
    "omniglot-conditional": -1256.0875244140625,
    "omniglot-ensemble": -913.102294921875,
    "omniglot-meta": -1095.07958984375,
    "omniglot28-attention": -908.8231811523438,
    "products-attention": -24056.17578125,
    "products-conditional": -23635.46875,
    "products-multiscale": -23343.65625,
    "quarter_hour-attention": -1222.0843505859375,
    "quarter_hour-attention_meta": -1160.5296630859375,
    "quarter_hour-conditional": -1217.017333984375,
    "quarter_hour-meta": -1124.8687744140625,
}


@pytest.fixture(scope="module")
def folder(repo_root: Path) -> Path:
    return repo_root / "experiments" / "results" / "weights"


def test_all_are_here(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.safetensors")} >= LOG_PROB.keys()


@pytest.mark.parametrize("name", LOG_PROB)
def test_it_is_the_density_it_was(name: str, folder: Path) -> None:
    path = folder / f"{name}.safetensors"
    tensors, header = read_tensors(path)
    loaded = metadensity.load(path)
    assert header["config"].items() <= loaded.config.items(), "an argument is read as another"
    kind = MODELS[header["model"]]
    by_hand = kind(**kind.complete(header["config"]))
    by_hand.load_state_dict(tensors)
    generator = torch.Generator().manual_seed(0)
    support, image = (
        torch.randint(loaded.levels, (count, 1, *loaded.event_shape), generator=generator) for count in (2, 1)
    )
    with torch.no_grad():
        found, same = (model.eval()(support).log_prob(image) for model in (loaded, by_hand))
    assert torch.equal(found, same)
    assert float(found) == pytest.approx(LOG_PROB[name], rel=1e-5)

"""learn2learn and torchmeta, the real packages, through the adapter: they import quietly and do their work.

Nothing here skips because a package is missing: that is a failed installation. The one exception is a machine without
a C compiler, where `make setup` has recorded that learn2learn could not be built.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.interop import imports

NOT_BUILT = Path(sys.prefix) / "learn2learn-not-built"  # written by make setup
CLASSES, EXAMPLES = 5, 6


def image(label: int, example: int) -> Tensor:
    """A 1x2x2 image that tells which class and which example it is."""
    return torch.full((1, 2, 2), 10.0 * label + example)


class InMemory(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """All images, class by class, as learn2learn takes them: one flat data set."""

    def __len__(self) -> int:
        return CLASSES * EXAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label, example = divmod(index, EXAMPLES)
        return image(label, example), label


def learn2learn_is_left_out() -> bool:
    return importlib.util.find_spec("learn2learn") is None and NOT_BUILT.exists()


@pytest.fixture
def learn2learn() -> ModuleType:
    if learn2learn_is_left_out():
        pytest.skip(NOT_BUILT.read_text().strip())
    return imports.import_learn2learn()


@pytest.fixture
def torchmeta() -> ModuleType:
    return imports.import_torchmeta()


def test_learn2learn_tasks(learn2learn: ModuleType) -> None:
    random.seed(0)
    transforms = learn2learn.data.transforms
    data = learn2learn.data.MetaDataset(InMemory())
    tasks = learn2learn.data.Taskset(
        data,
        task_transforms=[
            transforms.FusedNWaysKShots(data, n=3, k=2),
            transforms.LoadData(data),
            transforms.RemapLabels(data),
            transforms.ConsecutiveLabels(data),
        ],
        num_tasks=4,
    )
    assert len(tasks) == 4
    seen = set()
    for task in range(4):
        images, labels = tasks[task]
        assert images.shape == (6, 1, 2, 2)
        assert labels.reshape(3, 2).tolist() in [[[a, a], [b, b], [c, c]] for a, b, c in permutations(range(3))]
        classes = images[:, 0, 0, 0].div(10, rounding_mode="floor").reshape(3, 2)
        assert (classes[:, 0] == classes[:, 1]).all(), "the two shots of one way come from one class"
        assert classes[:, 0].unique().numel() == 3, "the three ways are three classes"
        assert images[:, 0, 0, 0].unique().numel() == 6, "no image is drawn twice"
        seen.add(tuple(classes[:, 0].tolist()))
    assert len(seen) > 1, "tasks differ"


def test_maml_takes_one_gradient_step_and_passes_the_gradient_through_it(learn2learn: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)
    model = nn.Linear(3, 1)
    weight = torch.randn(1, 3, generator=generator)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.zero_()
    maml = learn2learn.algorithms.MAML(model, lr=0.1, first_order=False)

    def loss_of(linear: Any) -> Tensor:
        return (linear(inputs) - targets).square().mean()

    learner = maml.clone()
    learner.adapt(loss_of(learner))
    loss_of(learner).backward()

    # The same by hand: one step of gradient descent, and the gradient of the loss after it.
    by_hand = [weight.clone().requires_grad_(), torch.zeros(1, requires_grad=True)]

    def loss_at(parameters: list[Tensor]) -> Tensor:
        return (nn.functional.linear(inputs, *parameters) - targets).square().mean()

    step = torch.autograd.grad(loss_at(by_hand), by_hand, create_graph=True)
    adapted = [parameter - 0.1 * slope for parameter, slope in zip(by_hand, step, strict=True)]
    expected = torch.autograd.grad(loss_at(adapted), by_hand)

    torch.testing.assert_close(list(learner.module.parameters()), adapted)
    torch.testing.assert_close([model.weight.grad, model.bias.grad], list(expected))
    assert torch.equal(model.weight, weight), "the inner loop leaves the outer parameters alone"


def test_torchmeta_batch(torchmeta: ModuleType) -> None:
    random.seed(0)
    data = torchmeta.utils.data

    class OneClass(data.Dataset):  # type: ignore[misc,name-defined]
        def __init__(self, index: int, label: int, target_transform: Any) -> None:
            super().__init__(index, target_transform=target_transform)
            self.label = label

        def __len__(self) -> int:
            return EXAMPLES

        def __getitem__(self, example: int) -> tuple[Tensor, Any]:
            return image(self.label, example), self.target_transform(self.label)

    class AllClasses(data.ClassDataset):  # type: ignore[misc,name-defined]
        num_classes = CLASSES

        def __getitem__(self, index: int) -> Any:
            return OneClass(index, index, self.get_target_transform(index))

    shots, queries, ways = 1, 2, 3
    meta = data.CombinationMetaDataset(
        AllClasses(meta_train=True),
        num_classes_per_task=ways,
        target_transform=torchmeta.transforms.Categorical(ways),
        dataset_transform=torchmeta.transforms.ClassSplitter(num_train_per_class=shots, num_test_per_class=queries),
    )
    loader = data.BatchMetaDataLoader(meta, batch_size=4, shuffle=True, num_workers=0)
    batch = next(iter(loader))
    support, support_labels = batch["train"]
    query, query_labels = batch["test"]
    assert support.shape == (4, ways * shots, 1, 2, 2)
    assert query.shape == (4, ways * queries, 1, 2, 2)
    for task in range(4):
        drawn = torch.cat([support[task], query[task]])[:, 0, 0, 0]
        assert drawn.unique().numel() == ways * (shots + queries), "support and query share no image"
        labels = torch.cat([support_labels[task], query_labels[task]])
        classes = drawn.div(10, rounding_mode="floor")
        assert set(labels.tolist()) == {0, 1, 2}
        assert len(set(zip(labels.tolist(), classes.tolist(), strict=True))) == ways, "one label for one class"


def test_imports_say_nothing_and_warn_of_nothing() -> None:
    names = ["torchmeta"] if learn2learn_is_left_out() else ["torchmeta", "learn2learn"]
    code = "from tasks.interop import imports\n" + "".join(f"imports.import_{name}()\n" for name in names)
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("package", "missing"),
    [
        ("learn2learn", "learn2learn"),
        ("learn2learn", "gym_notices.notices"),
        ("torchmeta", "torchmeta"),
        ("torchmeta", "torchvision.datasets.utils"),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    package: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "learn2learn" and learn2learn_is_left_out():
        pytest.skip(NOT_BUILT.read_text().strip())
    monkeypatch.setitem(sys.modules, missing, None)  # Python then raises as for a package that is not there
    function = getattr(imports, f"import_{package}").__wrapped__  # past the cache
    with pytest.raises(ImportError, match=f"{package} cannot be imported: .*{missing}.*make setup"):
        function()


def test_installing_them_left_torch_alone(repo_root: Path) -> None:
    # make setup writes down the torch that pip installed, before uv adds the two packages.
    pinned = [line for line in (repo_root / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    installed = version("torch")
    assert [f"torch=={installed.split('+')[0]}"] == pinned
    record = Path(sys.prefix) / "torch.txt"
    if record.exists():  # not where someone uses an environment of their own
        assert record.read_text().strip() == f"torch=={installed}"

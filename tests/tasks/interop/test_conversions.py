"""learn2learn and torchmeta, the real packages, on Omniglot: both ways, the same pixels and the same classes."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import os
import random
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import metadensity
from metadensity.evaluation.leaks import SupportLeakError
from metadensity.models import MODELS
from metadensity.training import MetaTrainer, TrainingConfig
from tasks import TASKS, ImageTasks, TaskDistribution
from tasks.interop.conversions import (
    episode_from_labelled,
    episode_from_torchmeta,
    episodes_from_learn2learn,
    episodes_from_torchmeta,
    to_learn2learn,
    to_torchmeta,
)
from tasks.interop.imports import import_learn2learn, import_torchmeta
from tasks.interop.taskset_source import TasksetSource

NOT_BUILT = Path(sys.prefix) / "learn2learn-not-built"  # written by make setup


@pytest.fixture(scope="module")
def learn2learn() -> ModuleType:
    if importlib.util.find_spec("learn2learn") is None and NOT_BUILT.exists():
        pytest.skip(NOT_BUILT.read_text().strip())
    return import_learn2learn()


@pytest.fixture(scope="module")
def torchmeta() -> ModuleType:
    return import_torchmeta()


@pytest.fixture(scope="module")
def omniglot(data_root: Path) -> Any:
    return TASKS["omniglot"](split="test", data_root=data_root)


def images_of(task: ImageTasks, number: int) -> set[bytes]:
    """The images of a class, to look others up in."""
    return {row.numpy().tobytes() for row in task.pixels(np.flatnonzero(task.labels == number))}


def require_same_classes(episode: metadensity.Episode, task: ImageTasks) -> None:
    """Every task of the episode is the class that its id says, and no image is there twice."""
    assert episode.class_ids is not None
    for place, number in enumerate(episode.class_ids.tolist()):
        found = [image.numpy().tobytes() for image in torch.cat([episode.support, episode.query])[:, place]]
        assert set(found) <= images_of(task, number)
        assert len(set(found)) == len(found)


# Ours as theirs, and back.


def test_a_learn2learn_taskset_of_omniglot_and_back(learn2learn: ModuleType, omniglot: ImageTasks) -> None:
    random.seed(0)
    data = to_learn2learn(omniglot)
    assert isinstance(data, learn2learn.data.MetaDataset)
    assert len(data) == omniglot.images == 2880
    assert torch.equal(torch.stack([data[i][0] for i in range(50)]), omniglot.pixels(range(50)))
    assert [data.indices_to_labels[i] for i in range(2880)] == omniglot.labels.tolist()
    transforms = learn2learn.data.transforms
    taskset = learn2learn.data.Taskset(
        data, [transforms.FusedNWaysKShots(data, n=5, k=6), transforms.LoadData(data)], num_tasks=8
    )
    episodes = list(episodes_from_learn2learn(taskset, shots=4, class_ids=True))
    assert [(e.shots, e.queries, e.tasks, tuple(e.event_shape)) for e in episodes] == [(4, 2, 5, (1, 26, 26))] * 8
    for number, episode in enumerate(episodes):
        assert episode.support.dtype == torch.uint8
        require_same_classes(episode, omniglot)
        # The very images of the n-way task, in its order.
        images, labels = taskset[number]
        for place, label in enumerate(episode.class_ids.tolist()):  # type: ignore[union-attr]
            assert torch.equal(torch.cat([episode.support, episode.query])[:, place], images[labels == label])
    assert len({tuple(e.class_ids.tolist()) for e in episodes}) == 8  # type: ignore[union-attr]


def test_learn2learn_tasks_with_labels_of_their_own(learn2learn: ModuleType) -> None:
    digits = TASKS["digits"](split="train")
    data, transforms = to_learn2learn(digits), learn2learn.data.transforms
    steps = [transforms.NWays(data, n=2), transforms.KShots(data, k=3), transforms.LoadData(data)]
    taskset = learn2learn.data.Taskset(data, [*steps, transforms.RemapLabels(data), transforms.ConsecutiveLabels(data)])
    episodes = list(episodes_from_learn2learn(taskset, shots=1, levels=17, tasks=4))  # this one draws without end
    assert [(e.shots, e.queries, e.tasks, e.class_ids) for e in episodes] == [(1, 2, 2, None)] * 4


@pytest.mark.parametrize("categorical", [True, False])
def test_torchmeta_omniglot_and_back(torchmeta: ModuleType, omniglot: ImageTasks, categorical: bool) -> None:
    random.seed(0)
    data = to_torchmeta(omniglot, ways=5, shots=3, queries=2, categorical=categorical)
    assert isinstance(data, torchmeta.utils.data.CombinationMetaDataset)
    assert data.meta_split == "test"
    loader = torchmeta.utils.data.BatchMetaDataLoader(data, batch_size=4, num_workers=0)
    batch = next(iter(loader))
    episode = episode_from_torchmeta(batch, class_ids=not categorical)
    assert (episode.shots, episode.queries, episode.tasks) == (3, 2, 20)
    if not categorical:
        require_same_classes(episode, omniglot)
    # One class a task, and its own queries: by looking the images up.
    where: dict[bytes, int] = {}
    for number in range(omniglot.classes):
        where |= dict.fromkeys(images_of(omniglot, number), number)
    for place in range(20):
        images = torch.cat([episode.support, episode.query])[:, place]
        assert len({where[image.numpy().tobytes()] for image in images}) == 1
    assert torch.equal(
        torch.cat([episode.support[:, :5].flatten(0, 1), episode.query[:, :5].flatten(0, 1)]).sum(),
        batch["train"][0][0].sum() + batch["test"][0][0].sum(),
    )


def test_all_images_of_a_class_go_there_and_back(torchmeta: ModuleType, omniglot: ImageTasks) -> None:
    data = to_torchmeta(omniglot, ways=2, shots=15, queries=5, categorical=False, shuffle=False)
    collate = torchmeta.utils.data.dataloader.BatchMetaCollate(torch.utils.data.default_collate)
    episode = episode_from_torchmeta(collate([data[(7, 100)]]), class_ids=True)
    assert episode.class_ids is not None
    assert episode.class_ids.tolist() == [7, 100]
    ours = torch.stack([omniglot.pixels(np.flatnonzero(omniglot.labels == number)) for number in (7, 100)], dim=1)
    assert torch.equal(torch.cat([episode.support, episode.query]), ours)


def test_evaluate_takes_their_episodes(torchmeta: ModuleType, learn2learn: ModuleType, omniglot: ImageTasks) -> None:
    random.seed(0)
    torch.manual_seed(0)
    model = MODELS["support_mean"](event_shape=(1, 26, 26), levels=2)
    from_torchmeta = episodes_from_torchmeta(to_torchmeta(omniglot, ways=3, shots=2, queries=2), tasks=4)
    assert metadensity.evaluate(model, from_torchmeta).rows[0].images == 24
    data, transforms = to_learn2learn(omniglot), learn2learn.data.transforms
    steps = [transforms.FusedNWaysKShots(data, n=3, k=4), transforms.LoadData(data)]
    taskset = learn2learn.data.Taskset(data, steps, num_tasks=4)
    row = metadensity.evaluate(model, episodes_from_learn2learn(taskset, shots=2, class_ids=True)).rows[0]
    assert row.images == 24
    assert row.classes == len({label for i in range(4) for label in taskset[i][1].tolist()})


def test_tasks_that_draw_their_images_go_too(learn2learn: ModuleType, torchmeta: ModuleType) -> None:
    source: TaskDistribution = TASKS["templates"](split="train", classes=8, size=6, flip=1e-9, shifts=1)
    data = to_learn2learn(source, images_per_class=5)
    assert len(data) == 40
    assert {label: len(ids) for label, ids in data.labels_to_indices.items()} == dict.fromkeys(range(8), 5)
    # Without shifts and flips every image of a class is its template, and so is every query of an episode.
    episode = source.episode(11, tasks=16, shots=0, queries=1)
    assert episode.class_ids is not None
    for place, number in enumerate(episode.class_ids.tolist()):
        for item in data.labels_to_indices[number]:
            assert torch.equal(data[item][0], episode.query[0, place])
    again = to_torchmeta(source, ways=2, shots=1, queries=2, images_per_class=5)
    (found,) = episodes_from_torchmeta(again, tasks=1)
    assert torch.equal(found.support.expand(2, -1, -1, -1, -1), found.query)


# Theirs as ours.

CHARACTERS = ["Tibetan/character03", "Tibetan/character20", "ULOG/character01", "Tengwar/character11"]


@pytest.fixture(scope="module")
def originals(data_root: Path) -> dict[str, list[Image.Image]]:
    """Drawings of a few characters as they are published, black on white, by character."""
    found: dict[str, list[Image.Image]] = {}
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(data_root / "omniglot" / f"{part}.zip") as archive:
            for name in sorted(archive.namelist()):
                character = "/".join(name.split("/")[-3:-1])
                if character in CHARACTERS and name.endswith(".png"):
                    found.setdefault(character, []).append(Image.open(io.BytesIO(archive.read(name))).convert("L"))
    return {character: found[character] for character in CHARACTERS}


def pooled(ink: Image.Image) -> Tensor:
    """A user's transform: ink as 0 or 1, 4 x 4 max-pooled, as floats, which is what their pipelines hold."""
    bits = torch.from_numpy(np.array(ink)).float()[None] / 255
    return torch.nn.functional.max_pool2d(bits, 4)


def ours(omniglot: ImageTasks, character: str) -> set[bytes]:
    return images_of(omniglot, omniglot.class_names.index(character))


def test_a_users_learn2learn_omniglot(
    learn2learn: ModuleType, omniglot: ImageTasks, originals: dict[str, list[Image.Image]]
) -> None:
    class Users(torch.utils.data.Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return 80

        def __getitem__(self, item: int) -> tuple[Tensor, int]:
            label, drawing = divmod(item, 20)
            return pooled(originals[CHARACTERS[label]][drawing].point(lambda value: 255 - value)), label

    random.seed(1)
    data, transforms = learn2learn.data.MetaDataset(Users()), learn2learn.data.transforms
    steps = [transforms.FusedNWaysKShots(data, n=3, k=20), transforms.LoadData(data)]
    (episode,) = episodes_from_learn2learn(learn2learn.data.Taskset(data, steps, num_tasks=1), shots=8, class_ids=True)
    assert episode.class_ids is not None
    for place, label in enumerate(episode.class_ids.tolist()):
        images = torch.cat([episode.support, episode.query])[:, place]
        assert {image.numpy().tobytes() for image in images} == ours(omniglot, CHARACTERS[label])


def test_torchmetas_own_omniglot(
    torchmeta: ModuleType, omniglot: ImageTasks, originals: dict[str, list[Image.Image]], tmp_path: Path
) -> None:
    folder = tmp_path / "omniglot"  # as its download leaves it: ink is 255
    folder.mkdir()
    with h5py.File(folder / "data.hdf5", "w") as file:
        for character, images in originals.items():
            file[f"images_evaluation/{character}"] = np.stack([255 - np.array(image) for image in images])
    labels = [["images_evaluation", *character.split("/")] for character in CHARACTERS]
    (folder / "test_labels.json").write_text(json.dumps(labels))
    data = torchmeta.datasets.Omniglot(
        str(tmp_path),
        num_classes_per_task=2,
        meta_test=True,
        use_vinyals_split=False,
        transform=pooled,
        dataset_transform=torchmeta.transforms.ClassSplitter(num_support_per_class=12, num_query_per_class=8),
    )
    loader = torchmeta.utils.data.BatchMetaDataLoader(data, batch_size=3, shuffle=False)
    batch = next(iter(loader))
    episode = episode_from_torchmeta(batch)  # its labels are names
    assert (episode.shots, episode.queries, episode.tasks) == (12, 8, 6)
    pairs = [CHARACTERS[i] for pair in ((0, 1), (0, 2), (0, 3)) for i in pair]
    for place, character in enumerate(pairs):
        images = torch.cat([episode.support, episode.query])[:, place]
        assert {image.numpy().tobytes() for image in images} == ours(omniglot, character)
    with pytest.raises(ValueError, match=r"label \('images_evaluation/.*is no class number; leave class_ids out"):
        episode_from_torchmeta(batch, class_ids=True)
    data.dataset.close()


# Mistakes.


def test_mistakes_in_labelled_batches_are_named() -> None:
    images, labels = torch.zeros(6, 1, 2, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    assert episode_from_labelled(images, labels, shots=0).queries == 3
    for shots, changed, message in (
        (3, labels, r"the classes have 3 images each; with shots=3 they need one number of at least 4"),
        (1, torch.tensor([0, 0, 0, 0, 1, 1]), r"the classes have 2 or 4 images each"),
        (1, labels[:4], r"labels have shape \(4,\); 6 images need \(6,\)"),
        (-1, labels, r"shots=-1; give at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            episode_from_labelled(images, changed, shots)


def test_pixels_are_never_rounded_in_silence() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    whole = torch.tensor([0.0, 1 / 16, 1.0, 0.5]).reshape(1, 1, 2, 2).expand(2, -1, -1, -1)
    assert episode_from_labelled(whole, labels, 1, levels=17).query.flatten().tolist() == [0, 1, 16, 8]
    for images, levels, message in (
        (whole, 2, r"50.0% of the pixels are none of the 2 values k / 1 from 0 to 1. Binarise or quantise"),
        (whole * 17, 17, r"none of the 17 values|the images hold 0.0 to"),
        (torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), 2, r"the images hold 255 to 255; with levels=2 give 0 to 1"),
        (torch.full((2, 1, 2, 2), -1.0), 2, r"the images hold -1.0 to -1.0"),
        (whole * float("nan"), 2, r"100.0% of the pixels"),
        (whole, 1, r"levels=1; give at least 2"),
        (whole, 300, r"levels=300; pixels are held as 8-bit"),
    ):
        with pytest.raises(ValueError, match=message):
            episode_from_labelled(images, labels, 1, levels=levels)


def test_mistakes_in_torchmeta_batches_are_named(torchmeta: ModuleType) -> None:
    part = (torch.zeros(1, 2, 1, 2, 2), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"the batch holds 'train'; give one .*ClassSplitter"):
        episode_from_torchmeta({"train": part})
    with pytest.raises(ValueError, match=r"task 0 of the batch has other classes in 'train' than in 'test'"):
        episode_from_torchmeta(OrderedDict(train=part, test=(part[0], torch.tensor([[0, 2]]))))
    uneven = (torch.zeros(1, 3, 1, 2, 2), torch.tensor([[0, 1, 1]]))
    with pytest.raises(ValueError, match=r"unequal numbers of images"):
        episode_from_torchmeta(OrderedDict(support=part, query=uneven))
    digits = to_torchmeta(TASKS["digits"](split="train"), ways=2, shots=1, queries=1)
    with pytest.raises(ValueError, match=r"say how many tasks to draw"):
        next(episodes_from_torchmeta(digits, levels=17))


def test_an_augmented_class_has_no_class_number(torchmeta: ModuleType) -> None:
    digits = TASKS["digits"](split="train")
    mirrored = [torchmeta.transforms.HorizontalFlip()]
    data = to_torchmeta(digits, ways=2, shots=1, queries=1, categorical=False, class_augmentations=mirrored)
    assert len(data.dataset) == 12
    collate = torchmeta.utils.data.dataloader.BatchMetaCollate(torch.utils.data.default_collate)
    batch = collate([data[(0, 6)]])  # digit 0 as it is, and mirrored: two classes
    episode = episode_from_torchmeta(batch, levels=17)
    assert episode.tasks == 2
    with pytest.raises(ValueError, match=r"label \(\d, 1\) is no class number"):
        episode_from_torchmeta(batch, levels=17, class_ids=True)


# Their tasks for our training.


def taskset_of_digits(learn2learn: ModuleType, num_tasks: int = -1) -> Any:
    data, transforms = to_learn2learn(TASKS["digits"](split="train")), learn2learn.data.transforms
    steps = [transforms.NWays(data, n=2), transforms.KShots(data, k=6), transforms.LoadData(data)]
    return learn2learn.data.Taskset(data, steps, num_tasks=num_tasks)


def test_a_taskset_is_a_source_of_pure_episodes(learn2learn: ModuleType) -> None:
    source = TasksetSource(taskset_of_digits(learn2learn), levels=17, seed=3, class_ids=True)
    assert source.event_shape == (1, 8, 8)
    random.seed(5)
    expected, state = random.random(), random.getstate()
    random.seed(5)
    episode = source.episode(4, tasks=3, shots=4, queries=2)
    assert random.random() == expected, "Python's random goes on as if nothing had been drawn"
    assert random.getstate() == state
    assert (episode.shots, episode.queries, episode.tasks) == (4, 2, 3)
    require_same_classes(episode, TASKS["digits"](split="train"))  # type: ignore[arg-type]
    source.episode(9, tasks=1, shots=0, queries=1)
    fewer = source.episode(4, tasks=2, shots=1, queries=2)
    assert torch.equal(fewer.query, episode.query[:, :2])
    assert torch.equal(fewer.support, episode.support[:1, :2])
    again = TasksetSource(taskset_of_digits(learn2learn), levels=17, seed=3).episode(4, 3, 4, 2)
    assert torch.equal(again.support, episode.support)
    assert again.class_ids is None
    for other in (source.episode(5, 3, 4, 2), TasksetSource(taskset_of_digits(learn2learn), 17).episode(4, 3, 4, 2)):
        assert not torch.equal(other.support, episode.support)
    for counts, message in (
        ((3, 5, 2), r"shots=5 and queries=2 need 7 images of a class, but the Taskset draws k=6"),
        ((0, 1, 1), r"tasks=0; give at least 1"),
        ((1, 1, 0), r"queries=0; give at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            source.episode(0, *counts)


def test_a_taskset_that_draws_images_twice_is_told_so(
    learn2learn: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """``evaluate`` refuses a query that is in its own support; training on it teaches to copy."""
    data, transforms = to_learn2learn(TASKS["digits"](split="train")), learn2learn.data.transforms
    for replacement in (True, False):
        draw = [transforms.NWays(data, n=2), transforms.KShots(data, k=12, replacement=replacement)]
        if replacement:  # of few images, so that some come twice
            few = learn2learn.data.MetaDataset(torch.utils.data.Subset(data, [*range(6), *range(200, 206)]))
            draw = [transforms.NWays(few, n=2), transforms.KShots(few, k=12, replacement=True)]
        last = transforms.LoadData(few if replacement else data)
        source = TasksetSource(learn2learn.data.Taskset(data, [*draw, last]), levels=17)
        caplog.clear()
        for index in range(5):
            source.episode(index, tasks=4, shots=8, queries=4)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == replacement, said
        model = MODELS["support_mean"](event_shape=source.event_shape, levels=source.levels)
        config = TrainingConfig(steps=3, tasks=4, queries=4, shots=(8,), warmup=1)
        MetaTrainer(model, source, None, config).run()
        told = [text for text in (record.getMessage() for record in caplog.records) if text.startswith("Step 0")]
        assert len(told) == replacement
        if replacement:
            assert (
                "queries have the pixels of an image of their own support, as the Taskset draws images twice" in said[0]
            )
            assert "have the pixels of an image of their own support" in told[0]
            with pytest.raises(SupportLeakError):
                metadensity.evaluate(model, [source.episode(0, tasks=4, shots=8, queries=4)])


def test_the_trainer_takes_a_taskset(learn2learn: ModuleType) -> None:
    source = TasksetSource(taskset_of_digits(learn2learn, num_tasks=10), levels=17)
    torch.manual_seed(0)
    model = MODELS["support_mean"](event_shape=source.event_shape, levels=source.levels)
    settings: dict[str, Any] = {"steps": 30, "tasks": 4, "queries": 2, "shots": (0, 4), "learning_rate": 0.1}
    config = TrainingConfig(**settings, warmup=1, average=0.0, validate_every=30, validation_tasks=8)
    episode = source.episode(1000, tasks=8, shots=4, queries=2)
    before = metadensity.evaluate(model, [episode]).rows[0].nats_per_image
    trained = MetaTrainer(model, source, source, config).run()
    assert metadensity.evaluate(trained, [episode]).rows[0].nats_per_image < before - 5


def test_learn2learn_turns_images_as_they_are(learn2learn: ModuleType) -> None:
    task = TASKS["digits"](split="train")  # 17 levels
    data, transforms = to_learn2learn(task), learn2learn.data.transforms
    turn = learn2learn.vision.transforms.RandomClassRotation(data, [90.0])
    steps = [transforms.FusedNWaysKShots(data, n=2, k=4), transforms.LoadData(data)]
    random.seed(0)
    images, _ = learn2learn.data.Taskset(data, steps).sample()
    random.seed(0)
    episode = episode_from_labelled(*learn2learn.data.Taskset(data, [*steps, turn]).sample(), 0, task.levels)
    turned = {image.rot90(dims=(-2, -1)).numpy().tobytes() for image in images}
    assert {image.contiguous().numpy().tobytes() for image in episode.query.flatten(0, 1)} == turned


def test_torchvision_numbers_characters_as_the_disk_lists_them(
    torchmeta: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So class numbers of another's Omniglot mean nothing on another disk; ours, by names, do."""
    from torchvision.datasets import Omniglot

    for character in ("A/character01", "A/character02", "B/character01"):
        (tmp_path / "omniglot-py" / "images_background" / character).mkdir(parents=True)
    monkeypatch.setattr(Omniglot, "_check_integrity", lambda self: True)
    listed, found = os.listdir, []
    for backwards in (False, True):
        monkeypatch.setattr(os, "listdir", lambda path, way=backwards: sorted(listed(path), reverse=way))
        found.append(Omniglot(str(tmp_path))._characters)
    assert found[0] == ["A/character01", "A/character02", "B/character01"] == found[1][::-1]


def test_a_choice_of_classes_has_the_same_supports_in_every_draw(torchmeta: ModuleType, repo_root: Path) -> None:
    """What ``to_torchmeta`` says of torchmeta's shuffle; with other classes beside it a class has others."""
    found = to_torchmeta(TASKS["hershey"](split="test", size=12), ways=3, shots=2, queries=2)

    def support(*classes: int) -> tuple[int, ...]:
        return tuple(sorted(int(number) for number in found[classes]["train"].indices))

    first, draws = support(0, 5, 9), []
    for seed in range(20):
        found.seed(seed)
        draws += [support(0, 5, 9) for _ in range(10)]
    said = f"{draws.count(first)} of {len(draws)}"
    assert said == "200 of 200"
    assert f"({said} tried, torchmeta {torchmeta.__version__})" in str(to_torchmeta.__doc__)
    assert f"({said})" in (repo_root / "tasks/interop/README.md").read_text()
    assert support(0, 5, 10)[:2] != first[:2]


# Our models in their MAML.


# dynamo looks at .grad of what learn2learn's clone made.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_cannot_be_cloned_and_what_works_instead(learn2learn: ModuleType) -> None:
    digits = TASKS["digits"](split="train")
    episode = digits.episode(0, tasks=2, shots=2, queries=2)

    def made() -> Any:
        torch.manual_seed(0)
        return MODELS["conditional"](digits.event_shape, digits.levels, layers=2, planes=4, penultimate=4)

    compiled_model = torch.compile(made(), backend="eager")
    for kind in (learn2learn.algorithms.MAML, learn2learn.algorithms.MetaSGD):
        with pytest.raises(RecursionError, match=r"cannot clone a module .* torch.compile of a function"):
            kind(compiled_model, lr=0.1).clone()
    with pytest.raises(RecursionError, match="maximum recursion depth"):  # learn2learn's own: what is replaced
        learn2learn.clone_module.__wrapped__(compiled_model)
    nested = torch.nn.Sequential(compiled_model)
    with pytest.raises(RecursionError, match="cannot clone a module of"):
        learn2learn.clone_module(nested)
    learner = learn2learn.algorithms.MAML(made(), lr=0.1).clone()
    compiled = torch.compile(lambda: -learner(episode.support).log_prob(episode.query).mean(), backend="eager")
    before = compiled()
    learner.adapt(before)
    assert compiled() < before
    torch.testing.assert_close(compiled(), -learner(episode.support).log_prob(episode.query).mean())


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains_under_learn2learns_maml(learn2learn: ModuleType, name: str) -> None:
    """One second-order step with loss = -log_prob: the adapted parameters are those of plain gradient descent, and the
    meta-gradient is the derivative of the query loss along it, by finite differences in float64."""
    torch.manual_seed(0)
    digits = TASKS["digits"](split="train")
    episode = digits.episode(0, tasks=2, shots=4, queries=2)
    known = inspect.signature(MODELS[name]).parameters
    small = {key: value for key, value in {"layers": 2, "planes": 4, "penultimate": 4}.items() if key in known}
    model = MODELS[name](event_shape=digits.event_shape, levels=digits.levels, **small).double()
    with torch.no_grad():  # as after some training: initial weights of 0 would leave whole paths without a gradient
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    maml = learn2learn.algorithms.MAML(model, lr=0.05, first_order=False, allow_unused=True, allow_nograd=True)

    def adapted() -> Any:
        learner = maml.clone()
        learner.adapt(-learner(episode.support[:2]).log_prob(episode.support[2:]).mean())
        return learner

    def loss(learner: Any) -> Tensor:
        return -learner(episode.support).log_prob(episode.query).mean()

    inner = -model(episode.support[:2]).log_prob(episode.support[2:]).mean()
    slopes = torch.autograd.grad(inner, list(model.parameters()), allow_unused=True)
    learner = adapted()
    for parameter, slope, moved in zip(model.parameters(), slopes, learner.module.parameters(), strict=True):
        expected = parameter if slope is None else parameter - 0.05 * slope
        torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-9)
    loss(learner).backward()
    with torch.no_grad():
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    assert any(bool(gradient.any()) for gradient in gradients)
    along = [torch.randn_like(parameter) for parameter in model.parameters()]
    sides = []
    for sign in (1, -1):  # 1e-7, as wider ones cross the kinks of rectifiers
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), along, strict=True):
                parameter.add_(sign * 1e-7 * direction)
        sides.append(float(loss(adapted()).detach()))
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), along, strict=True):
                parameter.sub_(sign * 1e-7 * direction)
    slope = (sides[0] - sides[1]) / 2e-7
    product = float(sum((g * a).sum() for g, a in zip(gradients, along, strict=True)))
    assert product == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_meta_training_by_learn2learn_on_omniglot(learn2learn: ModuleType, data_root: Path) -> None:
    """The example of the README: attention under MAML on a Taskset; the loss of new characters falls."""
    random.seed(0)
    torch.manual_seed(0)
    l2l, transforms = learn2learn, learn2learn.data.transforms
    characters = TASKS["omniglot"](split="train", data_root=data_root, size=13)
    data = to_learn2learn(characters)
    tasks = l2l.data.Taskset(data, [transforms.FusedNWaysKShots(data, n=4, k=6), transforms.LoadData(data)])
    model = MODELS["attention"](event_shape=characters.event_shape, levels=2, layers=2, planes=8, penultimate=8)
    maml = l2l.algorithms.MAML(model, lr=0.01, allow_unused=True)
    optimizer = torch.optim.Adam(maml.parameters(), lr=0.01)

    def loss_of(episode: metadensity.Episode) -> Tensor:
        learner = maml.clone()
        learner.adapt(-learner(episode.support[:2]).log_prob(episode.support[2:]).mean())
        loss: Tensor = -learner(episode.support).log_prob(episode.query).mean()
        return loss

    test = TASKS["omniglot"](split="test", data_root=data_root, size=13).episode(0, tasks=16, shots=4, queries=2)
    before = float(loss_of(test).detach())
    for episode in episodes_from_learn2learn(tasks, shots=4, tasks=40):
        optimizer.zero_grad()
        loss_of(episode).backward()
        optimizer.step()
    after = float(loss_of(test).detach())
    assert after < 0.8 * before

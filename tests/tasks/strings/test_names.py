"""Names: which lists there are, how a string is held, and what counts of it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from metadensity.models import MODELS
from tasks import SPLITS, TASKS, DataError, ImageTasks, StoredEpisodes
from tasks.data.notices import SAID
from tasks.strings import names, spelling


def make(split: str = "test", **options: Any) -> ImageTasks:
    task = TASKS["names"](split=split, **options)
    assert isinstance(task, ImageTasks)
    return task


def spelt(task: ImageTasks, ids: Any) -> list[str]:
    alphabet = task.recipe["alphabet"]
    return ["".join(alphabet[c] for c in row[0].tolist() if c < len(alphabet)) for row in task.pixels(ids)]


def test_lists_come_back_as_they_are_in_faker() -> None:
    import unicodedata

    from faker.providers.person.da_DK import Provider

    task = make()
    assert task.group_names == ["da", "fi", "hr", "lt", "lv", "ro", "tr", "yo"]
    assert (task.classes, task.levels, task.event_shape) == (23, 155, (1, 16))
    number = task.class_names.index("da DK last names")
    expected = {unicodedata.normalize("NFC", word) for word in Provider.last_names}
    assert spelt(task, np.flatnonzero(task.labels == number)) == sorted(expected)


def test_no_name_stands_in_two_splits_and_test_keeps_all() -> None:
    words = {split: set(spelt(task, range(task.images))) for split in SPLITS for task in [make(split)]}
    assert not words["train"] & words["test"]
    assert not words["train"] & words["validation"]
    assert not words["validation"] & words["test"]
    assert {"Anna", "Liisa", "Ion"} <= words["test"]


def test_what_follows_the_end_costs_nothing_whatever_the_model() -> None:
    """The score of a name is that of its beginning up to the end, and the supports need no lengths."""
    task = make()
    end = task.levels - 1
    episode = task.episode(0, tasks=4, shots=2, queries=3)
    assert episode.support_lengths is None
    assert episode.query_lengths is not None
    for query, count in zip(episode.query.flatten(0, 1), episode.query_lengths.flatten(), strict=True):
        word = query[0].tolist()
        assert end not in word[: count - 1]
        assert all(level == end for level in word[count - 1 :])
    stored = StoredEpisodes.build(task, [1], 3, limit=23)
    batch = next(iter(stored.episodes(task, 1, 99)))
    assert batch.support_lengths is None
    assert batch.query_lengths is not None
    assert torch.equal(batch.query_lengths, task.lengths(batch.query_ids))  # type: ignore[arg-type]
    model = MODELS["conditional"](task.event_shape, task.levels, layers=2, planes=4, penultimate=4)
    loss = model.loss(episode.support, episode.query, query_lengths=episode.query_lengths)
    assert loss.isfinite().all()


def test_long_names_are_left_out_and_said() -> None:
    task = make(length=8)
    assert max(map(len, spelt(task, range(task.images)))) == 8
    assert any("names of more than 8 characters are left out" in line for line in SAID)
    whole = task.lengths(range(task.images))
    assert whole is not None
    assert int(whole.max()) == 8  # a name of 8 has no room for its end
    with pytest.raises(DataError, match="no list has 40 names of 2 characters at most"):
        make(length=2)


def test_other_lists_and_no_faker_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="length=0; give at least 1"):
        make(length=0)
    monkeypatch.setattr(names, "_lists", lambda: {"da_DK last_names": ["Holm"]})
    with pytest.raises(DataError, match=r"Faker's lists have checksum .* pip install faker==40\.63\.0"):
        make()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "faker.providers.person", None)
    with pytest.raises(DataError, match=r"needs the word lists of Faker\. Install them: pip install faker=="):
        make()


def test_strings_with_something_after_their_end_are_refused() -> None:
    image = np.array([[[0, 2, 1]]], dtype=np.uint8)
    arguments: dict[str, Any] = {"labels": [0], "class_names": ["a"], "group_names": ["a"], "class_group": [0]}
    with pytest.raises(ValueError, match="something follows the end=2 of a string"):
        ImageTasks("x", "train", 0, images=image, event_shape=(1, 3), levels=3, recipe={}, end=2, **arguments)


def test_styles_are_further_lists_to_train_on_in_spellings_of_their_own() -> None:
    plain, styled = make("train"), make("train", styles=2)
    assert (styled.classes, styled.images) == (3 * plain.classes, 3 * plain.images)
    assert torch.equal(styled.pixels(range(plain.images)), plain.pixels(range(plain.images)))
    assert styled.class_names[plain.classes] == f"{plain.class_names[0]} style 1"
    assert (styled.class_group == np.tile(plain.class_group, 3)).all()
    alphabet, changed = plain.recipe["alphabet"], []
    for number in range(plain.classes):
        before, after = (
            spelt(task, np.flatnonzero(task.labels == place))
            for task, place in ((plain, number), (styled, plain.classes + number))
        )
        pairs = {pair for words in zip(before, after, strict=True) for pair in zip(*words, strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}), "a letter is lost"
        assert {other for _, other in pairs} <= set(alphabet)
        assert all(one == other for one, other in pairs if not one.isalpha())
        changed.append(sum(one != other for one, other in pairs))
    assert np.mean([count > 0 for count in changed]) > 0.9
    assert max(changed) > 20
    assert make("validation", styles=2).fingerprint == make("validation").fingerprint
    assert "styles" not in plain.recipe, "recipes of earlier versions stay equal"
    with pytest.raises(ValueError, match="styles=-1; give at least 0"):
        make("train", styles=-1)


def test_a_spelling_is_a_function_of_its_key() -> None:
    words = ["Anna", "Liisa", "Sigríður"]
    found = [spelling.respelt(words, "AaiLndsSgrðuí", str(key)) for key in range(200)]
    assert found[3] == spelling.respelt(words, "AaiLndsSgrðuí", "3")
    assert len({tuple(each) for each in found}) > 100
    vowels = {"a", "i", "u", "í"}
    for each in found:
        for one, other in zip("".join(words), "".join(each), strict=True):
            assert (one in vowels) == (other in vowels)
            assert one.isupper() == other.isupper()

"""Configurations of earlier versions are read under the current names of their settings."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import evaluate
from experiments.recording.comparability import require_same_pixels
from experiments.recording.flat_configs import current_names, differences, flatten

OLD = {"task": {"name": "folder", "least": 4}, "drawn": 30, "least": 1}
NEW = {"task": {"name": "folder", "min_images": 4}, "generated_episodes": 30, "least": 1}


def test_earlier_names_become_the_current_ones() -> None:
    assert current_names(OLD) == NEW
    assert flatten(OLD) == flatten(NEW) == flatten(flatten(OLD))
    assert flatten({"task.least": 4}) == {"task.min_images": 4}
    assert differences(OLD, NEW) == {}
    assert differences(OLD, {**NEW, "task": {"name": "folder", "min_images": 5}}) == {"task.min_images": (4, 5)}


@pytest.mark.parametrize("config", [{"least": 2, "min_images": 4}, {"min_images": 4, "least": 2}])
def test_the_current_name_counts_where_both_are_given(config: dict[str, int]) -> None:
    assert current_names({"task": config}) == {"task": {"min_images": 4}}


def test_runs_of_both_versions_compare() -> None:
    require_same_pixels(OLD, NEW)
    with pytest.raises(ValueError, match="min_images: 4 and 5"):
        require_same_pixels(OLD, {"task": {"name": "folder", "min_images": 5}})


@pytest.mark.parametrize("given", [{"drawn": 7}, {"generated_episodes": 7}])
def test_a_setting_may_be_given_by_its_earlier_name(given: dict[str, Any]) -> None:
    config = evaluate.experiment._create_run("print_config", given).config
    assert config["generated_episodes"] == 7
    assert "drawn" not in config

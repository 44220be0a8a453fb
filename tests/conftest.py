"""Settings and fixtures that all tests share."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

# As in experiments/__init__.py, before torch is imported: spinning threads crawl on a machine that is busy elsewhere.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# Processes that share the machine (pytest -n) take one thread each, and so do the processes that tests start: of two
# beside another test, each would wait most of the time for the other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

# The checks that suites share say on failure what was compared, as tests themselves do.
pytest.register_assert_rewrite("metadensity.testing", "tasks.testing")

# The same examples in every run: a failure on one machine is seen on all. No deadline, as machines differ in speed.
hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None)
hypothesis.settings.load_profile("deterministic")

# The same number of threads everywhere, as sums depend on it; OMP_NUM_THREADS may ask for fewer.
torch.set_num_threads(min(2, torch.get_num_threads()))


# What takes a quarter of a minute and more. Of one module they stay together, as they share what its fixtures make.
LONGEST = (
    *(
        "test_every_command_runs",
        "test_the_first_program",
        "test_the_examples_inherit",
        "test_rematerialisation_bounds",
    ),
    *("under_sanitizers", "test_it_runs_without_any_run", "test_killed_at_any_moment", "test_memory_is_flat"),
    *("test_every_table_can_be_made", "test_a_part_runs_and_is_recorded", "test_mypy"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin: of two processes neither is left waiting for one of them at the end."""
    items.sort(key=lambda item: not item.name.startswith(LONGEST) and not item.name.endswith(LONGEST))


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the garbage collector need not go through its 600,000 objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    """What one test, or a package that it uses, does to loggers is not seen by the next: they warn as at first.

    ``logging.config`` of another package, for one, disables all loggers that there are.
    """
    logging.disable(logging.NOTSET)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("metadensity", "tasks", "experiments"):
            logger.disabled, logger.propagate = False, True
            if logger.level:
                logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder named by METADENSITY_DATA, which holds the published data sets; skips where it is not set."""
    given = os.environ.get("METADENSITY_DATA")
    if not given:
        pytest.skip(
            "METADENSITY_DATA is not set: it names the folder that holds omniglot/images_background.zip and so on"
        )
    root = Path(given)
    assert root.is_dir(), f"METADENSITY_DATA={given} is no folder; name one that exists, or unset it"
    return root


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder of the repository."""
    return Path(__file__).resolve().parents[1]

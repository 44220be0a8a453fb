"""The model and the task keep what all of metadensity's keep: run ``pytest``."""

from collections.abc import Callable

import pytest
from bars import bars
from counted_pixels import CountedPixels

from metadensity.testing import model_contracts
from tasks.testing import task_contracts


@pytest.mark.parametrize("contract", [*model_contracts(CountedPixels), *task_contracts(bars)], ids=str)
def test_contract(contract: Callable[[], None]) -> None:
    contract()

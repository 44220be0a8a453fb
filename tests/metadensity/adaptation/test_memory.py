"""Five second-order steps of the paper's net on 16 tasks fit in 4 GiB, measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys

GIB = 2**30
PROGRAM = """
import resource, sys
import torch
from metadensity.models import MAMLPixelCNN

tasks, rematerialise = int(sys.argv[1]), sys.argv[2] == "True"
torch.manual_seed(0)
model = MAMLPixelCNN((1, 26, 26), 2, steps=5, rematerialise=rematerialise)
support, query = torch.randint(2, (4, tasks, 1, 26, 26)), torch.randint(2, (1, tasks, 1, 26, 26))
(-model(support).log_prob(query).mean()).backward()
assert all(parameter.grad is not None for parameter in model.parameters())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_memory(tasks: int, rematerialise: bool) -> int:
    """The most memory, in bytes, that a meta-gradient of ``tasks`` tasks with four supports each needs."""
    command = [sys.executable, "-c", PROGRAM, str(tasks), str(rematerialise)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_rematerialisation_bounds_the_memory() -> None:
    """The control: without it four tasks need more than all sixteen with it."""
    all_tasks = peak_memory(16, rematerialise=True)
    assert all_tasks < 4 * GIB
    assert peak_memory(4, rematerialise=False) > 1.5 * all_tasks

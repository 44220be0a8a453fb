"""A Slurm of two nodes on this machine, on the loopback device and in a temporary folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def until(true: Callable[[], bool], what: Callable[[], str], seconds: float = 240) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:.0f} s: {what()}"
        time.sleep(0.05)


class Slurm:
    """The commands of a running Slurm."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self.folder, self.programs = folder, programs

    def __call__(self, program: str, *arguments: str) -> str:
        """What a command says."""
        done = subprocess.run([self.programs[program], *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (program, arguments, done.stderr)
        return done.stdout

    def state(self, job: str) -> str:
        """Of a job, such as PENDING; of those that ended as well."""
        return self("scontrol", "show", "job", "-o", job).partition("JobState=")[2].split()[0]

    def log(self) -> str:
        """The ends of what the daemons say."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.log"))

    def wait(self, job: str, state: str) -> None:
        """Until a job is in a state."""
        until(lambda: self.state(job) == state, lambda: f"{self.state(job)}, {self.log()}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A running Slurm; skips where it is not installed, which .ci/run sees to."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    programs = {name: found for name in PROGRAMS if (found := shutil.which(name, path=path))}
    if absent := set(PROGRAMS) - programs.keys():
        pytest.skip(f"no {sorted(absent)} here (Debian and Ubuntu: apt install slurmctld slurmd slurm-client)")
    folder = tmp_path_factory.mktemp("slurm")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    configuration = CONFIGURATION.format(host=host, ports=ports, user=getpass.getuser(), folder=folder)
    (folder / "slurm.conf").write_text(configuration)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", path)
        commands = [["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
        daemons = [
            subprocess.Popen(
                [programs[name], *more], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for name, *more in commands
        ]
        cluster = Slurm(folder, programs)
        try:

            def up() -> bool:
                shown = [programs["scontrol"], "show", "nodes", "-o"]
                return subprocess.run(shown, capture_output=True, text=True).stdout.count("State=IDLE") == 2

            until(up, cluster.log, 60)
            yield cluster
        finally:
            subprocess.run([programs["scancel"], "--user", getpass.getuser()], capture_output=True)
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in reversed(daemons):
                try:
                    daemon.wait(15)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


HOLDING = '''
"""experiments.sweep, whose training waits at a step for as long as there is a file of the step's name."""

import os, runpy, sys, time
from pathlib import Path

from experiments.studies import units

note_run = units.Lease.note_run


def noted(lease, run):
    from experiments.recording.folder_observer import FolderObserver

    checkpoint = FolderObserver.checkpoint

    def held(observer, trainer, best):
        checkpoint(observer, trainer, best)
        while not best and not trainer.stopping and Path(os.environ["HOLDS"], str(trainer.step)).exists():
            time.sleep(0.02)

    FolderObserver.checkpoint = held
    note_run(lease, run)


units.Lease.note_run = noted
sys.argv = sys.argv[2:]  # of: python -m experiments.sweep ...
runpy.run_module("experiments.sweep", run_name="__main__", alter_sys=True)
'''


@pytest.fixture
def holding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A Python for batch scripts whose training can be made to wait, and the folder of the files that do it."""
    (tmp_path / "holding.py").write_text(HOLDING)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore {tmp_path / "holding.py"} "$@"\n')
    python.chmod(0o755)
    holds = tmp_path / "holds"
    holds.mkdir()
    monkeypatch.setenv("HOLDS", str(holds))
    return str(python), holds

"""A SLURM of one node on loopback, without accounting: real daemons, as children of ours."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PACKAGES = "apt-get install slurmctld slurmd slurm-client munge"

SLURM_CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=20
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
GresTypes=gpu
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16384 Gres=gpu:2
PartitionName=small Nodes=localhost Default=YES MaxTime=60 State=UP
"""
"""A requeued job waits for `cred_expire` seconds; one that is cancelled has `KillWait`."""


def missing() -> str:
    """Return why SLURM cannot be brought up here, or nothing."""
    if os.geteuid():
        return "the daemons of SLURM need root"
    absent = [name for name in (*DAEMONS, "sbatch") if shutil.which(name) is None]
    return f"no {', '.join(absent)} here: {PACKAGES}" if absent else ""


def free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Slurm:
    """A running SLURM, asked by its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __call__(self, *command: str) -> str:
        """Return what a command of SLURM prints."""
        env = os.environ | self.environment
        return subprocess.run(
            command, env=env, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self) -> dict[str, str]:
        """Return the states of the jobs that are queued or running, by id."""
        lines = self("squeue", "--noheader", "--array", "--format=%i %T").split("\n")
        return dict(line.split() for line in lines if line)


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Start munged, slurmctld and slurmd in a folder; end these processes with the body."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for number in range(2):  # /dev/null by other names
        os.mknod(folder / f"gpu{number}", 0o020666, os.makedev(1, 3))
    host = socket.gethostname().partition(".")[0]
    text = SLURM_CONF.format(host=host, ports=free_ports(2), folder=folder)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    munge = {
        option: f"--{option}-file={folder}/munge.{option}"
        for option in ("key", "log", "seed", "pid")
    }
    slurm = Slurm(folder)
    with ExitStack() as daemons:

        def start(*command: str) -> None:
            log = daemons.enter_context((folder / f"{command[0]}.log").open("w"))
            env = os.environ | slurm.environment
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
            daemons.callback(_end, process)

        socket_file = f"--socket={folder}/munge.socket"
        start("munged", "--foreground", "--force", socket_file, *munge.values())
        _wait_for(["munge", "--no-input", socket_file], slurm.environment)
        start("slurmctld", "-D")
        start("slurmd", "-D", "-N", "localhost")
        _wait_for(["srun", "--time=1", "true"], slurm.environment)
        try:
            yield slurm
        finally:
            slurm("scancel", "--user=root")
            end = time.monotonic() + 30
            while slurm.jobs() and time.monotonic() < end:
                time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Repeat a command until it succeeds."""
    for _ in range(100):
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True
        )
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{command[0]}: {done.stderr}")

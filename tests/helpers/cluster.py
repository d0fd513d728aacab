"""A real Slurm cluster on this machine: two nodes with pretend GPUs, accounting in MariaDB, a partition that preempts.

For root, with Debian's packages slurm-wlm, slurmdbd, mariadb-server and munge. Everything that a cluster has lies in
its own folder (keys, sockets, the database), and its ports are free ones: several clusters run side by side. To try
something in one by hand:

    python -m tests.helpers.cluster COMMAND...
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.helpers.waiting import until

T = TypeVar("T")

# Addresses, since names would need lines in /etc/hosts for the processes of a job to find each other.
NODES = ("127.0.0.1", "127.0.0.2")
GRACE_SECONDS = 20  # between the signal of a preemption and the end
COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "srun", "munged", "mariadbd", "mariadb-install-db", "mariadb-admin")
ATTEMPTS = 3  # to start: a port that was free may be taken by the time a daemon asks for it

# Job numbers begin anywhere, since the processes of `srun` meet at a port that follows from their job's number.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={controller_port}
FirstJobId={first_job}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounts_port}
AccountingStoragePass={folder}/munge.socket
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=1
KillWait=5
MinJobAge=3600
MpiDefault=none
MailProg=/bin/true
MaxArraySize=2001
MaxJobCount=20000
PartitionName=train Nodes={nodes} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} State=UP
PartitionName=urgent Nodes={nodes} PriorityTier=10 PreemptMode=OFF State=UP
"""

ACCOUNTS = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={accounts_port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
"""

# Waits until the process that started it closes its input, or is gone, then ends what the cluster started.
REAPER = "import sys; from tests.helpers.cluster import reap; sys.stdin.read(); reap(sys.argv[1])"


def is_installed() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in COMMANDS)


@dataclass(frozen=True)
class Cluster:
    folder: Path
    environment: dict[str, str]  # in which Slurm's commands reach it
    waiting: dict[str, float] = field(default_factory=dict)  # jobs, since when, for `wait`

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert not (check and done.returncode), f"{command}: {done.stderr}"
        return done.stdout

    def start_controller(self) -> None:
        self.run("slurmctld")
        until(lambda: "UP" in self.run("scontrol", "ping", check=False), "the controller answers")

    def stop_controller(self) -> None:
        pid = int((self.folder / "slurmctld.pid").read_text())
        self.run("kill", str(pid))
        until(lambda: not Path(f"/proc/{pid}").exists(), "the controller has ended")

    def queue(self) -> list[tuple[str, str]]:
        """Each job's number and state."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return [(job, state) for job, state in (line.split() for line in lines)]

    def wait(self, holds: Callable[[], T], what: str, seconds: float = 600) -> T:
        """As `until`, and lets requeued jobs begin meanwhile, which Slurm would keep waiting for two minutes.

        Once a second, since to ask Slurm is work for the cores that the jobs are on.
        """

        def checked() -> T:
            self._hasten()
            return holds()

        return until(checked, what, seconds, every=1)

    def _hasten(self) -> None:
        # Not at once: within a second of its first start's end a node takes the second for that, and Slurm kills it.
        now = time.monotonic()
        pending = self.run("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split()
        for job in self.waiting.keys() - set(pending):
            del self.waiting[job]
        for job in pending:
            if now - self.waiting.setdefault(job, now) > 2:
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def wait_until_empty(self, seconds: float = 600) -> None:
        self.wait(lambda: not self.queue(), "the queue is empty", seconds)

    def clear(self) -> None:
        """No job, and every node at work."""
        self.run("scancel", "--user=root", check=False)
        until(lambda: not self.queue(), "the queue is empty")
        self.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME", check=False)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        def idle() -> bool:
            states = self.run("sinfo", "--noheader", "--Node", "--partition=train", "--format=%T", check=False)
            return states.split() == ["idle"] * len(NODES)

        until(idle, "the nodes are idle")

    def processes(self, *marks: str) -> list[int]:
        """Those that the cluster started, its daemons and what runs in its jobs, with these in their environment."""
        return processes_of(self.folder, *marks)


def processes_of(folder: Path | str, *marks: str) -> list[int]:
    """The processes of the cluster in a folder: its configuration is in their environment."""
    wanted = {f"SLURM_CONF={folder}/slurm.conf".encode(), *(mark.encode() for mark in marks)}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


def reap(folder: str) -> None:
    """Kills the processes of a cluster, and removes its folder."""
    while alive := [pid for pid in processes_of(folder) if pid != os.getpid()]:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster with its files in a folder of its own; both are gone afterwards, also where this process is killed."""
    for attempt in range(ATTEMPTS):
        with _reaped_folder() as folder:
            try:
                started = _start(folder)
            except (AssertionError, TimeoutError):
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            yield started
            return


@contextmanager
def _reaped_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="roadmap-slurm-"))
    root = Path(__file__).parent.parent.parent
    # In a session of its own: a terminal's Ctrl-C is not for it.
    reaper = subprocess.Popen(
        [sys.executable, "-c", REAPER, str(folder)], cwd=root, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield folder
    finally:
        assert reaper.stdin is not None
        reaper.stdin.close()
        reaper.wait(timeout=120)


def _start(folder: Path) -> Cluster:
    _configure(folder)
    addresses = {"SLURM_CONF": f"{folder}/slurm.conf", "MYSQL_UNIX_PORT": f"{folder}/store.socket"}
    found = Cluster(folder, os.environ | addresses)
    _start_munge(found)
    _start_store(found)
    found.run("slurmdbd")
    until(lambda: "Cluster" in found.run("sacctmgr", "--immediate", "show", "cluster", check=False), "accounts")
    found.run("sacctmgr", "--immediate", "add", "cluster", "test")
    found.start_controller()
    for node in NODES:
        found.run("slurmd", "-N", node)
    found.wait_for_nodes()
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _configure(folder: Path) -> None:
    host = socket.gethostname().split(".")[0]
    controller_port, accounts_port, *node_ports = _free_ports(2 + len(NODES))
    text = CONFIGURATION.format(
        folder=folder,
        host=host,
        controller_port=controller_port,
        accounts_port=accounts_port,
        first_job=random.randrange(1000, 1_000_000),
        nodes=",".join(NODES),
        grace=GRACE_SECONDS,
    )
    for node, port in zip(NODES, node_ports, strict=True):
        (folder / f"spool-{node}").mkdir()
        address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
        text += f"NodeName={node} {address} CPUs=8 RealMemory=16000 Gres=gpu:4 State=UNKNOWN\n"
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(text)
    for i in range(4):
        (folder / f"gpu{i}").touch()
    gpus = f"NodeName={','.join(NODES)} Name=gpu File={folder}/gpu[0-3]\n"
    (folder / "gres.conf").write_text(f"AutoDetect=off\n{gpus}")
    accounts = folder / "slurmdbd.conf"
    accounts.write_text(ACCOUNTS.format(folder=folder, accounts_port=accounts_port))
    accounts.chmod(0o600)


def _start_store(found: Cluster) -> None:
    """MariaDB, for the accounts."""
    folder = found.folder
    data, socket_path = f"--datadir={folder}/store", f"--socket={folder}/store.socket"
    install = ["mariadb-install-db", "--no-defaults", "--user=root", data, "--auth-root-authentication-method=normal"]
    found.run(*install)
    options = [data, socket_path, "--skip-networking", f"--pid-file={folder}/store.pid"]
    server = ["mariadbd", "--no-defaults", "--user=root", *options, "--innodb-buffer-pool-size=64M"]
    with (folder / "store.log").open("wb") as log:
        subprocess.run(["setsid", "--fork", *server], env=found.environment, stdout=log, stderr=log, check=True)
    ping = ["mariadb-admin", "--no-defaults", "--user=root", socket_path, "ping"]
    until(lambda: subprocess.run(ping, capture_output=True).returncode == 0, "the database answers")


def _start_munge(found: Cluster) -> None:
    """Slurm's authentication, with a key of this cluster's own."""
    folder = found.folder
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    options = [f"--{option}={folder / name}" for option, name in (files | {"seed-file": "munge.seed"}).items()]
    found.run("munged", "--force", *options)  # by force: it would rather not keep its files below /tmp


if __name__ == "__main__":
    with cluster() as running:
        sys.exit(subprocess.run(sys.argv[1:], env=running.environment).returncode)

"""A real Slurm cluster on this machine: two nodes with pretend GPUs, accounting in MariaDB, a partition that preempts.

For root, with Debian's packages slurm-wlm, slurmdbd, mariadb-server and munge.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
CONTROLLER_PORT, NODE_PORT = 26817, 27001  # and the next
ACCOUNTS_PORT, STORE_PORT = 26818, 26819
GRACE_SECONDS = 20  # between the signal of a preemption and the end
COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "srun", "munged", "mariadbd")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounts_port}
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
DbdHost=localhost
DbdPort={accounts_port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={store_port}
StorageUser=slurm
StoragePass=slurm
"""

GRANTS = """
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
CREATE USER 'slurm'@'localhost' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';
"""


def is_installed() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in COMMANDS)


@dataclass(frozen=True)
class Cluster:
    folder: Path
    environment: dict[str, str]  # in which Slurm's commands reach it
    waiting: dict[str, float] = field(default_factory=dict)  # jobs, since when, for `hasten`

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert not (check and done.returncode), f"{command}: {done.stderr}"
        return done.stdout

    def start_controller(self) -> None:
        self.run("slurmctld")
        until(lambda: "UP" in self.run("scontrol", "ping", check=False), "the controller answers")

    def stop_controller(self) -> None:
        pid = int((self.folder / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), "the controller has ended")

    def queue(self) -> list[tuple[str, str]]:
        """Each job's number and state."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return [(job, state) for job, state in (line.split() for line in lines)]

    def hasten(self) -> None:
        """Lets requeued jobs begin that Slurm would keep waiting for two minutes, but not at once.

        Within a second of its first start's end a node takes the second for that, and Slurm kills the job.
        """
        now = time.monotonic()
        pending = self.run("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split()
        for job in self.waiting.keys() - set(pending):
            del self.waiting[job]
        for job in pending:
            if now - self.waiting.setdefault(job, now) > 3:
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def wait_until_empty(self, seconds: float = 300) -> None:
        def empty() -> bool:
            self.hasten()
            return not self.queue()

        until(empty, "the queue is empty", seconds, every=1)

    def clear(self) -> None:
        """No job, and every node at work."""
        self.run("scancel", "--user=root", check=False)
        until(lambda: not self.queue(), "the queue is empty")
        self.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME", check=False)
        _wait_for_nodes(self)


def until(holds, what: str, seconds: float = 60, every: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(every)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Starts the cluster, with its files in a folder."""
    folder.chmod(0o755)  # the database's own user passes through
    host = socket.gethostname().split(".")[0]
    hosts = Path("/etc/hosts")
    if f" {' '.join(NODES)}" not in hosts.read_text():
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {' '.join(NODES)}\n")
    _configure(folder, host)
    found = Cluster(folder, os.environ | {"SLURM_CONF": str(folder / "slurm.conf")})
    store = _start_store(folder)
    try:
        _start_munge()
        found.run("slurmdbd")
        until(lambda: "Cluster" in found.run("sacctmgr", "--immediate", "show", "cluster", check=False), "accounts")
        found.run("sacctmgr", "--immediate", "add", "cluster", "test")
        found.start_controller()
        for node in NODES:
            found.run("slurmd", "-N", node)
        _wait_for_nodes(found)
        yield found
    finally:
        found.run("scancel", "--user=root", check=False)
        for pid_file in folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
        store.terminate()
        store.wait()


def _configure(folder: Path, host: str) -> None:
    text = CONFIGURATION.format(
        folder=folder,
        host=host,
        port=CONTROLLER_PORT,
        accounts_port=ACCOUNTS_PORT,
        nodes=",".join(NODES),
        grace=GRACE_SECONDS,
    )
    for i, node in enumerate(NODES):
        (folder / f"spool-{node}").mkdir(parents=True)
        address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={NODE_PORT + i}"
        text += f"NodeName={node} {address} CPUs=8 RealMemory=16000 Gres=gpu:4 State=UNKNOWN\n"
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(text)
    for i in range(4):
        (folder / f"gpu{i}").touch()
    gpus = f"NodeName={','.join(NODES)} Name=gpu File={folder}/gpu[0-3]\n"
    (folder / "gres.conf").write_text(f"AutoDetect=off\n{gpus}")
    accounts = folder / "slurmdbd.conf"
    accounts.write_text(ACCOUNTS.format(folder=folder, accounts_port=ACCOUNTS_PORT, store_port=STORE_PORT))
    accounts.chmod(0o600)


def _start_store(folder: Path) -> subprocess.Popen[bytes]:
    """MariaDB, for the accounts."""
    data = folder / "store"
    data.mkdir()
    shutil.chown(data, "mysql", "mysql")
    install = ["mariadb-install-db", "--user=mysql", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run(install, capture_output=True, check=True)
    socket_path = f"--socket={data}/socket"
    where = [f"--datadir={data}", socket_path, f"--port={STORE_PORT}", "--bind-address=127.0.0.1"]
    server = ["mariadbd", "--no-defaults", "--user=mysql", *where, "--innodb-buffer-pool-size=64M"]
    with (folder / "store.log").open("wb") as log:
        store = subprocess.Popen(server, stdout=log, stderr=log)
    client = ["--no-defaults", "--user=root", socket_path]
    ping = ["mariadb-admin", *client, "ping"]
    until(lambda: subprocess.run(ping, capture_output=True).returncode == 0, "the database answers")
    subprocess.run(["mariadb", *client, f"--execute={GRANTS}"], check=True, capture_output=True)
    return store


def _start_munge() -> None:
    if subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode == 0:
        return
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
    for place in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", "-R", "munge:", place], check=True)
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged"], check=True)


def _wait_for_nodes(found: Cluster) -> None:
    def idle() -> bool:
        states = found.run("sinfo", "--noheader", "--Node", "--partition=train", "--format=%T", check=False).split()
        return states == ["idle"] * len(NODES)

    until(idle, "the nodes are idle")

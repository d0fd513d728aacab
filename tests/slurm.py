"""A real Slurm cluster on this machine, of two nodes: for root, with Debian's packages slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("n1", "n2")
CONTROLLER_PORT, NODE_PORT = 26817, 27001  # and the next

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
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MpiDefault=none
MailProg=/bin/true
PartitionName=train Nodes={nodes} Default=YES State=UP
"""


def is_installed() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "srun", "munged"))


@contextmanager
def cluster(folder: Path):
    """Starts the cluster, with its files in a folder, and gives the environment in which Slurm's commands reach it."""
    host = socket.gethostname().split(".")[0]
    hosts = Path("/etc/hosts")
    if f" {' '.join(NODES)}" not in hosts.read_text():
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {' '.join(NODES)}\n")
    _start_munge()
    configuration = CONFIGURATION.format(folder=folder, host=host, port=CONTROLLER_PORT, nodes=",".join(NODES))
    for i, node in enumerate(NODES):
        (folder / f"spool-{node}").mkdir(parents=True)
        configuration += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={NODE_PORT + i} CPUs=4\n"
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(configuration)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    try:
        subprocess.run(["slurmctld"], env=environment, check=True)
        for node in NODES:
            subprocess.run(["slurmd", "-N", node], env=environment, check=True)
        _wait_for_nodes(environment)
        yield environment
    finally:
        for pid_file in folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)


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


def _wait_for_nodes(environment: dict[str, str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        listed = subprocess.run(["sinfo", "-hN", "-o", "%T"], env=environment, capture_output=True, text=True).stdout
        if listed.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.5)
    raise TimeoutError(f"the nodes are not idle: {listed}")

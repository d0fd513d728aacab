"""The tests' own Slurm cluster: it keeps to itself, and ends with whoever started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.cluster import is_installed, processes_of
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow

COMMAND = 'sbatch --wrap "sleep 3600" --output /dev/null && echo "$SLURM_CONF" && sleep 3600'


def start():
    if not is_installed():
        pytest.skip("Slurm and its accounting are not installed, or this is not root's")
    command = [sys.executable, "-m", "tests.helpers.cluster", "sh", "-c", COMMAND]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_clusters_stand_side_by_side_and_nothing_is_left_of_one_that_is_killed():
    hosts = Path("/etc/hosts").read_text()
    clusters = [start() for _ in range(2)]
    try:
        for cluster in clusters:
            assert cluster.stdout.readline().startswith("Submitted batch job")
        one, other = (Path(cluster.stdout.readline().strip()).parent for cluster in clusters)
        assert one != other and Path("/etc/hosts").read_text() == hosts
        clusters[0].kill()
        until(lambda: not one.exists(), "the folder of the killed one is gone")
        assert not processes_of(one)  # neither daemons nor the job
        assert processes_of(other) and other.exists()
    finally:
        for cluster in clusters:
            cluster.kill()
            cluster.communicate()
    until(lambda: not other.exists(), "the folder of the other is gone")
    assert not processes_of(other)

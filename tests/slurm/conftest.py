"""A real SLURM for the tests: brought up on this machine, taken down at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

DEVCLUSTER = Path(__file__).parents[2] / "slurm" / "devcluster"
SLOW = Path(__file__).parent / "slow"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


class Cluster:
    """One emulated cluster; its variables are in the environment as long as it is entered."""

    def __init__(self, folder: Path, port: int, **settings: object) -> None:
        self.environment = {
            "SLURM_DEV_DIR": str(folder),
            "SLURM_DEV_PORT": str(port),
            **{f"SLURM_DEV_{name}": str(value) for name, value in settings.items()},
        }
        self.conf = folder / "slurm.conf"

    def call(self, verb: str) -> None:
        done = subprocess.run(
            [DEVCLUSTER, verb],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *command: object) -> str:
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def wait_until_idle(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while self.ask("squeue", "--noheader").strip():
            assert time.monotonic() < end, self.ask("squeue")
            time.sleep(0.3)


def entered(cluster: Cluster):
    if shutil.which("sbatch") is None or shutil.which("slurmctld") is None:
        pytest.skip("needs slurmctld slurmd slurm-client munge: tools/system_packages.sh")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start SLURM's daemons")
    before = os.environ.get("SLURM_CONF")
    cluster.call("up")
    os.environ["SLURM_CONF"] = str(cluster.conf)
    yield cluster
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before
    cluster.call("purge")


def number_of_worker() -> int:
    """Return 0, 1, ...: each process that runs tests has clusters of its own."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with four fake GPUs each, and sacct where the database is installed."""
    n = number_of_worker()
    yield from entered(Cluster(Path(f"/tmp/phasezoo-slurm-test-{n}"), 17200 + 100 * n))


@pytest.fixture(scope="module")
def bare_cluster():
    """The same without accounting, and with arrays of at most five."""
    n = number_of_worker()
    folder = Path(f"/tmp/phasezoo-slurm-bare-{n}")
    yield from entered(Cluster(folder, 17250 + 100 * n, ACCT="none", MAX_ARRAY=5))

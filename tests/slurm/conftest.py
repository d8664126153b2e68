"""The cluster that tests marked `slurm` run on: the testbed, started if it is not up.

Without Slurm's programs those tests skip; with PARAMZ_REQUIRE_SLURM=1, as in CI, they fail.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from paramz.slurm import Profile, queue, submit
from paramz.slurm.live import job_name
from paramz.sweeps import Store, Sweep

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "slurm" / "testbed"
FUNCTIONS = Path(__file__).parent / "slurm_functions.py"


@pytest.fixture(scope="session")
def cluster():
    """Point this process at the testbed; the folder where the testbed keeps its things."""
    if not all(shutil.which(program) for program in ("slurmctld", "munged", "unshare")):
        reason = f"Slurm is not installed; {TESTBED}/install does it"
        if os.environ.get("PARAMZ_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    subprocess.run([TESTBED / "up"], check=True, stdout=subprocess.DEVNULL)
    command = f". {TESTBED}/env && echo $TESTBED_ROOT $SLURM_CONF"
    root, conf = subprocess.check_output(["bash", "-c", command], text=True).split()
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = conf
    yield Path(root)
    if before is None:
        del os.environ["SLURM_CONF"]


@pytest.fixture
def accounting(cluster):
    """Skip without accounting (TESTBED_ACCOUNTING=no); CI runs the tests with and without."""
    if "AccountingStorageType" not in Path(os.environ["SLURM_CONF"]).read_text():
        pytest.skip("this testbed has no accounting")


@pytest.fixture
def sweep():
    """Make a sweep of one of the functions in slurm_functions.py."""

    def make(function, minutes=3, **rest):
        resources = {"minutes": minutes, "memory_gb": 0.1} | rest.pop("resources", {})
        return Sweep(train=f"{FUNCTIONS}:{function}", resources=resources, **rest)

    return make


class Cluster:
    """What the tests do to sweeps on the cluster."""

    def __init__(self, out):
        self.out = out
        self.store = Store(out)

    def submit(self, sweep, **profile):
        profile.setdefault("pack", {"workers": 2, "minutes": 10})
        return submit(sweep, Profile(**profile), self.out)

    def jobs(self):
        return queue.queued(job_name(self.store))

    def jobs_or_silence(self):
        """The jobs; something if the controller does not answer, as there may be some."""
        try:
            return self.jobs()
        except queue.SlurmError:
            return ["unknown"]

    def wait(self, what, seconds=240):
        give_up = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < give_up, f"waited in vain; {self.logs()}"
            time.sleep(0.3)

    def finish(self, trials, seconds=240):
        self.wait(lambda: len(self.store.finished()) >= trials, seconds)

    def logs(self):
        return "\n".join(path.read_text() for path in self.out.glob("slurm/logs/*.out"))[-5000:]


@pytest.fixture
def lab_in(cluster):
    """Make a run directory whose jobs are cancelled after the test."""
    labs = []

    def make(out):
        labs.append(Cluster(out))
        return labs[-1]

    yield make
    for lab in labs:
        if jobs := [job.job for job in lab.jobs()]:
            queue.cancel(jobs)


@pytest.fixture
def lab(lab_in, tmp_path):
    return lab_in(tmp_path / "run")


def processes(*, command, **environment):
    """The pids of processes with a text in their command and variables in their environment."""
    wanted = {f"{name}={value}".encode() for name, value in environment.items()}
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if command.encode() in line and wanted <= set(variables):
            found.append(int(pid))
    return found

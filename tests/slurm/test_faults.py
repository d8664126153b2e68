"""200 trials on four virtual nodes while everything that can break is broken, at random."""

import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
from slurm_functions import walk

from paramz.slurm.queue import SlurmError, cancel
from paramz.sweeps import load
from paramz.sweeps.store.attempt import holder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.filterwarnings("ignore:.*moved to.*quarantine"),
]

TRIALS, STEPS, SLEEP = 200, 12, 0.2


class Faults:
    """Ways to hurt a running sweep; each is tried on a random victim."""

    def __init__(self, lab, cluster, keys):
        self.lab, self.root, self.keys = lab, cluster, sorted(keys)
        self.rng = random.Random(0)
        self.done = []
        self.broken = set()

    def jobs(self):
        return sorted(job.job for job in self.lab.jobs() if job.state == "RUNNING")

    def scancel(self):
        subprocess.run(["scancel", self.rng.choice(self.jobs())], check=True)

    def requeue(self):
        subprocess.run(["scontrol", "requeue", self.rng.choice(self.jobs())], check=True)

    def kill_worker(self):
        os.kill(self.rng.choice(self._workers()), signal.SIGKILL)

    def kill_pool(self):
        """The whole job dies, as when a node is lost."""
        running = filter(None, (holder(self.lab.store.trial(key)) for key in self.keys))
        os.kill(self.rng.choice([attempt["pid"] for attempt in running]), signal.SIGKILL)

    def restart_node(self):
        name = f"n{self.rng.randrange(4)}"
        self._kill(self.root / "run" / f"slurmd.{name}.pid")
        time.sleep(1)
        subprocess.run(["slurmd", "-N", name], check=True, stdout=subprocess.DEVNULL)

    def restart_controller(self):
        self._kill(self.root / "run" / "slurmctld.pid")
        time.sleep(2)
        subprocess.run(["slurmctld"], check=True, stdout=subprocess.DEVNULL)

    def half_written(self):
        """Some result files lose their end, others are garbage from the start."""
        for path in self.rng.sample(sorted(self.lab.store.results.glob("*.json")), 3):
            path.write_text(path.read_text()[: self.rng.randrange(100)])
            self.broken.add(path.stem)
        for key in self.rng.sample(self.keys, 3):
            if not self.lab.store.result(key).exists():
                self.lab.store.result(key).write_text('{"key": ')
                self.broken.add(key)

    def full_disk(self):
        filler = self.lab.out / "filler"
        try:
            with open(filler, "wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
        except OSError:
            time.sleep(4)
        finally:
            filler.unlink()

    def _workers(self):
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = open(f"/proc/{name}/cmdline").read()
                environment = open(f"/proc/{name}/environ").read()
            except OSError:
                continue
            if "paramz.sweeps.running.worker" in command and str(self.lab.out) in environment:
                found.append(int(name))
        return found

    @staticmethod
    def _kill(pidfile):
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < give_up:
            time.sleep(0.1)

    def inject(self, name):
        try:
            getattr(self, name)()
            self.done.append(name)
        except (IndexError, ValueError, SlurmError, subprocess.CalledProcessError, OSError):
            pass  # no victim at this moment, or the controller is away


@contextmanager
def small_disk(folder):
    """A file system of its own for the folder, if this user may mount one."""
    folder.mkdir(parents=True)
    options = ["-o", "size=32m,mode=755"]
    mounted = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder]).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def settle(lab, seconds):
    """Wait until no job is left; a controller that is away is not the end."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if not lab.jobs():
                return
        except SlurmError:
            pass
        time.sleep(1)
    cancel([job.job for job in lab.jobs()])
    lab.wait(lambda: not lab.jobs())


def test_every_trial_ends_with_one_valid_result_whatever_happens(lab, cluster, sweep):
    wanted = sweep(
        "resumable",
        minutes=2,
        base={"steps": STEPS, "sleep": SLEEP},
        axes={"seed": list(range(TRIALS))},
    )
    with small_disk(lab.out) as mounted:
        lab.submit(wanted, pack={"workers": 4, "minutes": 6}, array_parallelism=12)
        faults = Faults(lab, cluster, wanted.trials)
        lab.wait(lambda: len(lab.store.finished()) >= 5)
        names = ["scancel", "requeue", "kill_worker", "kill_pool", "kill_worker"]
        names += ["restart_node", "restart_controller", "half_written"] + ["full_disk"] * mounted
        for name in names * 2:
            faults.inject(name)
            time.sleep(1)
        assert set(faults.done) == set(names)
        settle(lab, 60)
        first = load(lab.out)
        assert set(first["key"]) <= set(wanted.trials) and first["key"].is_unique
        for _ in range(3):  # resubmitting completes the rest
            if not lab.submit(wanted, pack={"workers": 4, "minutes": 6}).packing.trials:
                break
            settle(lab, 90)
        table = load(lab.out).set_index("seed").sort_index()
        assert set(table["key"]) == set(wanted.trials), lab.logs()
        for key in wanted.trials:
            assert_never_run_by_two_at_once(lab.store.trial(key))
        quarantined = {path.stem.partition(".")[0] for path in (lab.out / "quarantine").iterdir()}
    assert table.index.tolist() == list(range(TRIALS))
    assert (table["status"] == "ok").all()
    assert table["loss"].tolist() == [walk(seed, STEPS) for seed in range(TRIALS)]
    assert quarantined <= faults.broken


def assert_never_run_by_two_at_once(folder):
    """Each process appears in the trial's own log of steps in one unbroken run."""
    pids = [line.split()[0] for line in (folder / "steps").read_text().splitlines()]
    runs = [pid for pid, before in zip(pids, [None, *pids], strict=False) if pid != before]
    assert len(runs) == len(set(runs)), (folder, runs)

"""What the tests of processes share: the functions they train, and waiting for what happens."""

import sys
import time
from pathlib import Path

from paramz.sweeps import Sweep

FUNCTIONS = Path(__file__).parent / "process_functions.py"
PARAMZ = [sys.executable, "-c", "from paramz.cli import main; main()"]


def wanted(function, **rest):
    return Sweep(train=f"{FUNCTIONS}:{function}", **rest)


def wait_for(what, seconds=90):
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def runs(pid):
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

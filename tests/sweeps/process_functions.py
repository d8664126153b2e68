"""Training functions that misbehave as processes, named by path in process_tools.py."""

import logging
import os
import shutil
import signal
import sys
import time
import warnings


def forked(config, trial):
    """Leaves a child that holds everything open, and dies or hangs."""
    child = os.fork()
    if not child:
        time.sleep(3600)
    (trial.directory / "child").write_text(str(child))
    if config["then"] == "dies":
        os._exit(7)
    if config["then"] == "hangs":
        time.sleep(3600)
    return {"loss": 0.0}


def removing(config, trial):
    """Deletes more than it should."""
    trial.log(0, loss=1.0)
    match config["what"]:
        case "nothing":
            pass
        case "directory":
            shutil.rmtree(trial.directory)
        case "directory, made again":
            shutil.rmtree(trial.directory)
            trial.directory.mkdir()
        case "directory, then fails":
            shutil.rmtree(trial.directory)
            raise RuntimeError("no luck")
    return {"loss": 1.0}


def settings():
    """What a trial finds in its process."""
    import numpy
    import torch

    return {
        "dtype": float(torch.get_default_dtype().itemsize),
        "threads": float(torch.get_num_threads()),
        "deterministic": float(torch.are_deterministic_algorithms_enabled()),
        "benchmark": float(torch.backends.cudnn.benchmark),
        "grad": float(torch.is_grad_enabled()),
        "precision": float(torch.get_float32_matmul_precision() == "highest"),
        "device": float(torch.get_default_device().type == "cpu"),
        "anomaly": float(torch.is_anomaly_enabled()),
        "denormal": float(torch.full((), 1e-39).item() == 0),
        "numpy": float(numpy.geterr()["divide"] == "raise"),
        "environment": float("LEFT_BEHIND" in os.environ),
        "folder": float(os.path.samefile(os.getcwd(), os.environ["LAB_FOLDER"])),
        "path": float("/left/behind" in sys.path),
        "filters": float(any(f[0] == "error" and f[2] is UserWarning for f in warnings.filters)),
        "recursion": float(sys.getrecursionlimit()),
        "streams": float(sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__),
        "arguments": float("--left-behind" in sys.argv),
        "handlers": float(sum(len(logging.getLogger(name).handlers) for name in (None, "lab"))),
        "alarm": float(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL),
    }


def changing(config, trial):
    """Report the settings, and change all of them if the config says so."""
    found = settings()
    if config["changes"]:
        import numpy
        import torch

        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.set_default_device("meta")
        torch.autograd.set_detect_anomaly(True)
        torch.set_flush_denormal(True)
        numpy.seterr(divide="raise")
        os.environ["LEFT_BEHIND"] = "1"
        os.chdir(trial.directory)
        sys.path.append("/left/behind")
        warnings.simplefilter("error", UserWarning)
        sys.setrecursionlimit(5000)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(1000)
        sys.argv.append("--left-behind")
        logging.basicConfig(filename="logs.txt")
        logging.getLogger("lab").addHandler(logging.FileHandler("lab.txt"))
        sys.stdout = open("out.txt", "w")
        sys.stdout.close()
    return {"loss": 0.0} | found


def counting(config, trial):
    """Takes some time, in steps, and says so; resumes by its history."""
    history = trial.directory / "history.jsonl"
    done = len(history.read_text().splitlines()) if history.exists() else 0
    for step in range(done, config["steps"]):
        time.sleep(config["sleep"])
        trial.log(step, loss=1.0)
        if trial.should_stop():
            return {}
    return {"loss": (config.get("lr", 1) - 1.5) ** 2, "resumed": float(done > 0)}


def closing(config, trial):
    """Closes all files but the usual ones, the connection to the pool among them, and goes on."""
    os.closerange(3, 100)
    time.sleep(0.1 if config["then"] == "dies" else 3600)
    os._exit(7)


def stubborn(config, trial):
    """Says that it was asked to stop, and goes on."""
    while not trial.should_stop():
        (trial.directory / "asked").touch()
        time.sleep(0.01)
    trial.log(0, loss=1.0)
    time.sleep(3600)


def raising(config, trial):
    """Raises what is no Exception."""
    raise KeyboardInterrupt("by hand")


def numbered(config, trial):
    """Logs with numpy's integers as steps."""
    import numpy

    trial.log(numpy.int64(3), loss=numpy.float32(0.5))
    return {"loss": numpy.float32(0.5)}

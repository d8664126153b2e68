"""A training script as people write them: argparse, a log, a checkpoint, no import of paramz."""

import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--n-embd", type=int, default=64)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--out", default=".")
parser.add_argument("--resume")
parser.add_argument("--log", default="csv")
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--hold", default="", help="a file: while it is there, stay at a step")
parser.add_argument("--fail", default="")
args = parser.parse_args()

first = 0
if args.resume:
    with open(args.resume) as file:
        first = json.load(file)["step"]
stopped = []
signal.signal(signal.SIGTERM, lambda *call: stopped.append(True))


def loss_at(step):
    if args.fail == "diverges" and step > 1:
        return float("nan")
    return 2 + (math.log2(args.lr) + 6) ** 2 / 10 + 3 / (step + 1) + 8 / args.n_embd


def log_csv(step, loss):
    path = os.path.join(args.out, "log.csv")
    new = not os.path.exists(path)
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["iter", "loss", "val loss"])
        writer.writerow([step, loss + 1, loss])


def log_json(step, loss):
    with open(os.path.join(args.out, "log.jsonl"), "a") as file:
        file.write(json.dumps({"step": step, "val": {"loss": loss}, "note": "x"}) + "\n")


def log_tensorboard(step, loss):
    writer.add_scalar("val/loss", loss, step)
    writer.add_scalar("lr", args.lr, step)
    writer.flush()


def log_wandb(step, loss):
    run.log({"val/loss": loss, "lr": args.lr}, step=step)


def log_print(step, loss):
    print(f"iter {step}: loss {loss:.4f}, time 3ms")


if args.log == "tensorboard":
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(os.path.join(args.out, "tb"))
elif args.log == "wandb":
    import wandb

    run = wandb.init(mode="offline", dir=args.out, project="x")
log = globals()[f"log_{args.log}"]

if args.fail == "child":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.path.join(args.out, "child"), "w") as file:
        file.write(str(child.pid))
for step in range(first, args.steps):
    log(step, loss_at(step))
    with open(os.path.join(args.out, "ckpt.json.new"), "w") as file:
        json.dump({"step": step + 1}, file)
    os.replace(os.path.join(args.out, "ckpt.json.new"), os.path.join(args.out, "ckpt.json"))
    time.sleep(args.pause)
    while os.path.exists(args.hold) and not stopped:
        time.sleep(0.02)
    if stopped:
        print("saved, good bye")
        sys.exit(0)
while args.fail == "diverges" and not stopped:
    time.sleep(0.05)
if args.fail == "raises":
    raise ValueError("a bad batch")
if args.fail == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if args.log == "wandb":
    run.finish()

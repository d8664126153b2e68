"""A training script as people write them, with the two lines of paramz.record in its loop."""

import argparse

import torch
from torch import nn

import paramz


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(24, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.1)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.head = nn.Linear(width, 24)

    def forward(self, x, y=None):
        h = self.embed(x).sum(1)
        h = h + self.mix(self.drop(self.norm(h)))
        logits = self.head(h)
        return logits, None if y is None else nn.functional.cross_entropy(logits, y)


def main(words=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scheme", default="mup")
    parser.add_argument("--max-iters", type=int, default=8)
    parser.add_argument("--wrap", default="")
    args = parser.parse_args(words)

    torch.manual_seed(args.seed)
    model = Net(args.width)
    if args.scheme == "sp":
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    else:
        plan = paramz.parametrize_(model, args.scheme, base=Net, base_width=32)
        optimizer = torch.optim.Adam(plan.param_groups(model, "adam", lr=args.lr))
    if args.wrap == "compile":
        called = torch.compile(model, backend="eager")
    else:
        called = nn.DataParallel(model) if args.wrap == "parallel" else model
    for step in range(args.max_iters):
        paramz.record(called, step)
        if step % 4 == 0:  # an evaluation
            called.eval()
            with torch.no_grad():
                called(torch.zeros(2, 4, dtype=torch.long))
            called.train()
        x = torch.randint(24, (256, 4))
        optimizer.zero_grad()
        _, loss = called(x, (x[:, 0] + x[:, 1]) % 24)
        loss.backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    main()

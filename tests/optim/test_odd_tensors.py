"""Tensors that are no matrices for an optimizer of matrices, and models that have none for it."""

import pytest
import torch
from torch import nn

import paramz


class Tokens(nn.Module):
    """A class token, a depthwise kernel and a map over positions, as in ViTs and mixers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.mix, self.last = (
            nn.Linear(a, b) for a, b in ((6, width), (width, width), (width, 3))
        )
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.kernel = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.positions = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = (self.first(x) + self.token).transpose(1, 2)
        return self.last(self.mix(self.positions(self.kernel(h)).transpose(1, 2)))


@pytest.mark.parametrize("optimizer", ["shampoo", "soap"])
@pytest.mark.parametrize("scheme", ["mup", "sp"])
def test_what_is_applied_entry_by_entry_goes_to_the_adamw_beside(optimizer, scheme) -> None:
    if optimizer == "soap":
        pytest.importorskip("pytorch_optimizer")
    model = Tokens(32)
    plan = paramz.parametrize_(model, scheme, base=Tokens, base_width=16)
    made, _ = paramz.make_optimizers(plan, model, optimizer, lr=0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    trained = {names[id(p)] for group in made.param_groups for p in group["params"]}
    assert trained == {"first.weight", "mix.weight", "last.weight"}
    model(torch.randn(2, 10, 6)).square().mean().backward()
    made.step()


@pytest.mark.parametrize("optimizer", ["muon", "muonh", "adamh"])
def test_an_optimizer_that_would_train_nothing_is_refused(optimizer) -> None:
    def convolutions(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, bias=False),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3),
        )  # fmt: skip

    model = convolutions(32)
    plan = paramz.parametrize_(model, "mup", base=convolutions, base_width=16)
    if optimizer == "adamh":  # which takes kernels
        assert paramz.make_optimizers(plan, model, optimizer, lr=0.01)
        model = nn.Sequential(nn.Linear(3, 32), nn.Linear(32, 3))
        plan = paramz.parametrize_(
            model, "mup", base=lambda w: nn.Sequential(nn.Linear(3, w), nn.Linear(w, 3)),
            base_width=16,
        )  # fmt: skip
    with pytest.raises(ValueError, match=rf"^{optimizer} trains hidden matrices.*take 'adamw'"):
        paramz.make_optimizers(plan, model, optimizer, lr=0.01)

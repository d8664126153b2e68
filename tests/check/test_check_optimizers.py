"""A check trains with an optimizer given by name, by class, or made by a function."""

import copy
import json
from functools import partial

import pandas as pd
import pytest
import torch
from cases import checked_batch as data
from cases import checked_net as net
from torch import nn

import paramz
from paramz.check.sweep import check_sweep

ASKED = {"widths": [16, 32], "seeds": 1, "steps": 2}


def two(plan: paramz.Plan, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    hidden, rest = plan.split_groups(
        model, muon={"lr": lr, "weight_decay": 0.1}, adamw={"lr": lr, "weight_decay": 0.1}
    )
    return [torch.optim.Muon(hidden), torch.optim.AdamW(rest)]


def one(plan: paramz.Plan, model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-8))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Muon])
def test_a_class_measures_what_its_name_does(kind: type) -> None:
    by_class = paramz.coord_check(net, data(), optimizer=kind, **ASKED)
    by_name = paramz.coord_check(net, data(), optimizer=kind.__name__.lower(), **ASKED)
    pd.testing.assert_frame_equal(by_class, by_name)


def test_a_class_of_one_s_own_gets_the_groups_of_its_family() -> None:
    class Lion(torch.optim.SGD):
        """A class that paramz does not make, by a name whose family it knows."""

    df = paramz.coord_check(net, data(), optimizer=Lion, lr=2**-8, momentum=0.5, **ASKED)
    assert set(df.optimizer) == {"lion"}
    with pytest.raises(TypeError, match="momentun=0.5 is no option of lion"):
        paramz.coord_check(net, data(), optimizer=Lion, momentun=0.5, **ASKED)


def test_a_class_that_paramz_does_not_know_is_refused_with_the_way_out() -> None:
    class Strange(torch.optim.SGD):
        """Nobody knows it."""

    with pytest.raises(ValueError, match=r"does not know .*'Strange'.* function \(plan, model, lr"):
        paramz.coord_check(net, data(), optimizer=Strange, **ASKED)


def test_a_function_may_return_several_and_is_given_the_learning_rate() -> None:
    ours = paramz.coord_check(net, data(), optimizer=two, lr=[2**-8, 2**-6], **ASKED)
    named = paramz.coord_check(
        net, data(), optimizer="muon", lr=[2**-8, 2**-6], weight_decay=0.1, **ASKED
    )
    assert set(ours.optimizer) == {"two"}
    assert (ours.rms - named.rms).abs().max() == pytest.approx(0.0, abs=1e-6)
    assert paramz.judge(ours).optimizer == "two"


def test_a_function_may_set_its_own_learning_rate() -> None:
    ours = paramz.coord_check(net, data(), optimizer=one, **ASKED)
    named = paramz.coord_check(net, data(), optimizer="adamw", **ASKED)
    assert (ours.rms - named.rms).abs().max() == pytest.approx(0.0, abs=1e-6)
    nameless = paramz.coord_check(net, data(), optimizer=lambda p, m: one(p, m), **ASKED)
    assert set(nameless.optimizer) == {"custom"}


def test_what_a_function_cannot_take_is_refused_before_anything_runs() -> None:
    def build(width: int) -> nn.Module:
        raise AssertionError("nothing may run")

    with pytest.raises(ValueError, match=r"one\(plan, model\) sets its own learning rate"):
        paramz.coord_check(build, data(), optimizer=one, lr=[0.1, 0.01], **ASKED)
    with pytest.raises(TypeError, match="weight_decay: options are for .* set them in one"):
        paramz.coord_check(build, data(), optimizer=one, weight_decay=0.1, **ASKED)
    with pytest.raises(TypeError, match="optimizer=3: give a name .* a class .* or a function"):
        paramz.coord_check(build, data(), optimizer=3, **ASKED)
    with pytest.raises(TypeError, match=r"Family\('adamw'.*plan, model, lr: YourOptimizer\(plan"):
        paramz.coord_check(build, data(), optimizer=paramz.family("adamw"), **ASKED)
    filled = partial(torch.optim.AdamW, betas=(0.9, 0.95))
    with pytest.raises(TypeError, match=r"to the check: optimizer=AdamW, betas=\(0.9, 0.95\)$"):
        paramz.coord_check(build, data(), optimizer=filled, **ASKED)
    with pytest.raises(TypeError, match=r"cannot be called as custom\(plan, model\): give a cla"):
        paramz.coord_check(build, data(), optimizer=lambda groups: None, **ASKED)


def test_a_function_that_returns_something_else_is_named() -> None:
    with pytest.raises(TypeError, match=r"broken\(plan, model\) returned dict, but has to return"):

        def broken(plan: paramz.Plan, model: nn.Module) -> dict[str, object]:
            return {"optimizer": one(plan, model)}

        paramz.coord_check(net, data(), optimizer=broken, **ASKED)


def test_a_cluster_is_given_names_only() -> None:
    for given, name in ((torch.optim.AdamW, "adamw"), (one, "one")):
        with pytest.raises(TypeError, match=f"optimizer={name}: .* by its name, such as 'adamw'"):
            check_sweep("lab:task", minutes=5, optimizer=given)
    sweep = check_sweep("lab:task", minutes=5, optimizer="adamw")
    assert json.dumps(next(iter(sweep.configs())))


@pytest.mark.parametrize("name", ["AdaFactor", "RAdam", "Shampoo", "Muon", "NorMuon"])
def test_the_class_of_a_library_is_made_and_not_torchs_of_its_name(name, monkeypatch) -> None:
    kind = getattr(pytest.importorskip("pytorch_optimizer"), name)
    stepped = []
    step = kind.step

    def noted(self, *args):
        stepped.append(self)
        return step(self, *args)

    monkeypatch.setattr(kind, "step", noted)
    paramz.coord_check(net, data(), optimizer=kind, widths=[16, 32], seeds=1, steps=1)
    matrices = name in ("Muon", "NorMuon", "Shampoo")  # beside an AdamW for the rest
    tensors = [sum(len(group["params"]) for group in each.param_groups) for each in stepped]
    assert len(tensors) == 2
    assert tensors[0] < len(list(net(16).parameters())) if matrices else tensors[0] > 1


def of_a_copy(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(plan.param_groups(copy.deepcopy(model), "adamw", lr=lr))


def of_matrices(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Muon(two(plan, model, lr)[0].param_groups)


def test_tensors_that_a_function_leaves_out_are_named() -> None:
    with pytest.raises(ValueError, match=r"optimizers of of_a_copy\(plan, model\) do not hold"):
        paramz.coord_check(net, data(), optimizer=of_a_copy, **ASKED)
    with pytest.warns(UserWarning, match=r"of_matrices\(plan, model\) do not hold .*, so"):
        paramz.coord_check(net, data(), optimizer=of_matrices, **ASKED)


class Waiting(torch.optim.AdamW):
    """No step for a while, as pytorch_optimizer's RAdam and schedules that start at zero."""

    def step(self, closure=None):
        return None


def waiting(plan: paramz.Plan, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return Waiting(plan.param_groups(model, "adamw", lr=lr))


def test_a_model_that_no_step_moves_is_not_judged() -> None:
    df = paramz.coord_check(net, data(), optimizer=waiting, **ASKED)
    with pytest.raises(ValueError, match="none has changes .* first steps are not of size zero"):
        paramz.judge(df, tolerance=1.0)  # what there is before training passes


def test_steps_of_radam_that_are_not_adams_are_told_of() -> None:
    with pytest.warns(UserWarning, match="RAdam's first five steps are plain momentum"):
        paramz.coord_check(net, data(), optimizer="radam", **ASKED)

"""Optimizers that keep their matrices at their first norm: steps, state, processes, rules."""

import copy
import dataclasses
import itertools
from fractions import Fraction
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import Plain, residual_batch
from gloo import join
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import paramz
from paramz.optim import constrained
from paramz.optim.constrained import RADIUS


def net(width=8, inputs=6, outputs=4):
    sizes = [inputs, width, width, width, outputs]
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain(*((x, nn.ReLU()) for x in layers)))[:-1]


def planned(name, width=32, **options):
    torch.manual_seed(0)
    model = net(width)
    plan = paramz.parametrize_(model, "mup", base=net, base_width=8)
    made = paramz.make_optimizers(plan, model, name, lr=0.05, rest_lr=0.01, **options)
    return model, plan, made


def steps(model, optimizers, which, part=slice(None)):
    for step in which:
        draw = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 6, generator=draw), torch.arange(16) % 4
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(x[part]), y[part]).backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("name", ["adamh", "muonh"])
def test_every_step_has_its_relative_size_and_the_norm_stays(name):
    model, _, made = planned(name)
    matrices = [p for group in made[0].param_groups for p in group["params"]]
    assert [p.shape for p in matrices] == [(32, 32)] * 2
    radii = [float(p.detach().norm()) for p in matrices]
    lr = made[0].param_groups[0]["lr"]
    for step in range(4):
        before = [p.detach().clone() for p in matrices]
        steps(model, made, [step])
        for p, old, radius in zip(matrices, before, radii, strict=True):
            assert float(p.detach().norm()) == pytest.approx(radius, rel=1e-6)
            assert float((p.detach() - old).norm()) == pytest.approx(lr * radius, rel=0.05)


@pytest.mark.parametrize("name", ["adamh", "muonh"])
def test_a_run_that_goes_on_takes_the_same_steps_bit_for_bit(name, tmp_path):
    model, _, made = planned(name)
    steps(model, made, range(3))
    torch.save([model.state_dict(), *(o.state_dict() for o in made)], tmp_path / "saved.pt")
    steps(model, made, range(3, 6))
    again, _, anew = planned(name)
    with torch.no_grad():
        for p in again.parameters():
            p.mul_(3)  # another start: radii are those of the state
    weights, *states = torch.load(tmp_path / "saved.pt")
    again.load_state_dict(weights)
    for optimizer, state in zip(anew, states, strict=True):
        optimizer.load_state_dict(state)
    steps(again, anew, range(3, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_closures_schedulers_and_a_rate_of_zero_work():
    layer = nn.Linear(6, 4, bias=False)
    optimizer = constrained(torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))

    def closure():
        optimizer.zero_grad()
        loss = layer(torch.ones(2, 6)).square().sum()
        loss.backward()
        return loss

    start = layer.weight.detach().clone()
    optimizer.step(closure)
    assert torch.equal(layer.weight, start)
    schedule.step()
    assert optimizer.step(closure) > 0
    # The way back to the sphere takes off what of the step points along the weight.
    moved = float((layer.weight.detach() - start).norm() / start.norm())
    assert moved == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_the_scaler_skips_changes_nothing(fused):
    layer = nn.Linear(6, 4, bias=False)
    optimizer = constrained(
        torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0, fused=fused)
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    start = layer.weight.detach().clone()
    for factor, moves in ((float("inf"), False), (1.0, True)):
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(2, 6)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(layer.weight, start) != moves
        assert float(layer.weight.detach().norm()) == pytest.approx(float(start.norm()), rel=1e-6)


def test_a_matrix_without_a_gradient_stays_and_has_no_state():
    used, unused = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    optimizer = constrained(
        torch.optim.AdamW([used.weight, unused.weight], lr=0.1, weight_decay=0.0)
    )
    start = unused.weight.detach().clone()
    used(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(unused.weight, start) and RADIUS in optimizer.state[used.weight]
    assert unused.weight not in optimizer.state


def test_what_cannot_be_constrained_is_refused():
    layer = nn.Linear(3, 3)
    adamw = torch.optim.AdamW
    with pytest.raises(ValueError, match=r"tensor 1 of group 0 \(3,\) is no matrix.*split_groups"):
        constrained(adamw(layer.parameters(), weight_decay=0.0))
    with pytest.raises(ValueError, match=r"weight_decay=0.01: the norm.*pass weight_decay=0"):
        constrained(adamw([layer.weight]))
    once = constrained(adamw([layer.weight], weight_decay=0.0))
    with pytest.raises(ValueError, match="this AdamW keeps its matrices' norms already"):
        constrained(once)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match=r"tensor 0 of group 0 \(3, 3\) is all zeros"):
        once.step()
    model, plan, _ = planned("adamh")
    with pytest.raises(ValueError, match="weight_decay=0.1: adamh keeps the norm of every matrix"):
        plan.split_groups(model, adamh={"lr": 0.1, "weight_decay": 0.1}, adamw={"lr": 0.1})


def test_decay_goes_to_the_optimizer_beside_it():
    _, _, (hidden, rest) = planned("adamh", weight_decay=0.1)
    assert {group["weight_decay"] for group in hidden.param_groups} == {0.0}
    assert 0.1 in {group["weight_decay"] for group in rest.param_groups}


def test_the_plan_tells_optimizers_that_keep_norms_from_those_that_do_not():
    model, plan, made = planned("adamh")
    plan.check(*made, model=model)
    hidden, rest = plan.split_groups(model, adamh={"lr": 0.05}, adamw={"lr": 0.01})
    beside = torch.optim.AdamW(rest)
    with pytest.raises(ValueError, match=r"does not keep the norms.*optim.constrained\(AdamW"):
        plan.check(torch.optim.AdamW(hidden), beside, model=model)
    plain, _ = plan.split_groups(model, muon={"lr": 0.05, "weight_decay": 0.0}, adamw={"lr": 0.01})
    with pytest.raises(ValueError, match="keeps the norms.*make the groups for 'adamh'"):
        plan.check(constrained(torch.optim.Muon(plain)), beside, model=model)


def test_rates_over_width_and_depth():
    for name, ratio in (("adamh", 0.5), ("muonh", 1.0)):
        _, _, made = planned(name)
        (group,) = made[0].param_groups
        assert group["lr"] == pytest.approx(0.05 * ratio), name
    deep = paramz.parametrization("mup+depth-mup")
    for name, column in (("adamh", "adam"), ("muonh", "muon")):
        assert paramz.family(name).column == column
        lr = deep.entry(paramz.family(name), "hidden").lr
        assert dict(lr.exponents)["depth"] == Fraction(-1, 2)


def test_the_token_rule_is_for_norms_that_stay_only():
    for name in ("adamh", "muonh"):
        rates = paramz.transfer_run("hyperp", name, lr=0.02, steps=4)
        assert rates == {"lr": pytest.approx(0.02 * 4**-0.32)}
    with pytest.raises(ValueError, match="'hyperp' is for optimizers that keep the norms"):
        paramz.transfer_run("hyperp", "muon", lr=0.02, steps=4)


@pytest.mark.parametrize(("rank", "exponent"), [(None, 0.0), (4, 0.5)])
def test_the_spectral_norm_of_muonhs_steps_stays_where_gradients_have_full_rank(rank, exponent):
    draw, sizes = torch.Generator().manual_seed(0), []
    for width in (32, 128):
        w = nn.Parameter(torch.randn(width, width, generator=draw) / width**0.5)
        start = w.detach().clone()
        inner = width if rank is None else rank
        w.grad = torch.randn(width, inner, generator=draw) @ torch.randn(
            inner, width, generator=draw
        )
        constrained(torch.optim.Muon([w], lr=0.01, weight_decay=0.0)).step()
        sizes.append(float(torch.linalg.matrix_norm(w.detach() - start, 2)))
    slope = torch.tensor(sizes[1] / sizes[0]).log2() / 2
    assert float(slope) == pytest.approx(exponent, abs=0.12)


@pytest.mark.slow
def test_adamh_passes_the_coordinate_check_and_fails_at_the_published_rate():
    rules = dict(paramz.MUP.rules)
    ours = rules["adam", "hidden"]
    # The published table has one relative rate for all widths: fan_in^1/2 over ours.
    same = dataclasses.replace(ours, lr=ours.lr * paramz.Power(fan_in=Fraction(1, 2)))
    rules["adam", "hidden"] = same
    published = dataclasses.replace(paramz.MUP, name="published", rules=rules)
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(128, 16, generator=draw), torch.arange(128) % 10
    outcomes = [
        paramz.judge(
            paramz.coord_check(
                lambda width: net(width, 16, 10), batch, widths=[64, 128, 256, 512],
                parametrization=scheme, optimizer="adamh", lr=2**-5, rest_lr=2**-8,
            )
        ).outcome
        for scheme in ("mup", published, "sp")
    ]  # fmt: skip
    assert outcomes == ["pass", "fail", "fail"]


class Blocks(nn.Module):
    """Residual blocks between an input and a readout of as many features and classes as asked."""

    def __init__(self, width=64, depth=2, inputs=16, classes=8):
        super().__init__()
        self.first, self.head = nn.Linear(inputs, width), nn.Linear(width, classes)
        self.blocks = nn.ModuleList(Plain(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def outcome(build, batch, scheme, optimizer, **sizes):
    rates = {"optimizer": optimizer, "lr": 2**-5, "rest_lr": 2**-8}
    frame = paramz.coord_check(build, batch, parametrization=scheme, seeds=3, **rates, **sizes)
    return paramz.judge(frame).outcome


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamh", "muonh"])
def test_changes_keep_their_size_over_depth_with_a_rule_only(optimizer):
    sizes = {"depths": [2, 4, 8, 16], "base_width": 64}
    for scheme, wanted in (("mup+depth-mup", "pass"), ("mup+completep", "pass"), ("mup", "fail")):
        assert outcome(Blocks, residual_batch(), scheme, optimizer, **sizes) == wanted, scheme


@pytest.mark.slow
def test_muonh_passes_over_width_where_inputs_and_classes_are_more_than_columns():
    """Elsewhere it fails: the norm of a step then counts directions, of which there are as many."""
    draw, many = torch.Generator().manual_seed(0), 512
    classes = torch.randint(0, many, (2048,), generator=draw)
    batch = torch.randn(2048, many, generator=draw), classes
    build = partial(Blocks, inputs=many, classes=many)
    widths = [32, 64, 128, 256]
    assert outcome(build, batch, "mup", "muonh", widths=widths) == "pass"
    assert outcome(build, batch, "sp", "muonh", widths=widths) == "fail"
    assert outcome(Blocks, residual_batch(), "mup", "muonh", widths=[64, 128, 256]) == "fail"


def work(rank, path):
    join(rank, 2, path)
    model, _, made = planned("adamh")
    wrapped = DistributedDataParallel(model)
    steps(wrapped, made, range(4), slice(8 * rank, 8 * rank + 8))
    torch.save(model.state_dict(), f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    model, _, made = planned("adamh")
    start = copy.deepcopy(model.state_dict())
    steps(model, made, range(4))
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, value in model.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], value, rtol=0, atol=2e-4)
        assert (value - start[name]).abs().max() > 1e-3


def one_matrix(**options):
    weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    weight.grad = torch.ones(4, 4)
    return weight, torch.optim.AdamW([weight], lr=0.1, **{"weight_decay": 0.0, **options})


def test_a_gradient_that_is_not_finite_stays_visible():
    weight, optimizer = one_matrix()
    constrained(optimizer).step()
    weight.grad = torch.full((4, 4), torch.nan)
    optimizer.step()
    # The optimizer's own state is lost with it, so a matrix that kept its values would never move.
    assert weight.isnan().all()


def test_vectors_and_decay_that_come_later_are_refused_as_at_first():
    _, optimizer = one_matrix()
    constrained(optimizer).add_param_group({"params": [nn.Parameter(torch.ones(4))]})
    with pytest.raises(ValueError, match=r"tensor 0 of group 1 \(4,\) is no matrix"):
        optimizer.step()
    _, optimizer = one_matrix()
    constrained(optimizer).load_state_dict(one_matrix(weight_decay=0.1)[1].state_dict())
    with pytest.raises(ValueError, match=r"weight_decay=0.1: .* a state_dict brings that of its"):
        optimizer.step()

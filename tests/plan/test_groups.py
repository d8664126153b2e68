"""Parameter groups: every trainable tensor once, few groups, the values of the table."""

import copy
from dataclasses import replace

import pytest
import torch
from cases import convnet, gpt, gpt2, llama, mlp, tied_gpt
from torch import nn
from torch.optim import lr_scheduler

import paramz
from paramz.plan.matching import clean_name
from paramz.theory.families import FAMILIES

LR = 0.25


def planned(build=mlp, width=32, base=8, scheme="mup"):
    model = build(width)
    return model, paramz.parametrize_(model, scheme, base=build, base_width=base)


def by_role(groups):
    return {role: group for group in groups for role in group["roles"]}


@pytest.mark.parametrize(
    ("build", "base"), [(mlp, 8), (convnet, 8), (gpt, 8), (tied_gpt, 8), (llama, 32), (gpt2, 32)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adafactor"])
def test_every_tensor_is_in_exactly_one_of_few_groups(build, base, optimizer):
    model, plan = planned(build, 4 * base, base)
    groups = plan.param_groups(model, optimizer, lr=LR, weight_decay=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}
    assert len(groups) <= 5
    kind = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adafactor": "Adafactor"}[optimizer]
    optimizer = getattr(torch.optim, kind)(groups)
    assert [g["lr"] for g in optimizer.param_groups] == [g["lr"] for g in groups]


# width ratio 4; input, hidden, output, vector, scalar
VALUES = {
    "sgd": {
        "lr": [4, 1, 1 / 4, 4, 1],
        "weight_decay": [1 / 4, 1, 4, 1 / 4, 1],
    },
    "adamw": {
        "lr": [1, 1 / 4, 1 / 4, 1, 1],
        "eps": [1 / 4, 1 / 4, 1, 1 / 4, 1],
        "weight_decay": [1, 4, 4, 1, 1],
    },
    "kfac": {
        "lr": [1, 1, 1, 1, 1],
        "damping": [1, 1, 1, 1, 1],
        "damping_a": [1, 4, 4, 1, 1],
        "damping_b": [1 / 4, 1 / 4, 1, 1 / 4, 1],
        "weight_decay": [1, 1, 1, 1, 1],
    },
    "foof": {
        "lr": [4, 4, 1, 4, 1],
        "damping_a": [1, 4, 4, 1, 1],
        "weight_decay": [1 / 4, 1 / 4, 1, 1 / 4, 1],
    },
    "adam": {
        "lr": [1, 1 / 4, 1 / 4, 1, 1],
        "eps": [1 / 4, 1 / 4, 1, 1 / 4, 1],
        "weight_decay": [1 / 4, 1, 4, 1 / 4, 1],
    },
}
BASE_VALUES = {"lr": LR, "eps": 1e-6, "weight_decay": 0.125}
BASE_VALUES |= dict.fromkeys(("damping", "damping_a", "damping_b"), 0.03)


@pytest.mark.parametrize("optimizer", VALUES)
def test_values(optimizer):
    model, plan = planned()
    constants = {"eps": 1e-6} if "eps" in VALUES[optimizer] else {}
    if "damping_a" in VALUES[optimizer]:
        constants = {"damping": 0.03}
    groups = by_role(plan.param_groups(model, optimizer, lr=LR, weight_decay=0.125, **constants))
    for key, factors in VALUES[optimizer].items():
        roles = ("input", "hidden", "output", "vector", "scalar")
        values = [groups[role][key] / BASE_VALUES[key] for role in roles]
        assert values == pytest.approx(factors, rel=1e-14)


# width ratio 4; input, hidden, output: (OUT/IN)^(1-e), and eps of G G^T
SHAMPOOS = {
    None: ([2, 1, 1 / 2], 0.5),
    0.25: ([2, 1, 1 / 2], 0.5),
    0.5: ([1, 1, 1], 1.0),
    (0.5, 0.0): ([2, 1, 1 / 2], 0.5),
    (0.375, 0.375): ([4**0.25, 1, 4**-0.25], 0.75),
}


@pytest.mark.parametrize("exponent", SHAMPOOS)
def test_values_of_shampoo(exponent):
    model = matrices(32, 128)
    plan = paramz.parametrize_(model, "mup", base=matrices(8, 32), wider=matrices(16, 64))
    options = {} if exponent is None else {"exponent": exponent}
    groups = by_role(plan.param_groups(model, "shampoo", lr=LR, eps=1e-6, **options))
    roles = ("input", "hidden", "output")
    assert [groups[role]["lr"] / LR for role in roles] == pytest.approx(SHAMPOOS[exponent][0])
    assert [groups[role]["eps"] / 1e-6 for role in roles] == pytest.approx([1 / 4, 1, 4])
    assert groups["hidden"].get("exponent") == exponent
    shown = plan.summary("shampoo", exponent=exponent)
    at = shown.columns.index("lr")
    assert [float(row[at].split()[-1]) for row in shown.cells if row[2] != "hidden"] == (
        pytest.approx([SHAMPOOS[exponent][0][0], SHAMPOOS[exponent][0][2]], rel=1e-3)
    )


def test_soap_has_no_power_of_fan_out():
    model = matrices(32, 32 * 6)
    plan = paramz.parametrize_(model, "mup", base=matrices(8, 32), wider=matrices(16, 64))
    groups = plan.param_groups(model, "soap", lr=LR, eps=1e-6)
    lrs = {p: (g["lr"] / LR, g["eps"] / 1e-6) for g in groups for p in g["params"]}
    expected = [1.0, 4**-0.5, 6**-0.5, 4**-0.5]  # IN^-1/2
    assert [lrs[p][0] for p in model.parameters()] == pytest.approx(expected)
    eps = [4**-0.5, (4 / 6) ** 0.5, (6 / 4) ** 0.5, 4**0.5]  # sqrt(IN/OUT)
    assert [lrs[p][1] for p in model.parameters()] == pytest.approx(eps)


def test_kfac_refuses_a_readout_of_zeros():
    model, plan = planned()
    nn.init.zeros_(model[6].weight)
    with pytest.raises(ValueError, match=r"6.weight \(3, 32\) is a readout of zeros: no gradient"):
        plan.param_groups(model, "kfac", lr=LR)
    plan.param_groups(model, "adamw", lr=LR)
    plan.param_groups(model, "foof", lr=LR)
    plan.split_groups(model, kfac={"lr": LR}, adamw={"lr": LR})


def test_damping_of_optimizers_without_one():
    model, plan = planned()
    with pytest.raises(ValueError, match="damping=0.1: adamw has no damping"):
        plan.param_groups(model, "adamw", lr=LR, damping=0.1)
    with pytest.raises(ValueError, match="damping=-0.1 must be a finite number"):
        plan.param_groups(model, "kfac", lr=LR, damping=-0.1)


def test_damping_inside_branches_and_behind_a_branch_factor():
    """The factor of the last matrix of a branch is folded into it: its gradients are larger."""
    model = gpt(32)
    plan = paramz.parametrize_(model, "mup+completep", base=gpt(8), wider=gpt(16))
    rows = {row.name: row for row in plan.rows}
    inner = replace(rows["blocks.0.mlp.0.weight"], ratios={"depth": 4.0})
    last = replace(rows["blocks.0.mlp.2.weight"], ratios={"depth": 4.0})
    assert last.ends and not inner.ends
    for row, damping_b, foof in ((inner, 4.0**-2, 4.0), (last, 1.0, 4.0 / 4.0**2)):
        rule = plan.rule(row, FAMILIES["kfac"])
        assert (rule.lr({"depth": 4.0}), rule.damping_b({"depth": 4.0})) == (1 / 4, damping_b)
        assert rule.damping_a({"depth": 4.0}) == 1
        assert plan.rule(row, FAMILIES["foof"]).lr({"depth": 4.0}) == foof


def test_summary_shows_damping_as_it_shows_eps():
    _, plan = planned()
    shown = plan.summary("kfac")
    at = [shown.columns.index(name) for name in ("damping A", "damping B")]
    cells = {row[2]: tuple(row[i] for i in at) for row in shown.cells}
    assert cells["hidden"] == ("fan_in = 4", "fan_out^-1 = 0.25")
    assert cells["output"] == ("fan_in = 4", "1")
    assert "damping relative to a factor's trace needs no rule" in str(shown)


def test_defaults_are_the_optimizers_own():
    model, plan = planned()
    for kind in (torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adagrad):
        group = by_role(plan.param_groups(model, kind, lr=LR))["scalar"]
        own = kind([nn.Parameter(torch.ones(1))]).param_groups[0]
        assert (group["eps"], group["weight_decay"]) == (own["eps"], own["weight_decay"])


def test_options_and_no_decay():
    model, plan = planned()
    groups = plan.param_groups(
        model, "adamw", lr=LR, weight_decay=0.1, no_decay=("vector", "scalar"), betas=(0.8, 0.9)
    )
    assert all(group["betas"] == (0.8, 0.9) for group in groups)
    roles = by_role(groups)
    assert roles["vector"]["weight_decay"] == roles["scalar"]["weight_decay"] == 0.0
    assert roles["input"]["weight_decay"] > 0
    optimizer = torch.optim.AdamW(groups)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_decoupled_decay_is_read_from_the_options():
    model, plan = planned()
    groups = plan.param_groups(model, "nadam", lr=LR, weight_decay=0.1, decoupled_weight_decay=True)
    for group in torch.optim.NAdam(groups).param_groups:
        assert group["decoupled_weight_decay"]
        assert group["lr"] * group["weight_decay"] == pytest.approx(LR * 0.1)


def test_frozen_tensors_are_left_out():
    model, plan = planned()
    model[0].requires_grad_(False)
    grouped = {id(p) for g in plan.param_groups(model, "sgd", lr=LR) for p in g["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_added_and_lost_parameters_are_detected():
    model, plan = planned()
    model.append(nn.Linear(3, 5, bias=False))
    del model[4]
    with pytest.raises(ValueError) as error:
        plan.param_groups(model, "sgd", lr=LR)
    text = str(error.value)
    assert text.startswith("the model's parameters are not those of the plan.\n")
    assert "not in the plan:" in text
    assert "plan the final model" in text
    model, plan = planned()
    model[6] = nn.Linear(32, 3, bias=False)
    with pytest.raises(ValueError, match="not in the plan: none\n  not in the model: 6.bias\n"):
        plan.param_groups(model, "sgd", lr=LR)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr=-1.0 must be a finite number that is not negative"),
        ({"lr": float("nan")}, "lr=nan must be"),
        ({"lr": 1.0, "weight_decay": float("inf")}, "weight_decay=inf must be"),
        ({"lr": 1.0, "eps": -1e-8}, "eps=-1e-08 must be"),
    ],
)
def test_numbers_out_of_range(options, text):
    model, plan = planned()
    with pytest.raises(ValueError, match=text):
        plan.param_groups(model, "adamw", **options)


def matrices(width=8, inner=32):
    return nn.Sequential(
        nn.Linear(6, width, bias=False), nn.Linear(width, inner, bias=False),
        nn.Linear(inner, width, bias=False), nn.Linear(width, 3, bias=False),
    )  # fmt: skip


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
def test_muons_own_shape_factor_is_divided_out(adjust):
    """The size of the orthogonal update is the table's, whatever torch's Muon does to it."""
    steps = []
    for width, inner in ((8, 32), (32, 32 * 6)):
        torch.manual_seed(0)
        model = matrices(width, inner)
        plan = paramz.parametrize_(model, "mup", base=matrices(8, 32), wider=matrices(16, 64))
        groups = plan.param_groups(
            model, torch.optim.Muon, lr=0.1, weight_decay=0.0, adjust_lr_fn=adjust
        )
        optimizer = torch.optim.Muon(groups, momentum=0.0)
        before = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            # A gradient of rank one with equal entries: its orthogonal factor is known.
            p.grad = torch.ones_like(p)
        optimizer.step()
        steps.append(
            [
                torch.linalg.matrix_norm(b - p, ord=2).item()
                for b, p in zip(before, model.parameters(), strict=True)
            ]
        )
    ratio = [wide / base for wide, base in zip(*reversed(steps), strict=True)]
    # sqrt(OUT/IN) of each matrix, with width times 4 and the inner size times 6
    expected = [4**0.5, (6 / 4) ** 0.5, (4 / 6) ** 0.5, 4**-0.5]
    assert ratio == pytest.approx(expected, rel=0.02)  # torch orthogonalises in bfloat16


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muons_decay_is_the_same_at_every_width(adjust):
    shrinks = []
    for width in (8, 32):
        model = matrices(width, 4 * width)
        plan = paramz.parametrize_(model, "mup", base=matrices(8, 32), wider=matrices(16, 64))
        groups = plan.param_groups(model, "muon", lr=0.1, weight_decay=0.5, adjust_lr_fn=adjust)
        before = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        torch.optim.Muon(groups).step()
        shrinks.append(
            [(p / b).mean().item() for b, p in zip(before, model.parameters(), strict=True)]
        )
    assert shrinks[0] == pytest.approx([0.95] * 4)
    assert shrinks[1] == pytest.approx([0.95] * 4)


def test_muon_has_no_rule_for_vectors():
    model, plan = planned()
    with pytest.raises(KeyError, match="mup has no rule for muon x vector"):
        plan.param_groups(model, "muon", lr=LR)


def test_split_groups():
    model, plan = planned(gpt)
    hidden, rest = plan.split_groups(
        model, muon={"lr": 0.02}, adamw={"lr": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    )
    assert all(p.ndim == 2 for group in hidden for p in group["params"])
    assert {role for group in hidden for role in group["roles"]} == {"hidden"}
    assert {role for group in rest for role in group["roles"]} == {"input", "output", "vector"}
    grouped = [id(p) for group in hidden + rest for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    torch.optim.Muon(hidden)
    adamw = torch.optim.AdamW(rest)
    assert {g["betas"] for g in adamw.param_groups} == {(0.9, 0.95)}


def test_split_groups_sends_convolutions_to_the_second():
    model, plan = planned(convnet)
    hidden, rest = plan.split_groups(model, muon={"lr": 0.02}, adamw={"lr": 3e-3})
    assert hidden == []
    assert sum(len(g["params"]) for g in rest) == len(list(model.parameters()))


@pytest.mark.parametrize("first", ["kfac", "shampoo", "soap"])
def test_kernels_of_convolutions_are_matrices_for_second_order(first):
    model, plan = planned(convnet)
    hidden, rest = plan.split_groups(
        model, **{first: {"lr": 0.02}}, adamw={"lr": 3e-3, "weight_decay": 0.1}
    )
    assert [tuple(p.shape) for group in hidden for p in group["params"]] == [(64, 32, 3, 3)]
    assert sum(len(g["params"]) for g in rest) == len(list(model.parameters())) - 1


def test_split_groups_needs_two():
    model, plan = planned()
    with pytest.raises(ValueError, match=r"takes two optimizers, .* got \['muon'\]"):
        plan.split_groups(model, muon={"lr": 0.02})


SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 0.9**step),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 2, gamma=0.5),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 10),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, start_factor=0.1, total_iters=4),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.8),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.LinearLR(opt, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(opt, 6)],
        milestones=[3],
    ),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(
        opt, max_lr=[group["lr"] for group in opt.param_groups], total_steps=10
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_keep_the_ratios(scheduler):
    model, plan = planned(gpt)
    groups = plan.param_groups(model, "adamw", lr=LR)
    ratios = [group["lr"] / groups[0]["lr"] for group in groups]
    assert len(set(ratios)) > 1
    optimizer = torch.optim.AdamW(copy.copy(groups))
    schedule = SCHEDULERS[scheduler](optimizer)
    first = set()
    for _ in range(8):
        optimizer.step()
        schedule.step()
        lrs = [group["lr"] for group in optimizer.param_groups]
        assert [lr / lrs[0] for lr in lrs] == pytest.approx(ratios, rel=1e-9)
        first.add(lrs[0])
    assert len(first) > 2  # it does schedule


def test_an_optimizer_resumes_from_its_state():
    model, plan = planned()
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR))
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    again = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=1.0))
    again.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups]


def test_wrappers_change_names_only():
    model, plan = planned(gpt)
    expected = [(g["lr"], len(g["params"])) for g in plan.param_groups(model, "adamw", lr=LR)]
    wrapped = (
        torch.compile(model, backend="eager"),
        nn.DataParallel(model),
        nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": model})}),
    )
    for wrapper in wrapped:
        groups = plan.param_groups(wrapper, "adamw", lr=LR)
        assert [(g["lr"], len(g["params"])) for g in groups] == expected
    assert clean_name("blocks.0._checkpoint_wrapped_module.norm.weight") == "blocks.0.norm.weight"
    assert clean_name("_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.w") == "blocks.0.w"
    assert clean_name("blocks.0.module.weight") == "blocks.0.module.weight"
    adapted = "base_model.model.blocks.0.up.base_layer.weight"  # planned with PEFT around it
    assert clean_name(f"module._orig_mod.{adapted}", {adapted}) == adapted
    assert clean_name(f"module.{adapted}", {"blocks.0.up.weight"}) == "blocks.0.up.weight"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("_orig_mod.blocks.0._orig_mod.w", "blocks.0._orig_mod.w"),  # blocks compiled, then all
        ("a.base_layer.q.base_layer.weight", "a.base_layer.q.weight"),  # a base_layer of its own
        ("base_model.model.a.base_layer.base_layer.weight", "a.base_layer.weight"),
        ("module.module.module.w", "module.w"),
        ("_forward_module._orig_mod.a.w", "a.w"),
        ("module._fsdp_wrapped_module.b._fsdp_wrapped_module._orig_mod.w", "b.w"),
    ],
)
def test_wrappers_come_off_one_by_one(name, known):
    assert clean_name(name, {known}) == known


@pytest.mark.parametrize("known", ["a.b.c.d.e.f.w", "a.b.c.d.e._orig_mod.f.w"])
def test_a_name_in_many_wrappers_is_looked_up_few_times(known):
    class Asked(dict):
        times = 0

        def __contains__(self, name):
            self.times += 1
            return super().__contains__(name)

    name, names = "module.module._orig_mod.module." + known, Asked({known: 1})
    for part in "abcde":
        name = name.replace(f"{part}.", f"{part}._fsdp_wrapped_module.", 1)
    assert clean_name(name, names) == known
    assert names.times < 60  # of over a hundred forms, each asked for twice


def test_a_saved_plan_gives_the_same_groups(tmp_path):
    model, plan = planned(gpt)
    plan.save(tmp_path / "plan.json")
    loaded = paramz.Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    for mine, other in zip(
        plan.param_groups(model, "adamw", lr=LR),
        loaded.param_groups(model, "adamw", lr=LR),
        strict=True,
    ):
        assert mine.keys() == other.keys()
        assert all(mine[k] == other[k] for k in mine if k != "params")
        assert all(a is b for a, b in zip(mine["params"], other["params"], strict=True))


def test_a_role_with_a_learning_rate_of_its_own() -> None:
    model, plan = planned()
    plain = plan.param_groups(model, "adamw", lr=LR)
    apart = plan.param_groups(model, "adamw", lr=LR, role_lr={"hidden": 8 * LR})
    for row in plan.rows:
        tensor = model.get_parameter(row.name)
        (old,) = [g for g in plain if any(p is tensor for p in g["params"])]
        (new,) = [g for g in apart if any(p is tensor for p in g["params"])]
        assert new["lr"] == (8 if row.role == "hidden" else 1) * old["lr"]
        assert new["weight_decay"] == old["weight_decay"]
    with pytest.raises(ValueError, match="has 'embedding', but the roles are input, hidden"):
        plan.param_groups(model, "adamw", lr=LR, role_lr={"embedding": 1.0})


def test_a_summary_has_the_learning_rates_of_the_class_that_it_is_of():
    class Muon(torch.optim.Optimizer):
        """By its options dion's, with another factor on its steps than torch's."""

        def __init__(self, params, lr=1e-3, adjust_lr="rms_norm"):
            super().__init__(params, {"lr": lr, "adjust_lr": adjust_lr})

    def build(width=8):
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))

    model = build(32)
    plan = paramz.parametrize_(model, "mup", base=build)
    muon = {"optimizer": Muon, "lr": 1.0}
    groups, _ = plan.split_groups(model, muon=muon, adamw={"lr": 1.0})
    shown = plan.summary(Muon)
    cells = next(row for row in shown.cells if row[0] == "1.weight")
    assert cells[shown.columns.index("lr")].endswith(f" = {groups[0]['lr']:.4g}")
    assert groups[0]["lr"] == pytest.approx(0.5)  # torch's own would be 1

    class Silent(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3):
            super().__init__(params, {"lr": lr})

    Silent.__name__ = "Muon"
    assert any("does not say which factor" in note for note in plan.summary(Silent).notes)


@pytest.mark.parametrize(("policy", "decay"), [("1/width", 0.1), ("sqrt-width", 0.05)])
def test_decay_by_width_in_a_model_that_is_narrower_than_its_base(policy, decay):
    def build(width=8):
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))

    plan = paramz.make_plan(build(8), "mup", base=build(32), wider=build(64))
    groups = plan.param_groups(build(8), "adamw", lr=1.0, weight_decay=0.1, decay=policy)
    (hidden,) = [group for group in groups if "1.weight" in group["names"]]
    assert hidden["lr"] == 4.0
    # lr * weight_decay is 0.1 of the base, times 4 or 2 at a quarter of its width.
    assert hidden["weight_decay"] == pytest.approx(decay)


def test_collapsed_names_are_those_of_tensors_that_there_are():
    class Grown(nn.Module):
        """Blocks of another number of layers each, as a DenseNet's."""

        def __init__(self, width=8):
            super().__init__()
            counts = (1, 2, 3, 2)
            self.first, self.last = nn.Linear(4, width), nn.Linear(width, 2)
            self.block = nn.ModuleList(
                nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(n)) for n in counts
            )

        def forward(self, x):
            x = self.first(x)
            for block in self.block:
                for layer in block:
                    x = layer(x)
            return self.last(x)

    shown = paramz.make_plan(Grown(32), "mup", base=Grown).summary()
    assert [row[0] for row in shown.cells if row[0].startswith("block")] == [
        "block.0.0.weight", "block.{1,3}.{0..1}.weight", "block.2.{0..2}.weight"
    ]  # fmt: skip


@pytest.mark.parametrize("planned", [32, 64], ids=["at the base", "wider"])
def test_a_plan_of_a_smaller_model_is_refused_for_a_larger_one(planned):
    def net(width, words=50):
        return nn.Sequential(
            nn.Embedding(words, width), nn.Linear(width, width), nn.Linear(width, words)
        )

    plan = paramz.parametrize_(net(planned), "mup", base=net, base_width=32)
    with pytest.raises(ValueError, match=r"1.weight is \(128, 128\), .* \(\d+, \d+\)|0.weight is"):
        plan.param_groups(net(128), "adamw", lr=0.01)
    assert plan.param_groups(net(planned, words=64), "adamw", lr=0.01)  # a longer vocabulary
    shard = net(planned)
    shard[1].weight = nn.Parameter(shard[1].weight[: planned // 2])
    assert plan.param_groups(shard, "adamw", lr=0.01)

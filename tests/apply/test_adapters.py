"""Adapters over rank: PEFT's LoRA and its relatives under `lora` and `mup+lora`."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import paramz
from paramz.anatomy.ranks import at_rank
from paramz.plan.plan import Plan

peft = pytest.importorskip("peft")

WIDTH = 32


class Net(nn.Module):
    """Two residual layers between an embedding and a readout."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x + self.one(x).relu()
        return self.head(x + self.two(x).relu())


def adapted(width=WIDTH, rank=4, *, kind=peft.LoraConfig, modules=("one", "two"), **options):
    torch.manual_seed(0)
    if kind is peft.LoraConfig:
        options = {"lora_alpha": rank, **options}
    if kind is not peft.IA3Config:
        options["r"] = rank
    return peft.get_peft_model(Net(width), kind(target_modules=list(modules), **options))


def random_up(width=WIDTH, rank=4, **options):
    """Adapters whose second factor starts at random, and the first at zero."""
    model = adapted(width, rank, **options)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            nn.init.zeros_(parameter)
        if "lora_B" in name:
            nn.init.normal_(parameter, std=rank**-0.5)
    return model


def rates(plan: Plan, model: nn.Module, optimizer="adamw") -> dict[str, tuple[float, float]]:
    groups = plan.param_groups(model, optimizer, lr=1.0, weight_decay=0.1)
    return {
        role: (group["lr"], group["weight_decay"]) for group in groups for role in group["roles"]
    }


A, B = (f"base_model.model.one.lora_{factor}.default.weight" for factor in "AB")


@pytest.mark.parametrize(
    ("optimizer", "options", "wanted"),
    [
        ("adamw", {}, {"latent": (1.0, 0.1), "outward": (0.25, 0.4)}),
        ("adamw", {"lora_alpha": 8}, {"latent": (1.0, 0.1), "outward": (1.0, 0.1)}),
        (
            "adamw",
            {"lora_alpha": 8, "use_rslora": True},
            {"latent": (1.0, 0.1), "outward": (0.5, 0.2)},
        ),
        ("sgd", {}, {"latent": (4.0, 0.025), "outward": (0.25, 0.4)}),
        ("sgd", {"lora_alpha": 8}, {"latent": (4.0, 0.025), "outward": (4.0, 0.025)}),
    ],
)
def test_rates_follow_the_rank_and_the_scaling_in_the_layer(optimizer, options, wanted):
    model = adapted(rank=16, **options)
    plan = paramz.parametrize_(model, "lora", base=adapted(rank=4, **options))
    found = rates(plan, model, optimizer)
    assert {role: pytest.approx(values) for role, values in wanted.items()} == found


@pytest.mark.parametrize("scheme", ["lora", "rslora"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_the_scaling_is_an_abc_shift_of_the_second_factor(scheme, optimizer):
    """A rule for the product s B gives that of B, as s stands behind it."""
    family = paramz.family(optimizer)
    rule = paramz.parametrization(scheme).rule(family.column, "outward")
    fields = ("init_std", "lr", "eps", "weight_decay")

    def apart(power: paramz.Power) -> paramz.Power:
        return paramz.Power(**{scale: e for scale, e in power.exponents if scale != "scaling"})

    whole = paramz.Rule(**{name: apart(getattr(rule, name)) for name in fields})
    shifted = whole.shift(paramz.Power(scaling=1), family, behind=True)
    assert [getattr(shifted, name) for name in fields] == [getattr(rule, name) for name in fields]


@pytest.mark.parametrize("scheme", ["lora", "rslora"])
def test_at_the_base_nothing_changes(scheme):
    model, plain = adapted(), adapted()
    plan = paramz.parametrize_(model, scheme, base=adapted())
    for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert {lr for lr, _ in rates(plan, model).values()} == {1.0}
    assert Plan.from_json(plan.to_json()) == plan
    assert paramz.parametrize_(model, scheme, base=adapted()) is plan  # the same call again


def test_the_trained_model_stays_as_it_is_bit_for_bit():
    """Its values, its factors, and what it computes; only adapters are drawn by the rule."""
    build = partial(adapted, init_lora_weights="gaussian")  # A at 1 / rank
    model, ids = build(64, 16), torch.arange(11)[None]
    before = {name: p.clone() for name, p in model.named_parameters()}
    out = model(ids)
    plan = paramz.parametrize_(
        model, "mup+lora", base=partial(build, rank=4), base_width=WIDTH, example=ids
    )
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == [A, A.replace("one", "two")]
    assert torch.equal(model(ids), out)
    assert (plan.attention, plan.multipliers, plan.branches) == ((), {}, {})
    assert "adapters: rank times 4, scaling times 1" in plan.notes
    # width^-1/2 of muP; over the rank none, where PEFT's own draw has 1 / rank
    assert float(model.get_parameter(A).detach().std()) == pytest.approx(0.25 * 0.5**0.5, rel=0.15)
    assert rates(plan, model) == {"latent": (0.5, 0.2), "outward": (0.25, 0.4)}


def test_a_random_second_factor_starts_as_a_readout_of_the_rank_times_the_scaling():
    model = random_up(rank=16, lora_alpha=8)
    plan = paramz.parametrize_(model, "lora", base=random_up(rank=4, lora_alpha=8))
    roles = {row.name: row.role for row in plan.rows}
    assert (roles[A], roles[B]) == ("inward", "outward")
    # at rank 4 it was drawn at 1/2 with scaling 2; here the scaling is 1/2
    assert float(model.get_parameter(B).detach().std()) == pytest.approx(0.5 / 4 * 4, rel=0.1)
    assert rates(plan, model)["inward"][0] == 1.0


def test_a_number_is_the_rank_of_the_base_on_the_same_tensors():
    model = adapted(rank=16, lora_alpha=16, rank_pattern={"two": 8})
    twin = at_rank(model, 4)
    assert twin.get_parameter(A).shape == (4, WIDTH)
    assert twin.get_parameter(A.replace("one", "two")).shape == (2, WIDTH)
    head = "base_model.model.head.weight"
    assert twin.get_parameter(head) is model.get_parameter(head)
    by_number = paramz.parametrize_(model, "lora", base=4)
    # so that a user who tuned with another alpha than the target's learns of it
    assert by_number.notes[0] == (
        "adapters: rank times 4, scaling times 0.25 (from 4: if you tuned with another alpha, give "
        "that model as base)"
    )
    assert rates(by_number, model)["outward"][0] == 1.0
    with pytest.raises(ValueError, match="rank_pattern.'two'. = 8 would be 1.5 at r=3"):
        at_rank(model, 3)


def test_a_head_that_is_trained_beside_the_adapters_stays_as_it_is():
    model = adapted(rank=16, modules_to_save=["head"])
    model.add_adapter("other", peft.LoraConfig(r=8, target_modules=["one"]))
    head = model.get_parameter("base_model.model.head.modules_to_save.default.weight")
    before = head.detach().clone()
    trained = [p.requires_grad for p in model.parameters()]
    plan = paramz.parametrize_(model, "lora", base=4)
    assert torch.equal(head, before)
    assert [p.requires_grad for p in model.parameters()] == trained
    ratios = {row.name: dict(row.ratios) for row in plan.rows}
    assert ratios[A] == {"rank": 4.0}
    assert ratios[A.replace("default", "other")] == {"rank": 2.0}
    assert rates(plan, model)["scalar"] == (1.0, 0.1)


def test_dora_and_ia3_have_gains_without_a_rank():
    model = adapted(rank=16, use_dora=True)
    plan = paramz.parametrize_(model, "lora", base=adapted(rank=4, use_dora=True))
    gain = next(row for row in plan.rows if "magnitude" in row.name)
    assert (gain.role, dict(gain.ratios)) == ("scalar", {})
    ia3 = adapted(kind=peft.IA3Config, feedforward_modules=["two"])
    with pytest.raises(ValueError, match="gains without a rank, so over ranks nothing moves"):
        paramz.make_plan(ia3, "lora", base=ia3)
    wide = partial(adapted, kind=peft.IA3Config, feedforward_modules=["two"])
    plan = paramz.make_plan(
        wide(64), "mup+lora", base=wide, base_width=WIDTH, example=torch.arange(11)[None]
    )
    assert [row.role for row in plan.rows if "ia3" in row.name] == ["vector", "vector"]


def test_vera_has_a_gain_for_every_coordinate_of_the_rank():
    build = partial(adapted, kind=peft.VeraConfig)
    model = build(rank=64)
    plan = paramz.parametrize_(model, "lora", base=build(rank=16))
    d, b = (next(r for r in plan.rows if f"lambda_{which}" in r.name) for which in "db")
    assert (d.role, dict(d.ratios)) == ("vector", {"rank": 4.0})
    assert (b.role, dict(b.ratios)) == ("scalar", {})
    groups = plan.param_groups(model, "adamw", lr=1.0)
    assert {(group["lr"], group["eps"]) for group in groups} == {(1.0, 1e-8), (1.0, 0.5e-8)}


def test_adapters_on_an_embedding_start_at_zero_in_the_table():
    build = partial(adapted, modules=("embed",))
    model = build(64, 16)
    plan = paramz.parametrize_(
        model, "mup+lora", base=partial(build, rank=4), base_width=WIDTH,
        example=torch.arange(11)[None],
    )  # fmt: skip
    table, up = (row for row in plan.rows if "lora_embedding" in row.name)
    assert (table.role, dict(table.ratios)) == ("inward", {"rank": 4.0})
    assert (up.role, dict(up.ratios)) == ("outward", {"fan_out": 2.0, "rank": 4.0, "scaling": 1.0})
    assert float(model.get_parameter(up.name).detach().std()) == pytest.approx(0.25, rel=0.1)


def test_kinds_without_a_rule_are_refused_with_what_is_missing():
    model = adapted(kind=peft.HRAConfig)
    with pytest.raises(ValueError, match="kind HRA: nobody has said here how what it") as error:
        paramz.parametrize_(model, "lora", base=model)
    assert "It has rules for LORA, VERA, IA3" in str(error.value)
    with pytest.raises(ValueError, match="lora is for adapters, and this Net has none"):
        paramz.parametrize_(Net(), "lora", base=Net())
    model = adapted(init_lora_weights="olora")
    with pytest.raises(ValueError, match="neither factor of .* starts at zero"):
        paramz.parametrize_(model, "lora", base=4)


def test_what_would_change_the_trained_model_is_refused():
    model = adapted(rank=16)
    with pytest.raises(ValueError, match="rules for depth or experts, whose factors would change"):
        paramz.parametrize_(model, "mup+completep+lora", base=4)
    with pytest.raises(ValueError, match="fold=False puts multipliers on layers"):
        paramz.parametrize_(model, "lora", base=4, fold=False)
    with pytest.raises(ValueError, match="lora has no rule for width.*'mup.lora'"):
        paramz.parametrize_(adapted(64, 16), "lora", base=adapted(32, 4))


def test_trained_adapters_are_adopted_as_they_are():
    model = adapted(rank=16)
    nn.init.ones_(model.get_parameter(B))
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="paramz.adopt_.model, .... gives them their learning"):
        paramz.parametrize_(model, "lora", base=4)
    plan = paramz.adopt_(model, "lora", base=adapted(rank=4))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert rates(plan, model)["outward"][0] == 0.25


def test_adapters_go_on_a_model_that_was_adopted():
    net = Net(64)
    ids, out = torch.arange(11)[None], net(torch.arange(11)[None])
    paramz.adopt_(net, "mup", base=Net, base_width=WIDTH)
    model = peft.get_peft_model(net, peft.LoraConfig(r=16, lora_alpha=16, target_modules=["one"]))
    plan = paramz.parametrize_(model, "lora", base=4)
    assert torch.equal(model(ids), out)
    assert [row.role for row in plan.rows if "lora" in row.name] == ["latent", "outward"]


@pytest.mark.parametrize("shared", ["weights", "modules"])
def test_factors_that_layers_share_have_their_uses_however_they_are_shared(shared):
    model = adapted(rank=8)
    one, two = model.base_model.model.one, model.base_model.model.two
    for factor in ("lora_A", "lora_B"):
        held, other = getattr(one, factor), getattr(two, factor)
        if shared == "modules":
            other["default"] = held["default"]
        else:
            other["default"].weight = held["default"].weight
    plan = paramz.make_plan(model, "lora", base=adapted(rank=4))
    assert [r.ratios.get("uses") for r in plan.rows if "lora" in r.name] == [2.0, 2.0]


@pytest.mark.parametrize("drawn", ["pissa", "pissa_niter_2", "OLoRA"])
def test_a_base_at_another_rank_leaves_the_weights_that_it_shares(drawn):
    """PEFT takes what such factors make off the weights, which are those of the trained model."""
    model = adapted(rank=8, init_lora_weights=drawn)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = paramz.make_plan(model, "lora", base=4)
    paramz.adopt_(model, "lora", base=4)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert {row.ratios["rank"] for row in plan.rows if row.role == "outward"} == {2.0}


def test_adapters_of_another_rank_are_suggested_their_scheme():
    found = paramz.suggest(adapted(rank=16), "adamw", base=adapted(rank=4))
    assert (found.scheme, found.because) == ("lora", ("adapters: PEFT's LORA", "rank times 4"))


def llama_with_adapters(width, rank, **options):
    from cases import llama

    config = peft.LoraConfig(
        r=rank, lora_alpha=8, target_modules=["q_proj", "down_proj"], **options
    )
    return peft.get_peft_model(llama(width), config)


def test_a_number_is_suggested_as_a_width_and_where_it_is_none_as_a_rank():
    found = paramz.suggest(llama_with_adapters(64, 8), base=32)
    assert (found.scheme, found.because[1:]) == ("mup", ("width times 2",))
    assert "make_plan(model, 'rslora', base=32)" in " ".join(found.warnings)
    found = paramz.suggest(llama_with_adapters(64, 8), base=3)
    assert (found.scheme, found.because[1]) == ("rslora", "rank times 2.667")
    # A model of no config of Hugging Face has no other width, so a number can be a rank only.
    assert paramz.suggest(adapted(rank=16), base=4).scheme == "lora"


def test_a_base_of_the_same_width_may_be_a_factory_that_takes_nothing():
    model = adapted(rank=16, lora_alpha=8)
    plan = paramz.make_plan(model, "lora", base=lambda: adapted(rank=4, lora_alpha=8))
    assert plan.notes == paramz.make_plan(model, "lora", base=4).notes
    with pytest.raises(TypeError, match="pass base_width="):
        paramz.make_plan(model, "mup+lora", base=lambda: adapted(rank=4))
    with pytest.raises(TypeError, match="base=4 is a rank.* base_width=32 would do nothing"):
        paramz.make_plan(model, "lora", base=4, base_width=32)
    # The config of the adapters, in whose place a rank is meant, and of which torch knows nothing.
    with pytest.raises(
        TypeError, match="that builds one, not LoraConfig: base=8, the rank at which"
    ):
        paramz.make_plan(model, "lora", base=peft.LoraConfig(r=4))


def test_a_config_builds_the_base_at_another_width_and_rank():
    model = llama_with_adapters(64, 16)
    base = paramz.hf.config_factory(model, rank=4)
    plan = paramz.parametrize_(model, "mup+lora", base=base, base_width=32)
    assert any("rank times 4, scaling times 0.25 (from " in note for note in plan.notes)
    assert rates(plan, model) == {"latent": (0.5, 0.2), "outward": (1.0, 0.1)}


@pytest.mark.parametrize("base", [4, 8])  # no width of the model, and one as small as the rank
def test_a_rank_beside_a_width_scheme_is_refused_with_the_ways_to_give_it(base):
    model = llama_with_adapters(64, 16)
    ways = rf"base={base} under 'lora' .*config_factory\(model, rank={base}\), base_width="
    with pytest.raises(ValueError, match=ways):
        paramz.make_plan(model, "mup+lora", base=base)


def targets(model, batch):
    ids, labels = batch
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten())


def checked(parametrization, optimizer, lr, **options):
    ids = torch.arange(128).remainder(11).reshape(4, 32)
    labels = (ids * 7 + ids.roll(1, 1)).remainder(3)
    frame = paramz.coord_check(
        partial(adapted_for_check, **options), (ids, labels), loss=targets, ranks=[4, 8, 16, 32],
        base_width=64, parametrization=parametrization, optimizer=optimizer, lr=lr, steps=2,
        seeds=2,
    )  # fmt: skip
    return paramz.judge(frame)


def adapted_for_check(width, rank, **options):
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=["one", "two"], **options)
    return peft.get_peft_model(Net(width), config)


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [("adamw", 2**-9), pytest.param("sgd", 0.1, marks=pytest.mark.slow)],
)
def test_changes_keep_their_size_over_ranks_with_the_rule_only(optimizer, lr):
    assert checked("lora", optimizer, lr).outcome == "pass"
    assert checked("sp", optimizer, lr).outcome == "fail"


def test_adapters_that_were_loaded_frozen_are_said():
    model = adapted(rank=8)
    plan = paramz.make_plan(model, "lora", base=4)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no tensor of this model trains.*is_trainable=True"):
        plan.param_groups(model, "adamw", lr=1.0)

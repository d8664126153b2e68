"""Exports: what a framework makes of them is what the plan says, tensor by tensor."""

import re
from functools import cache

import frameworks
import pytest
import torch
from cases import gpt2, llama, mlp
from frameworks import Nanochat, running
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import paramz
from paramz.plan.export.patterns import globs, regexes

LLAMA = {
    "megatron": [
        (r"^model\.embed_tokens", "embedding.word_embeddings"),
        (r"^model\.layers", "decoder.layers"),
        (r"self_attn\.[qkv]_proj", "self_attention.linear_qkv"),
        (r"self_attn\.o_proj", "self_attention.linear_proj"),
        (r"mlp\.(gate|up)_proj", "mlp.linear_fc1"),
        (r"mlp\.down_proj", "mlp.linear_fc2"),
        (r"input_layernorm\.weight", "self_attention.linear_qkv.layer_norm_weight"),
        (r"post_attention_layernorm\.weight", "mlp.linear_fc1.layer_norm_weight"),
        (r"^model\.norm", "decoder.final_layernorm"),
        (r"^lm_head", "output_layer"),
    ],
    "torchtitan": [
        (r"^model\.embed_tokens", "tok_embeddings"),
        (r"^model\.", ""),
        (r"self_attn\.([qkvo])_proj", r"attention.w\1"),
        (r"mlp\.gate_proj", "feed_forward.w1"),
        (r"mlp\.down_proj", "feed_forward.w2"),
        (r"mlp\.up_proj", "feed_forward.w3"),
        (r"input_layernorm", "attention_norm"),
        (r"post_attention_layernorm", "ffn_norm"),
        (r"^lm_head", "output"),
    ],
    "olmo-core": [
        (r"^model\.embed_tokens", "embeddings"),
        (r"^model\.layers", "blocks"),
        (r"self_attn\.([qkv])_proj", r"attention.w_\1"),
        (r"self_attn\.o_proj", "attention.w_out"),
        (r"mlp\.gate_proj", "feed_forward.w1"),
        (r"mlp\.down_proj", "feed_forward.w2"),
        (r"mlp\.up_proj", "feed_forward.w3"),
        (r"input_layernorm", "attention_norm"),
        (r"post_attention_layernorm", "feed_forward_norm"),
        (r"^model\.norm", "lm_head.norm"),
        (r"^lm_head\.weight", "lm_head.w_out.weight"),
    ],
}
GPT2_MEGATRON = [
    (r"^transformer\.wte", "embedding.word_embeddings"),
    (r"^transformer\.wpe", "embedding.position_embeddings"),
    (r"^transformer\.h", "decoder.layers"),
    (r"attn\.c_attn", "self_attention.linear_qkv"),
    (r"attn\.c_proj", "self_attention.linear_proj"),
    (r"mlp\.c_fc", "mlp.linear_fc1"),
    (r"mlp\.c_proj", "mlp.linear_fc2"),
    (r"ln_1\.", "self_attention.linear_qkv.layer_norm_"),
    (r"ln_2\.", "mlp.linear_fc1.layer_norm_"),
    (r"^transformer\.ln_f", "decoder.final_layernorm"),
    (r"^lm_head", "output_layer"),
]
# Rates that the base was tuned at, with decay and epsilon of one's own.
SETTINGS = {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-7, "betas": (0.9, 0.95)}


@cache
def planned(build, scheme="mup", width=64, base=32):
    """A model and its plan."""
    torch.manual_seed(0)
    model = build(width)
    return model, paramz.parametrize_(model, scheme, base=build, base_width=base)


def skeleton(model, plan, names):
    """A module with the framework's tensors: renamed, and joined where two get one name."""
    root = nn.Module()
    for row in plan.rows:
        name = row.name
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        values = model.get_parameter(row.name).detach()
        old = getattr(place, last, None)
        joined = values if old is None else torch.cat([old.detach(), values])
        place.register_parameter(last, nn.Parameter(torch.zeros_like(joined)))
    return root


def renamed(name, names):
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def agree(plan, model, groups, theirs, their_groups, names=()):
    """Every tensor has the plan's lr, decay and epsilon in the framework's groups."""
    found = {id(p): group for group in their_groups for p in group["params"]}
    assert len(found) == len(list(theirs.parameters()))
    wanted = {name: group for group in groups for name in group["names"]}
    assert set(wanted) == {row.name for row in plan.rows}
    for row in plan.rows:
        has = found[id(theirs.get_parameter(renamed(row.name, names)))]
        for key in ("lr", "weight_decay", "eps"):
            if key in wanted[row.name]:
                assert has[key] == pytest.approx(wanted[row.name][key], rel=1e-9), (row.name, key)


def starts_agree(plan, space, theirs, names=()):
    """`start_` draws every tensor with the plan's std, and constants with their value."""
    torch.manual_seed(1)
    space.start_(theirs)
    for row in plan.rows:
        drawn = theirs.get_parameter(renamed(row.name, names)).detach()
        if row.base_init.kind == "constant":
            assert bool((drawn == row.base_init.value).all()), row.name
            continue
        std, error = plan.init_std(row), (0.5 / row.base_init.size + 0.5 / drawn.numel()) ** 0.5
        got = drawn.double().pow(2).mean().sqrt().item()
        assert got == pytest.approx(std, rel=5 * error + 1e-3), row.name


def exact(export, plan, names=()):
    """No pattern fits a tensor of another group."""
    for group in export.groups:
        mine = {renamed(row.name, names) for row in plan.rows} & set(group.names)
        everyone = {renamed(row.name, names) for row in plan.rows}
        if export.framework != "olmo-core":
            assert {n for n in everyone if re.fullmatch(group.patterns[0], n)} == mine
    for pattern, _, _ in export.starts:
        hit = [other for other, _, _ in export.starts if other != pattern]
        for name in (renamed(row.name, names) for row in plan.rows):
            if re.fullmatch(pattern, name):
                assert not any(re.fullmatch(other, name) for other in hit)


@pytest.mark.parametrize(
    ("build", "scheme", "names"),
    [(llama, "mup", LLAMA["megatron"]), (gpt2, "mup+completep", GPT2_MEGATRON)],
)
def test_megatron_builds_the_plans_groups(monkeypatch, build, scheme, names):
    model, plan = planned(build, scheme)
    export = plan.export("megatron", "adamw", names=names, **SETTINGS)
    theirs = skeleton(model, plan, names)
    with running(monkeypatch, export.text, **frameworks.MEGATRON) as space:
        wrapped = nn.Module()
        wrapped.module = theirs
        for progress, part in ((0.0, 1.0), (0.5, 0.55)):
            optimizer = frameworks.megatron(space, wrapped, progress)
            groups = plan.param_groups(model, "adamw", **{**SETTINGS, "lr": 0.01 * part})
            agree(plan, model, groups, theirs, optimizer.param_groups, names)
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
        starts_agree(plan, space, theirs, names)
    exact(export, plan, names)
    assert len(export.groups) == len(plan.param_groups(model, "adamw", **SETTINGS))


def test_megatron_has_the_fields_that_hold_an_init_and_the_scale_of_attention(monkeypatch):
    _, plan = planned(gpt2)
    export = plan.export("megatron", "adamw", lr=0.01, names=GPT2_MEGATRON)
    with running(monkeypatch, export.text, **frameworks.MEGATRON) as space:
        assert space.MODEL["init_method_std"] == pytest.approx(0.02 * 2**-0.5, rel=0.03)
        assert space.MODEL["embedding_init_method_std"] == pytest.approx(0.02, rel=0.05)
        assert space.MODEL["softmax_scale"] == pytest.approx(8**-0.5 / 2)
    assert any(each.startswith("multiplier: lm_head: ") for each in export.missing)
    assert not any(each.startswith("attention") for each in export.missing)
    assert all(f"#   - {each}" in export.text for each in export.missing)


def test_megatrons_sgd_and_plain_adam(monkeypatch):
    model, plan = planned(llama)
    names = LLAMA["megatron"]
    theirs = skeleton(model, plan, names)
    for optimizer, settings in (("sgd", {"momentum": 0.9}), ("adam", {"weight_decay": 0.1})):
        export = plan.export("megatron", optimizer, lr=0.1, names=names, **settings)
        assert not any("does not pass on" in each for each in export.missing)
        with running(monkeypatch, export.text, **frameworks.MEGATRON) as space:
            made = frameworks.megatron(space, theirs)
        assert type(made).__name__.lower() == optimizer
        groups = plan.param_groups(model, optimizer, lr=0.1, **settings)
        agree(plan, model, groups, theirs, made.param_groups, names)


@pytest.mark.parametrize(
    ("build", "names"), [(llama, LLAMA["torchtitan"]), (gpt2, [(r"^transformer\.", "")])]
)
def test_torchtitan_builds_the_plans_groups(monkeypatch, build, names):
    model, plan = planned(build)
    export = plan.export("torchtitan", "adamw", names=names, **SETTINGS)
    theirs = skeleton(model, plan, names)
    with running(monkeypatch, export.text, **frameworks.TORCHTITAN) as space:
        (optimizer,) = frameworks.torchtitan(space, theirs)
        groups = plan.param_groups(model, "adamw", **SETTINGS)
        agree(plan, model, groups, theirs, optimizer.param_groups, names)
        starts_agree(plan, space, theirs, names)
    exact(export, plan, names)
    block = re.compile(export.groups[0].patterns[0])
    inside = next(n for n in export.groups[0].names if re.search(r"\.0\.", n))
    assert block.fullmatch(inside.replace(".0.", ".0._checkpoint_wrapped_module.", 1))


def test_torchtitan_trains_with_muon_beside_adamw(monkeypatch):
    model, plan = planned(llama)
    two = {"muon": {"lr": 0.02, "weight_decay": 0.1}, "adamw": {"lr": 0.003}}
    export = plan.export("torchtitan", names=LLAMA["torchtitan"], **two)
    theirs = skeleton(model, plan, LLAMA["torchtitan"])
    with running(monkeypatch, export.text, **frameworks.TORCHTITAN) as space:
        optimizers = frameworks.torchtitan(space, theirs)
    assert {type(each).__name__ for each in optimizers} == {"AdamW", "Muon"}
    groups = [group for some in plan.split_groups(model, **two) for group in some]
    theirs_groups = [group for each in optimizers for group in each.param_groups]
    agree(plan, model, groups, theirs, theirs_groups, LLAMA["torchtitan"])


@pytest.mark.parametrize(("build", "names"), [(llama, LLAMA["olmo-core"]), (gpt2, ())])
def test_olmo_core_builds_the_plans_groups(monkeypatch, build, names):
    model, plan = planned(build)
    export = plan.export("olmo-core", "adamw", names=names, **SETTINGS)
    theirs = skeleton(model, plan, names)
    with running(monkeypatch, export.text, **frameworks.OLMO_CORE) as space:
        optimizer = frameworks.olmo_core(space, theirs)
        groups = plan.param_groups(model, "adamw", **SETTINGS)
        agree(plan, model, groups, theirs, optimizer.param_groups, names)
        starts_agree(plan, space, theirs, names)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    exact(export, plan, names)


@pytest.mark.parametrize(("build", "optimizer"), [(llama, "adamw"), (gpt2, "adam"), (mlp, "sgd")])
def test_deepspeed_builds_the_plans_groups(monkeypatch, build, optimizer):
    model, plan = planned(build, "mup+completep" if build is llama else "mup")
    settings = {"lr": 0.01, "weight_decay": 0.1}
    export = plan.export("deepspeed", optimizer, **settings)
    with running(monkeypatch, export.text, deepspeed={}) as space:
        made = frameworks.deepspeed(space, model)
        assert type(made).__name__.lower() == optimizer
        groups = plan.param_groups(model, optimizer, **settings)
        agree(plan, model, groups, model, made.param_groups)
        starts_agree(plan, space, skeleton(model, plan, ()))
    exact(export, plan)


@pytest.mark.parametrize("build", [llama, gpt2])
def test_the_trainer_builds_the_plans_groups(monkeypatch, tmp_path, build):
    from transformers import Trainer, TrainingArguments

    pytest.importorskip("accelerate")
    model, plan = planned(build)
    export = plan.export("trainer", "adamw", **SETTINGS)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with running(monkeypatch, export.text) as space:
        asked = space.optimizer_cls_and_kwargs(model)
        made = Trainer(model, arguments, optimizer_cls_and_kwargs=asked).create_optimizer()
        groups = plan.param_groups(model, "adamw", **SETTINGS)
        agree(plan, model, groups, model, made.param_groups)
        starts_agree(plan, space, skeleton(model, plan, ()))
    exact(export, plan)


def newer(width):
    return Nanochat(width, newer=True)


@pytest.mark.parametrize("build", [Nanochat, newer])
def test_nanochat_builds_the_plans_groups(monkeypatch, build):
    torch.manual_seed(0)
    model = build(64)
    ids = torch.arange(12).reshape(2, 6)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=32, example=ids)
    # Its Muon decays by the rate that was multiplied, so shapes that grow alike keep their decay.
    two = {"muon": {"lr": 0.02, "weight_decay": 0.1}, "adamw": {"lr": 0.004, "eps": 1e-10}}
    export = plan.export("nanochat", **two)
    with running(monkeypatch, export.text) as space:
        optimizer = model.setup_optimizer(**space.SETUP)
        by_kind = {group["kind"]: group for group in optimizer.param_groups}
        assert by_kind["muon"]["lr"] == 0.02
        rates = [group["lr"] for group in optimizer.param_groups[:2]]
        wanted = {
            n: g["lr"] for some in plan.split_groups(model, **two) for g in some for n in g["names"]
        }
        assert rates == pytest.approx([wanted["lm_head.weight"], wanted["transformer.wte.weight"]])
        space.settle_(optimizer, model)
        groups = [group for some in plan.split_groups(model, **two) for group in some]
        for group in groups:
            group.pop("eps") if group["planned_for"] == "muon" else None
        agree(plan, model, groups, model, optimizer.param_groups)
        starts_agree(plan, space, skeleton(model, plan, ()))
    exact(export, plan)


def test_one_tensor_of_two_with_other_values_is_refused():
    def build(width):
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))

    _, plan = planned(build)
    with pytest.raises(
        ValueError,
        match=r"makes one tensor both.weight of 1.weight and 2.weight, w"
        r"hose (lr|init|eps) under the plan is .* leave them apart",
    ):
        plan.export("trainer", "adamw", lr=0.1, names=[(r"^[12]\.", "both.")])


def test_what_cannot_be_exported_is_refused_with_the_way_out():
    _, plan = planned(mlp)
    with pytest.raises(ValueError, match="'jax' is none of megatron, torchtitan"):
        plan.export("jax", "adamw", lr=0.1)
    with pytest.raises(
        ValueError, match=r"names: the pattern 'transformer' is found in no name.*0"
    ):
        plan.export("trainer", "adamw", lr=0.1, names=[("transformer", "")])
    with pytest.raises(ValueError, match=r"names: \('\(', ''\): missing \)"):
        plan.export("trainer", "adamw", lr=0.1, names=[("(", "")])
    with pytest.raises(ValueError, match="Megatron-Core is exported to with adamw.*not with rmsp"):
        plan.export("megatron", "rmsprop", lr=0.1)
    with pytest.raises(ValueError, match="kfac is an optimizer of paramz.optim, which no framewo"):
        plan.export("deepspeed", "kfac", lr=0.1)
    with pytest.raises(ValueError, match=r"takes two optimizers.*got \['lr'\]"):
        plan.export("nanochat", lr=0.1)
    with pytest.raises(
        ValueError, match="nanochat's model has transformer.wte.weight.*give names="
    ):
        plan.export("nanochat", muon={"lr": 0.1}, adamw={"lr": 0.1})
    with pytest.raises(ValueError, match="OLMo-core is for one optimizer"):
        plan.export("olmo-core", muon={"lr": 0.1}, adamw={"lr": 0.1})
    with pytest.raises(TypeError, match="weigth_decay=0.1 is no option of adamw"):
        plan.export("trainer", "adamw", lr=0.1, weigth_decay=0.1)


def test_what_is_missing_is_said():
    _, tied = planned(gpt2, "mup+completep")
    said = "\n".join(tied.export("trainer", "adamw", lr=0.1).missing)
    assert re.search(r"attention: transformer\.h\.\{0\.\.1\}\.attn: scaling = 0\.17", said)
    assert "multiplier: lm_head: what goes in" in said
    unmeasured = paramz.make_plan(mlp(64), "mup", base=mlp, base_width=32)
    said = "\n".join(unmeasured.export("trainer", "adamw", lr=0.1).missing)
    assert "init of 0.weight, 0.bias, 2.weight and 5 more: the plan holds none" in said
    said = "\n".join(planned(mlp)[1].export("megatron", "adamw", lr=0.1, amsgrad=True).missing)
    assert "amsgrad=True of adamw: an option that it does not pass on" in said


def test_megatron_has_no_field_for_the_factor_on_torchs_own_attention():
    def encoder(width):
        layer = nn.TransformerEncoderLayer(width, 2, 4 * width, batch_first=True)
        return nn.Sequential(nn.Linear(4, width), layer, nn.Linear(width, 2))

    model = encoder(64)
    plan = paramz.parametrize_(model, "mup", base=encoder, base_width=32)
    (scale,) = plan.attention
    assert (scale.plain, scale.value) == (1.0, pytest.approx(2**-0.5))  # not 1/sqrt(d_head)
    export = plan.export("megatron", "adamw", lr=0.1)
    assert "softmax_scale" not in export.text
    assert any(
        each.startswith("attention: 1.self_attn: key input = 0.707") for each in export.missing
    )


def test_megatrons_experts_are_drawn_with_their_own_random_numbers(monkeypatch):
    _, plan = planned(mlp)
    names = [(r"^2\.", "mlp.experts.local_experts.0.linear_fc1.")]
    export = plan.export("megatron", "adamw", lr=0.1, names=names)
    theirs = skeleton(mlp(64), plan, names)
    for parameter in theirs.parameters():
        parameter.tensor_model_parallel = True
    frameworks.Tracker.forks.clear()
    with running(monkeypatch, export.text, **frameworks.MEGATRON) as space:
        space.start_(theirs)
    drawn = len(list(theirs.parameters()))
    assert frameworks.Tracker.forks == {"expert-parallel-rng": 2, "model-parallel-rng": drawn - 2}


class Gated(nn.Module):
    """With values that code computes: rates of decay, and gates that start open."""

    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 2)
        self.A_log = nn.Parameter(torch.arange(1.0, 9.0).log().repeat(width, 1))
        self.gate = nn.Parameter(2 + torch.randn(width))

    def forward(self, x):
        return self.down(self.up(x) * self.gate.sigmoid() * self.A_log.exp().mean(1))


def test_values_that_are_no_draws_around_zero_are_left_to_the_model(monkeypatch):
    model, plan = planned(Gated)
    before = {name: values.detach().clone() for name, values in model.named_parameters()}
    export = plan.export("trainer", "adamw", lr=0.1)
    with running(monkeypatch, export.text) as space:
        space.start_(model)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"up.weight", "up.bias", "down.weight", "down.bias"}
    said = "\n".join(export.missing)
    assert (
        "init of A_log, gate: in the base they are no draws around zero, so start_ leaves" in said
    )


def test_modules_that_name_a_padding_index_and_have_no_table_are_passed_over(monkeypatch):
    def build(width):
        model = nn.Sequential(nn.Embedding(16, width, padding_idx=3), nn.Linear(width, 16))
        model.padding_idx = 3  # as transformers' LlamaModel has
        return model

    model, plan = planned(build)
    with running(monkeypatch, plan.export("trainer", "adamw", lr=0.1).text) as space:
        space.start_(model)
    assert not model[0].weight[3].any() and bool(model[0].weight[2].all())


def test_nanochats_matrices_keep_their_own_decay_in_its_loop(monkeypatch):
    torch.manual_seed(0)
    model, ids = Nanochat(64), torch.arange(12).reshape(2, 6)
    plan = paramz.parametrize_(model, "mup", base=Nanochat, base_width=32, example=ids)
    export = plan.export("nanochat", muon={"lr": 0.02, "weight_decay": 0.1}, adamw={"lr": 0.004})
    with running(monkeypatch, export.text) as space:
        optimizer = model.setup_optimizer(**space.SETUP)
        space.settle_(optimizer, model)
    for group in optimizer.param_groups:
        assert group["initial_weight_decay"] == group["weight_decay"]
    assert any("sets one for all of Muon at every step" in each for each in export.missing)


def test_values_of_single_layers_have_patterns_with_their_numbers():
    names = [f"h.{i}.{kind}.weight" for i in range(12) for kind in ("up", "down")]
    first = [name for name in names if name.startswith(("h.1.", "h.3."))]
    rest = [name for name in names if name not in first]
    one, other = regexes([first, rest])
    assert one == r"h\.(?:1|3)\.(?:up|down)\.weight"
    assert [n for n in names if re.fullmatch(other, n)] == rest


PARTS = st.sampled_from(["h", "0", "1", "10", "up", "a.b", "_x", "w1", "*", "[1]"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=12), st.booleans())
def test_a_pattern_never_matches_a_name_of_another_group(chosen, wrapped):
    groups = [[n for n, g in chosen.items() if g == i] for i in range(3)]
    groups = [group for group in groups if group]
    for group, pattern in zip(
        groups, regexes(groups, r"(?:_\w+\.)*" if wrapped else ""), strict=True
    ):
        assert [n for n in chosen if re.fullmatch(pattern, n)] == group
    left = list(chosen)
    for group, patterns in zip(groups, globs(groups), strict=True):
        for pattern in patterns:
            taken = [n for n in left if frameworks.fnmatchcase(n, pattern)]
            assert taken and set(taken) <= set(group)
            left = [n for n in left if n not in taken]
    assert not left

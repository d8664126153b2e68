"""Adapters of paramz.adapters: on a trained model and off it, their rules, and what is shared."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import paramz
from paramz.adapters import SVFT, MoS, ShareLoRA, attach_, detach_, merge_, share_closest_

WIDTH = 32


class Net(nn.Module):
    """Residual layers between an embedding and a readout that is as small as a trained one's."""

    def __init__(self, width: int = WIDTH, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.head = nn.Linear(width, 3)
        nn.init.normal_(self.head.weight, std=8 / width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + layer(x).relu() / 2
        return self.head(x)


KINDS = {
    "A": ShareLoRA,
    "B": lambda rank: ShareLoRA(rank, "B"),
    "both": lambda rank: ShareLoRA(rank, "both"),
    "mos": lambda rank: MoS(rank, max(1, rank // 2), shards=2),
    "private": lambda rank: MoS(rank, max(2, rank // 2), shards=2, private=1, scaling=2.0),
    "diagonal": SVFT,
    "random": lambda rank: SVFT(rank, "random"),
}


def adapted(width=WIDTH, rank=4, *, kind="A", seed: int | None = 0):
    if seed is not None:
        torch.manual_seed(seed)
    model = Net(width)
    attach_(model, KINDS[kind](rank), "layers")
    return model


def batch():
    ids = torch.arange(256).remainder(11).reshape(8, 32)
    return ids, (ids * 7 + ids.roll(1, 1)).remainder(3)


def targets(model, batch):
    ids, labels = batch
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten())


def trained(model, steps=3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        targets(model, batch()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_trained_model_off_it_and_into_its_weights(kind):
    torch.manual_seed(0)
    plain = Net()
    before, out = copy.deepcopy(plain.state_dict()), plain(batch()[0])
    model = adapted(kind=kind)
    assert torch.equal(model(batch()[0]), out)  # every adapter starts at zero
    assert list(before) == [name for name in model.state_dict() if name in before]
    assert all(p.requires_grad == (name not in before) for name, p in model.named_parameters())
    trained(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert not torch.allclose(model(batch()[0]), out, atol=1e-3)
    merged = copy.deepcopy(model)
    merge_(merged)
    assert torch.allclose(merged(batch()[0]), model(batch()[0]), atol=1e-5)
    detach_(model)
    assert torch.equal(model(batch()[0]), out)
    for each in (merged, model):
        assert {type(layer) for layer in each.layers} == {nn.Linear}
        assert list(each.state_dict()) == list(before)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_copied_and_pickled(kind):
    model, other = trained(adapted(kind=kind)), adapted(kind=kind, seed=7)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored))
    wanted = model(batch()[0])
    for each in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(each(batch()[0]), wanted)
        shared = each.layers[0].lora_A is each.layers[1].lora_A if kind in ("A", "both") else True
        assert shared


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_base_nothing_changes_and_a_plan_survives_saving(kind):
    model, plain = adapted(kind=kind), adapted(kind=kind)
    plan = paramz.parametrize_(model, "lora", base=adapted(kind=kind))
    for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two), name
    groups = plan.param_groups(model, "adamw", lr=1.0)
    assert {group["lr"] for group in groups} == {1.0}
    wide = paramz.parametrize_(adapted(kind=kind, rank=16), "lora", base=8)
    assert paramz.Plan.from_json(wide.to_json()) == wide


def rates(plan, model, optimizer="adamw"):
    groups = plan.param_groups(model, optimizer, lr=1.0)
    return {role: group["lr"] for group in groups for role in group["roles"]}


@pytest.mark.parametrize(
    ("kind", "adamw", "sgd"),
    [
        ("A", {"latent": 1, "outward": 1 / 2}, {"latent": 2, "outward": 1 / 2}),
        ("diagonal", {"vector": 1 / 2}, {"vector": 1 / 2}),
        # Pools of the same size, from which rank 16 takes twice as many rows.
        ("mos", {"latent": 1, "outward": 2**-0.5}, {"latent": 1, "outward": 1 / 2}),
    ],
)
def test_rates_over_the_rank(kind, adamw, sgd):
    model = adapted(kind=kind, rank=16)
    plan = paramz.parametrize_(model, "lora", base=8)
    assert rates(plan, model) == pytest.approx(adamw)
    assert rates(plan, model, "sgd") == pytest.approx(sgd)


def test_rates_over_the_width():
    for kind in KINDS:
        build = partial(adapted, kind=kind)
        model = build(4 * WIDTH)
        plan = paramz.parametrize_(
            model, "mup+lora", base=build, base_width=WIDTH, example=batch()[0]
        )
        found = rates(plan, model)
        wanted = {"vector": 1.0} if "M" in str(list(found)) or "vector" in found else {
            "latent": 0.25, "outward": 1.0
        }  # fmt: skip
        assert found == pytest.approx(wanted), kind


def test_weights_between_singular_vectors_are_none_of_muon():
    model = adapted(kind="diagonal", rank=16)
    plan = paramz.parametrize_(model, "lora", base=8)
    with pytest.raises(KeyError, match="no rule"):
        plan.param_groups(model, "muon", lr=1.0)
    for_muon, rest = plan.split_groups(model, muon={"lr": 0.02}, adamw={"lr": 0.01})
    assert (for_muon, [group["lr"] for group in rest]) == ([], [0.005])


def test_rectangular_layers_have_the_rate_of_square_ones():
    """The change of an output by one step of size lr: one size whatever the layer's shape."""
    found = []
    for rows, columns in ((32, 32), (512, 32), (32, 512)):
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(columns, rows))
        attach_(layer, SVFT(), ".")
        with torch.no_grad():
            layer[0].svft_M.fill_(0.1)
            found.append(torch.linalg.matrix_norm(layer[0].change(), 2) / (rows / columns) ** 0.5)
    assert found == pytest.approx([0.1, 0.1, 0.1], rel=1e-4)


def shared_by(layers, share="A"):
    torch.manual_seed(0)
    model = Net(2 * WIDTH, layers=8)
    for first in range(0, 8, layers):
        where = [f"layers.{number}" for number in range(first, first + layers)]
        attach_(model, ShareLoRA(8, share if layers > 1 else "none"), where)
    return model


def moved(layers, ruled):
    """How far A moves in two steps of SGD, where so many layers share one."""
    model = shared_by(layers)
    start = [layer.lora_A.detach().clone() for layer in model.layers]
    plan = paramz.parametrize_(model, "lora", base=shared_by(1 if ruled else layers))
    optimizer = torch.optim.SGD(plan.param_groups(model, "sgd", lr=0.1))
    for _ in range(2):
        optimizer.zero_grad()
        targets(model, batch()).backward()
        optimizer.step()
    pairs = zip(model.layers, start, strict=True)
    return sum(float((layer.lora_A - before).detach().norm()) for layer, before in pairs)


def test_a_factor_of_eight_layers_moves_as_far_as_one_of_a_single_layer():
    # The layers' gradients agree in part: at half this width, tried first, the ratio was 0.60.
    assert moved(8, ruled=True) / moved(1, ruled=True) == pytest.approx(1.0, abs=0.25)
    assert moved(8, ruled=False) / moved(1, ruled=False) > 5


def test_layers_know_their_rank_and_how_many_of_them_use_a_shard():
    torch.manual_seed(0)
    model = Net()
    attach_(model, MoS(7, 3, private=1), "layers")
    layer = model.layers[0]
    assert (layer.adapter_rank, layer.adapter_uses, len(layer.mos_A)) == (7, 3.0, 8)
    used = torch.bincount(torch.cat([each.mos_index_B.flatten() for each in model.layers]))
    assert (used.float().mean(), max(used) <= 4) == (3.0, True)  # no layer uses one twice


def test_another_number_of_layers_that_share_b_alone_is_refused():
    with pytest.raises(ValueError, match="8 layers share a factor B of adapters, 1 in the base"):
        paramz.parametrize_(shared_by(8, "B"), "lora", base=shared_by(1))


def test_factors_that_are_merged_while_they_are_trained_have_their_uses():
    model = trained(adapted(rank=8))
    assert share_closest_(model).keys() <= {f"layers.{n}" for n in range(4)}
    share_closest_(model)
    assert len({id(layer.lora_B) for layer in model.layers}) == 2
    plan = paramz.adopt_(model, "lora", base=8)
    uses = sorted(row.ratios.get("uses", 1.0) for row in plan.rows if row.role == "outward")
    assert sum(uses) == 4.0
    groups = plan.param_groups(model, "sgd", lr=1.0, split="tensor")
    assert sorted(g["lr"] for g in groups if "outward" in g["roles"]) == pytest.approx(
        sorted(1 / n for n in uses)
    )
    share_closest_(model)
    assert share_closest_(model) == {}
    with pytest.raises(ValueError, match="no paramz.adapters.ShareLoRA"):
        share_closest_(Net())


def test_what_is_refused():
    model = Net()
    with pytest.raises(ValueError, match=r"where='nothing' matches no linear layer; there are lay"):
        attach_(model, ShareLoRA(2), "nothing")
    with pytest.raises(ValueError, match="a layer without another: leave it out of where="):
        attach_(model, ShareLoRA(2), "layers|head")
    assert {type(layer) for layer in model.layers} == {nn.Linear}  # as before
    with pytest.raises(ValueError, match="each would choose 8 different rows out of 4"):
        attach_(model, MoS(8, 1), "layers")
    with pytest.raises(ValueError, match="of 3 singular vectors"):
        attach_(model, SVFT(4), "head")
    attach_(model, SVFT(), "head")
    with pytest.raises(ValueError, match="head has an adapter already, SVFT.*merge_ adds it"):
        attach_(model, SVFT(), "head")
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(ValueError, match="so that an adapter would have no effect"):
        attach_(attention, SVFT(), "out_proj")
    with pytest.raises(ValueError, match="this Net has no adapters of paramz.adapters"):
        merge_(Net())
    trained_already = trained(adapted(kind="diagonal", rank=4))
    with pytest.raises(ValueError, match="starts at zero"):
        paramz.parametrize_(trained_already, "lora", base=2)


def outcome(kind, parametrization, optimizer, lr, **sizes):
    frame = paramz.coord_check(
        lambda width, rank=8: adapted(width, rank, kind=kind, seed=None), batch(), loss=targets,
        parametrization=parametrization, optimizer=optimizer, lr=lr, **sizes,
    )  # fmt: skip
    return paramz.judge(frame).outcome


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        ("A", "ShareLoRA", "rank times 4"),
        ("mos", "MoS", "rank times 4"),
        ("random", "SVFT", "entries in a row of an adapter times 4"),
    ],
)
def test_a_suggestion_names_the_kind_of_adapters(kind, name, what):
    found = paramz.suggest(adapted(rank=16, kind=kind), base=adapted(rank=4, kind=kind))
    assert found.scheme == "lora"
    assert found.because == (f"adapters: paramz.adapters.{name}", what)


def test_changes_keep_their_size_over_entries_in_a_row():
    sizes = {"ranks": [4, 8, 16, 32], "base_width": 64, "seeds": 2, "steps": 2}
    assert outcome("diagonal", "lora", "adamw", 2**-9, **sizes) == "pass"
    assert outcome("diagonal", "sp", "adamw", 2**-9, **sizes) == "fail"


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 2**-9), ("sgd", 0.1)])
@pytest.mark.parametrize("kind", ["A", "both", "mos", "diagonal", "random"])
def test_changes_keep_their_size_over_ranks_with_the_rule_only(kind, optimizer, lr):
    # Not narrower: with ranks 4 to 32 at width 64, two seeds and steps, mos was not decided.
    sizes = {"ranks": [2, 4, 8, 16, 32, 64], "base_width": 128}
    assert outcome(kind, "lora", optimizer, lr, **sizes) == "pass"
    assert outcome(kind, "sp", optimizer, lr, **sizes) == "fail"


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 2**-9), ("sgd", 0.1)])
@pytest.mark.parametrize("kind", ["A", "B", "mos", "diagonal"])
def test_changes_keep_their_size_over_widths_with_the_rule_only(kind, optimizer, lr):
    sizes = {"widths": [64, 128, 256, 512]}
    assert outcome(kind, "mup+lora", optimizer, lr, **sizes) == "pass"
    assert outcome(kind, "sp", optimizer, lr, **sizes) == "fail"


def test_a_weight_that_is_used_elsewhere_is_not_merged_into():
    model = Net()
    model.head = nn.Linear(WIDTH, 11, bias=False)
    model.head.weight = model.embed.weight
    attach_(model, ShareLoRA(2, "none"), "head")
    kept = model.embed.weight.detach().clone()
    with pytest.raises(ValueError, match=r"head has .* that of embed\.weight, too.*untie them"):
        merge_(model)
    assert torch.equal(model.embed.weight, kept)
    model.head.weight = nn.Parameter(model.head.weight.clone())  # what the error says
    trained(model, 1)
    wanted = model(batch()[0])
    merge_(model)
    torch.testing.assert_close(model(batch()[0]), wanted)
    assert torch.equal(model.embed.weight, kept)


def test_a_layer_that_runs_twice_is_merged_into():
    model = Net()
    model.layers[1] = model.layers[0]
    attach_(model, ShareLoRA(2), "layers")
    wanted = trained(model)(batch()[0])
    merge_(model)
    torch.testing.assert_close(model(batch()[0]), wanted)


def test_blocks_whose_weights_torch_reads_in_evaluation_are_refused():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(ValueError, match=r"layers\.0\.linear1 .* in evaluation reads its weights"):
        attach_(nn.TransformerEncoder(block, 2, enable_nested_tensor=False), SVFT(), "linear1")


def test_layers_with_adapters_apart_stay_apart_at_another_rank_and_when_merged():
    """Two groups of two layers, each with an A: at the same rank nothing may change."""
    model = shared_by(2)
    plan = paramz.parametrize_(model, "lora", base=8)
    assert {group["lr"] for group in plan.param_groups(model, "sgd", lr=1.0)} == {1.0}
    other = Net()
    for scaling, rank, where in ((1.0, 2, "[01]"), (3.0, 2, "2|3")):
        attach_(other, ShareLoRA(rank, scaling=scaling), rf"layers\.({where})")
    assert set(share_closest_(other).items()) == {
        ("layers.1", "layers.0"),
        ("layers.3", "layers.2"),
    }
    assert share_closest_(other) == {}


def test_layers_are_as_before_if_one_of_them_cannot_have_the_adapter():
    model = Net()
    nn.init.constant_(model.layers[2].weight, float("nan"))
    with pytest.raises(ValueError, match=r"a weight \(32, 32\) is not finite"):
        attach_(model, SVFT(), "layers")
    assert {type(layer) for layer in model.layers} == {nn.Linear}
    assert len(model.state_dict()) == len(Net().state_dict())


def test_adapters_on_a_model_under_a_plan_have_their_own_once_that_is_folded():
    model = Net(4 * WIDTH)
    paramz.parametrize_(model, "mup", base=Net, base_width=WIDTH)
    attach_(model, ShareLoRA(8), "layers")
    out = model(batch()[0])
    with pytest.raises(ValueError, match=r"already under mup .*Call paramz\.fold_\(model\) first"):
        paramz.parametrize_(model, "lora", base=4)
    paramz.fold_(model)
    paramz.parametrize_(model, "lora", base=4)
    torch.testing.assert_close(model(batch()[0]), out)


def test_another_rank_has_the_same_singular_vectors_and_takes_no_time_to_find_them(monkeypatch):
    model = adapted(kind="diagonal", rank=4)
    monkeypatch.setattr(torch.linalg, "svd", None)
    twin = model.layers[0].at_rank(model, 8)
    for one, other in zip(model.layers, twin.layers, strict=True):
        assert one.svft_U is other.svft_U and one.svft_V is other.svft_V
        assert (one.svft_M.shape, other.svft_M.shape) == ((WIDTH, 4), (WIDTH, 8))
        assert one.adapter_rank == 4 and other.adapter_rank == 8


def test_the_summary_says_which_tensors_are_frozen():
    model = adapted(rank=8)
    model.head.bias.requires_grad_(True)
    summary = paramz.parametrize_(model, "lora", base=4).summary()
    role, why, lr = (summary.columns.index(name) for name in ("role", "why", "lr"))
    said = {line[0]: (line[role], line[why], line[lr]) for line in summary.cells}
    frozen = ("frozen", "frozen: adapters leave it as it was trained", "")
    assert {said[name] for name in ("layers.{0..3}.weight", "head.weight")} == {frozen}
    assert said["head.bias"] == ("scalar", "no axis grows", "1")
    assert said["layers.{0..3}.lora_B"][0] == "outward"
    assert "frozen" not in str(paramz.make_plan(Net(), "mup", base=Net, base_width=16).summary())


def test_a_layer_with_a_mask_or_a_computed_weight_is_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    prune.random_unstructured(net[0], "weight", 0.5)
    # Taking the adapter off would have taken the tensors along of which the weight is made.
    with pytest.raises(
        ValueError, match=r"0 has weight_orig, weight_mask beside .*prune.remove\(layer"
    ):
        attach_(net, ShareLoRA(rank=2, share="none"), ".")
    prune.remove(net[0], "weight")
    assert attach_(net, ShareLoRA(rank=2, share="none"), ".") == ["0", "1"]

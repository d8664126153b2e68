"""`rslora`: adapters over their rank where the steps of B do not add up over it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from test_adapter_kinds import ADALORA, LOHA, MISS, OFT, build, own
from test_adapters import adapted, random_up, rates, targets
from test_adapters import llama_with_adapters as llama

import paramz

peft = pytest.importorskip("peft")

IDS = torch.arange(128).remainder(11).reshape(4, 32)
LABELS = (IDS * 7 + IDS.roll(1, 1)).remainder(3)


def losses(model, groups, optimizer="AdamW"):
    optimizer, found = getattr(torch.optim, optimizer)(groups), []
    for _ in range(4):
        loss = targets(model, (IDS, LABELS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("rank", [2, 64])
@pytest.mark.parametrize(
    "options", [{"lora_alpha": own}, {"lora_alpha": 8}, {"lora_alpha": 8**0.5, "use_rslora": True}]
)
def test_every_scaling_trains_as_rslora_of_peft_with_one_rate(rank, options):
    """Scalings that are 1 at the base's rank 8: all are one training run, but for epsilon."""

    def at(rank):
        given = {key: value(rank) if callable(value) else value for key, value in options.items()}
        return adapted(rank=rank, **given)

    model, peer = at(rank), adapted(rank=rank, lora_alpha=8**0.5, use_rslora=True)
    plan = paramz.parametrize_(model, "rslora", base=at(8))
    groups = plan.param_groups(model, "adamw", lr=0.01, weight_decay=0.0)
    plain = [{"params": [p for p in peer.parameters() if p.requires_grad]}]
    wanted = losses(peer, [{**plain[0], "lr": 0.01, "weight_decay": 0.0}])
    assert wanted[0] - wanted[-1] > 0.01
    assert losses(model, groups) == pytest.approx(wanted, abs=1e-5)
    scaling = model.base_model.model.one.scaling["default"]
    assert any(
        n.startswith(f"adapters: rank times {rank / 8:.4g}, scaling times {scaling:.4g}")
        for n in plan.notes
    )


def test_rates_and_epsilons_over_rank_and_width():
    model = adapted(rank=16)
    plan = paramz.parametrize_(model, "rslora", base=adapted(rank=4))
    assert rates(plan, model) == {"latent": (1.0, 0.1), "outward": (0.5, pytest.approx(0.2))}
    groups = plan.param_groups(model, "adamw", lr=1.0)
    assert {role: g["eps"] for g in groups for role in g["roles"]} == {
        "latent": pytest.approx(0.5e-8), "outward": 1e-8
    }  # fmt: skip
    for optimizer in ("sgd", "muon"):
        lora = paramz.make_plan(model, "lora", base=adapted(rank=4))
        assert rates(plan, model, optimizer) == rates(lora, model, optimizer)
    wide = adapted(64, 16)
    plan = paramz.parametrize_(
        wide, "mup+rslora", base=partial(adapted, rank=4), base_width=32, example=IDS[:1]
    )
    assert rates(plan, wide) == {"latent": (0.5, 0.2), "outward": (0.5, pytest.approx(0.2))}


def test_a_random_second_factor_starts_as_large_as_its_steps_and_is_warned_of():
    model = random_up(rank=16, lora_alpha=16)
    before = {name: p.clone() for name, p in model.named_parameters()}
    plan = paramz.parametrize_(model, "rslora", base=random_up(rank=4, lora_alpha=4))
    # It was drawn at rank^-1/2, so nothing is left to do, as without a rule.
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert rates(plan, model) == {"inward": (1.0, 0.1), "outward": (0.5, pytest.approx(0.2))}
    assert rates(plan, model, "sgd")["inward"][0] == 1.0
    assert any(note.startswith("adapters whose B starts at random") for note in plan.notes)
    plan = paramz.make_plan(adapted(rank=16), "rslora", base=adapted(rank=4))
    assert not any("at random" in note for note in plan.notes)


def moved_by_noise(scheme, rank):
    """How far one step of B on random gradients moves the output."""
    model = adapted(rank=rank)
    plan = paramz.parametrize_(model, scheme, base=adapted(rank=4))
    layer, x = model.base_model.model.one, torch.randn(256, 32)
    before = layer(x)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.01))
    up = layer.lora_B["default"].weight
    up.grad = torch.randn_like(up)
    optimizer.step()
    return float((layer(x) - before).detach().square().mean().sqrt())


def test_a_step_of_noise_moves_the_output_by_one_size_under_rslora_only():
    for scheme, wanted in (("rslora", 1), ("lora", 1 / 4)):
        ratio = moved_by_noise(scheme, 64) / moved_by_noise(scheme, 4)
        assert ratio == pytest.approx(wanted, rel=0.2)


def test_other_kinds_add_up_as_the_root_of_their_entries_or_are_refused():
    for options, tensor, lr in ((OFT, "oft_R", 1 / 2), (MISS, "miss_block", 1.0)):
        model = build(128, 16, **options)
        plan = paramz.parametrize_(model, "rslora", base=4)
        groups = plan.param_groups(model, "adamw", lr=1.0)
        assert {g["lr"] for g in groups if tensor in str(g["names"])} == {lr}
    for options in (ADALORA, LOHA):
        with pytest.raises(ValueError, match="rslora has no rule .*agree. Use 'lora', which has"):
            paramz.make_plan(build(64, 8, **options), "rslora", base=4)
    with pytest.raises(ValueError, match="lora and rslora are different rules for adapters"):
        paramz.parametrization("mup+lora+rslora")
    with pytest.raises(ValueError, match="Use 'rslora', or 'mup.rslora' where the width"):
        paramz.make_plan(adapted(rank=8), "mup+completep+rslora", base=4)
    with pytest.raises(ValueError, match="rslora has no rule for width.*'mup.rslora'"):
        paramz.make_plan(adapted(64, 16), "rslora", base=adapted(32, 4))


def test_it_is_suggested_for_language_models_with_plain_pairs():
    model = llama(64, 16)
    found = paramz.suggest(model, base=llama(64, 8))
    assert found.scheme == "rslora"
    assert "+0.03 octave per doubling of the rank under rslora, by +0.28 " in found.because[-1]
    assert "parametrize_(model, 'rslora', base=...)" in found.code
    assert not any("was not measured" in said for said in found.warnings)
    by_sgd = paramz.suggest(model, "sgd", base=llama(64, 8))
    assert "rslora was chosen by what AdamW showed; sgd was not measured" in by_sgd.warnings
    base = paramz.hf.config_factory(model, rank=8)
    wide = paramz.suggest(model, base=base, base_width=32)
    assert wide.scheme == "mup+rslora"
    # Whose readout is no table of the words that it reads, and a kind that was not measured there.
    assert paramz.suggest(adapted(rank=16), base=adapted(rank=4)).scheme == "lora"
    config = peft.VeraConfig(r=16, target_modules=["q_proj"])
    vera = peft.get_peft_model(model.unload(), config)
    assert paramz.suggest(vera, base=8).scheme == "lora"


def test_a_missing_base_is_said_to_be_the_adapters_own():
    """Of a width, which base=256 is under schemes for width, adapters know nothing."""
    for ask in (paramz.suggest, lambda model: paramz.parametrize_(model, "rslora")):
        with pytest.raises(TypeError, match="base is missing: the adapters.*base=8, the rank at"):
            ask(llama(64, 16))
    with pytest.raises(TypeError, match="base is missing. A parametrization .* base=256"):
        paramz.parametrize_(llama(64, 16), "mup+rslora")

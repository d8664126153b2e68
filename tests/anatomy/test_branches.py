"""Residual branches are found where they are: without them, a block hands on what it gets."""

from dataclasses import replace

import pytest
import torch
from cases import convnet, gpt, gpt2, llama, resnet
from torch import nn

import paramz
from paramz.anatomy.branches import Branches, find_branches
from paramz.plan.draft import branch_hooks
from paramz.theory.power import Power

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 40, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "q_lora_rank": None,
    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip


def language_model(family, **options):
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        image_size=16, patch_size=8,
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


def encoder():
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, norm_first=True, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def tokens():
    return torch.arange(12).view(2, 6)


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


MODELS = {
    "gpt": (lambda: gpt(16), lambda: tokens() % 11, 2),
    "llama": (llama, tokens, 2),
    "gpt2": (gpt2, tokens, 2),
    "neox": (lambda: language_model("GPTNeoX"), tokens, 3),
    "gemma2": (lambda: language_model("Gemma2", head_dim=8), tokens, 3),
    "olmo2": (lambda: language_model("Olmo2"), tokens, 3),
    "mixtral": (lambda: language_model("Mixtral", **EXPERTS), tokens, 3),
    "deepseek": (lambda: language_model("DeepseekV3", **DEEPSEEK), tokens, 3),
    "vit": (vit, images, 2),
    "resnet basic": (lambda: resnet("basic"), images, 4),
    "resnet bottleneck": (lambda: resnet("bottleneck"), images, 4),
    "torch": (encoder, lambda: torch.randn(2, 5, 32), 2),
}


def differences(model, batch, residual):
    """Largest |output - input| of each block that skips over its branches by an identity."""
    found = {}

    def record(path):
        def hook(module, args, kwargs, output):
            x = args[0] if args else kwargs["hidden_states"]
            y = output[0] if isinstance(output, tuple) else output
            if x.shape == y.shape and not any(m in path for m in projected):
                found[path] = float((y - x).abs().max())

        return hook

    projected = [
        p.partition(".shortcut")[0] for p, _ in model.named_parameters() if ".shortcut." in p
    ]
    handles = [
        model.get_submodule(path).register_forward_hook(record(path), with_kwargs=True)
        for path in set(residual.blocks.values())
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_without_its_ends_a_block_is_the_identity(name):
    build, batch, depth = MODELS[name]
    torch.manual_seed(0)
    model = build()
    residual = find_branches(model, model)
    assert len(set(residual.blocks.values())) == depth
    before = differences(model, batch(), residual)
    assert before
    assert min(before.values()) > 1e-6
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for end in residual.ends:
            parameters[end].zero_()
    for path in residual.hooked:
        model.get_submodule(path).register_forward_hook(lambda m, args, out: out * 0.0)
    assert set(differences(model, batch(), residual).values()) == {0.0}


@pytest.mark.parametrize("name", MODELS)
def test_hooks_scale_what_folding_scales(name):
    build, batch, _ = MODELS[name]
    torch.manual_seed(0)
    model, x = build(), batch()
    residual = find_branches(model, model)
    with torch.no_grad():
        halved = {path: 0.5 for path in residual.hooked}
        handles = [_scale(model, path, 0.5) for path in residual.hooked]
        parameters = dict(model.named_parameters())
        for end in residual.ends:
            parameters[end].mul_(0.5)
        folded = _logits(model(x))
        for end in residual.ends:
            parameters[end].mul_(2.0)
        for handle in handles:
            handle.remove()
        deeper = replace(residual, ratios=dict.fromkeys(residual.ratios, {"depth": 2.0}))
        factors = branch_hooks(deeper, Power(depth=-1), fold=False)
        assert halved.items() <= factors.items()
        for path, factor in factors.items():
            _scale(model, path, factor)
        torch.testing.assert_close(_logits(model(x)), folded, rtol=1e-5, atol=1e-6)


def _scale(model, path, factor):
    def hook(module, args, out):
        return (out[0] * factor, *out[1:]) if isinstance(out, tuple) else out * factor

    return model.get_submodule(path).register_forward_hook(hook)


def _logits(output):
    return getattr(output, "logits", output)


def test_what_is_outside_has_no_depth():
    model = resnet("basic")
    outside = {n for n, _ in model.named_parameters()} - set(find_branches(model, model).blocks)
    assert any("shortcut" in name for name in outside)
    assert all("shortcut" in n or "embedder" in n or "classifier" in n for n in outside)
    post = nn.TransformerEncoderLayer(32, 4, 48)
    stack = nn.TransformerEncoder(post, 2, enable_nested_tensor=False)
    inside = set(find_branches(stack, stack).blocks)
    assert {n.split(".")[2] for n, _ in stack.named_parameters() if n not in inside} == {
        "norm1",
        "norm2",
    }


def test_a_model_without_branches_says_how_to_declare_them():
    with pytest.raises(
        ValueError, match="no residual branches found in this Sequential: none of"
    ) as e:
        find_branches(convnet(), convnet())
    assert "branches=paramz.Branches(inside=r'^<regex of parameter names>'" in str(e.value)


class Odd(nn.Module):
    """A block whose feed-forward part ends in a name that nobody uses."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.ModuleDict({"proj": nn.Linear(width, width)})
        self.mixer = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width), nn.GELU())

    def forward(self, x):
        return x + self.mixer(self.norm(x)) + self.attention["proj"](x)


def odd(width=8, depth=2):
    return nn.Sequential(
        nn.Linear(4, width), nn.Sequential(*(Odd(width) for _ in range(depth))), nn.Linear(width, 2)
    )


def test_a_branch_without_a_known_end_is_an_error_and_can_be_declared():
    with pytest.raises(ValueError, match=r"1.0.mixer \(Sequential\) is a residual branch whose"):
        find_branches(odd(), odd())
    declared = Branches(inside=r"^1[.][0-9]+[.]", ends=r"(mixer[.]1|attention[.]proj)$")
    residual = find_branches(odd(depth=6), odd(), declared)
    assert list(residual.ratios.values()) == [{"depth": 3.0}] * 6
    assert sorted(residual.ends)[:2] == ["1.0.attention.proj.bias", "1.0.attention.proj.weight"]
    model = odd(16, depth=4)
    plan = paramz.parametrize_(model, "mup+completep", base=odd, branches=declared)
    rows = {row.name: row for row in plan.rows}
    assert plan.rulebook.branch_factor(rows["1.3.mixer.1.weight"]) == 0.5
    assert rows["1.3.mixer.0.weight"].ratios["depth"] == 2.0
    assert "depth" not in rows["0.weight"].ratios


def test_a_declaration_that_matches_nothing_lists_what_there_is():
    with pytest.raises(
        ValueError, match=r"Branches\(ends='down\$'\) matches nothing; there are 0, 1"
    ):
        find_branches(odd(), odd(), Branches(inside="^1[.]", ends="down$"))


def test_an_end_whose_weight_is_declared_to_be_outside_is_refused():
    """It would not take the branch's factor, and the plan would say that it did."""
    declared = Branches(inside=r"^1[.][0-9]+[.]mixer[.]0", ends=r"(mixer[.]1|attention[.]proj)$")
    with pytest.raises(ValueError, match=r"1.0.attention.proj.weight, 1.0.attention.proj.bias and"):
        find_branches(odd(depth=6), odd(), declared)


def test_an_end_outside_of_all_blocks_is_in_the_nearest():
    class Pair(nn.Module):
        def __init__(self, one=2, two=2):
            super().__init__()
            self.one, self.two = (odd(depth=depth)[1] for depth in (one, two))
            for block in [*self.one, *self.two]:
                block.out = nn.Identity()

    declared = Branches(inside=r"^(one|two)[.][0-9]+[.](mixer|attention)", ends=r"[.]out$")
    residual = find_branches(Pair(8, 4), Pair(), declared)
    ratios = {end: residual.ratios[block]["depth"] for end, block in residual.modules.items()}
    assert (ratios["one.3.out"], ratios["two.3.out"]) == (4.0, 2.0)


def test_an_end_that_is_not_linear_gets_a_hook():
    declared = Branches(inside=r"^1[.][0-9]+[.]", ends=r"(mixer|attention[.]proj)$")
    model = odd(16, depth=4)
    plan = paramz.parametrize_(model, "mup+completep", base=odd, branches=declared)
    assert plan.branches == {f"1.{i}.mixer": 0.5 for i in range(4)}
    hooks = {n: len(m._forward_hooks) for n, m in model.named_modules() if m._forward_hooks}
    assert hooks == dict.fromkeys(plan.branches, 1)
    with pytest.raises(ValueError, match="mixer"):
        paramz.fold_(model)
    paramz.remove_(model)
    assert not any(m._forward_hooks for m in model.modules())


class Decayed(nn.Module):
    """RWKV-7's mixer in short: a bare w2 makes a gate, and the layer behind it ends the branch."""

    def __init__(self, width):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.randn(*s)) for s in ((width, 4), (4, width)))
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.output(self.value(x) * torch.sigmoid(x @ self.w1 @ self.w2))


class Mixing(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.att = nn.LayerNorm(width), Decayed(width)

    def forward(self, x):
        return x + self.att(self.norm(x))


class Mixed(nn.Module):
    def __init__(self, width, layers=2):
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(Mixing(width) for _ in range(layers))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_a_bare_matrix_beside_layers_is_no_end_by_its_name():
    """w2 had the factor for depth, and the branch's last layer had none."""
    with pytest.raises(ValueError, match=r"last linear map paramz does not know") as error:
        paramz.make_plan(Mixed(16, 8), "mup+completep", base=Mixed, base_width=8)
    assert "[.]att[.]output)$" in str(error.value)


class Forgetting(nn.Module):
    """Blocks in lists of parts that a gate adds, so that no branch shows; `depth` counts them."""

    def __init__(self, width, depth=2):
        super().__init__()
        self.stack = nn.Module()
        self.stack.depth, self.stack.norm = depth, nn.LayerNorm(width)
        self.stack.layers = nn.ModuleList(
            nn.ModuleList(
                [nn.ModuleDict({"to_out": nn.Linear(width, width)}), nn.GRUCell(width, width)]
            )
            for _ in range(depth)
        )
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x)
        for layer, gate in self.stack.layers:
            x = gate(layer["to_out"](x), x)
        return self.head(self.stack.norm(x))


def test_a_module_whose_list_is_longer_is_no_block_that_runs_often():
    """All of it was one block of depth 1, and a note said that the base had as many."""
    with pytest.raises(ValueError, match="no residual branches found in this Forgetting"):
        paramz.make_plan(Forgetting(16, 8), "mup+completep", base=Forgetting, base_width=8)

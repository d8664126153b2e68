"""Depth is counted per stack, and as often as a block runs; what is not known is named."""

import pytest
import torch
from cases import Block, Plain, resnet
from torch import nn

import paramz
from paramz.anatomy.branches import find_branches
from paramz.anatomy.postnorm import norms_of_sums


class Shared(nn.Module):
    """Depth is the number of times that one block stands in the list."""

    def __init__(self, width=16, depth=2):
        super().__init__()
        self.first, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.blocks = nn.ModuleList([Plain(width)] * depth)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Universal(nn.Module):
    """Depth is the number of times that a loop runs one block."""

    def __init__(self, width=16, loops=2, numbered=False, attribute="n_loops"):
        super().__init__()
        self.first, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        block = Plain(width)
        self.block = nn.ModuleList([block]) if numbered else block
        setattr(self, attribute, loops)


def depths(plan):
    return {row.name: row.ratios["depth"] for row in plan.rows if "depth" in row.ratios}


def planned(model, base, scheme="mup+completep", **options):
    return paramz.make_plan(model, scheme, base=base, base_width=16, **options)


def test_a_block_that_is_listed_again_counts_again():
    plan = planned(Shared(depth=8), Shared)
    assert set(depths(plan).values()) == {4.0}
    declared = paramz.Branches(inside=r"^blocks[.][0-9]+", ends=r"ffn[.]2$")
    assert set(depths(planned(Shared(depth=8), Shared, branches=declared)).values()) == {4.0}


@pytest.mark.parametrize(("kind", "number"), [("once", 2), ("twice", 32)])
def test_of_many_blocks_that_run_once_the_first_two_are_run_to_count(kind, number):
    """Run by a loop over the list, or by number, twice each, which fewer blocks would not show."""
    ran = []

    class Counted(Plain):
        def forward(self, x):
            ran.append(self)
            return super().forward(x)

    class Net(Shared):
        def __init__(self, width=16, depth=4):
            super().__init__(width, depth)
            self.blocks = nn.ModuleList(Counted(width) for _ in range(depth))

        def forward(self, x):
            x, depth = self.first(x), len(self.blocks)
            for i in range(depth if kind == "once" else 2 * depth):
                x = self.blocks[i % depth](x)
            return self.head(x)

    model = Net(depth=32)
    plan = paramz.make_plan(model, "mup+completep", base=Net, base_width=16)
    assert set(depths(plan).values()) == {8.0}
    assert len(set(ran) & set(model.blocks)) == number


def test_two_blocks_in_turn_count_as_the_whole_list():
    class Turns(Shared):
        def __init__(self, width=16, depth=2):
            super().__init__(width, depth)
            pair = [Plain(width), Plain(width)]
            self.blocks = nn.ModuleList(pair[i % 2] for i in range(depth))

    assert set(depths(planned(Turns(depth=6), Turns)).values()) == {3.0}


def test_the_change_of_a_shared_blocks_output_does_not_move_with_depth():
    def change(depth, scheme, seed):
        torch.manual_seed(seed)
        model, x = Shared(64, depth), torch.randn(64, 8)
        options = {} if scheme == "mup" else {"base": lambda w: Shared(w, 2)}
        if options:
            plan = paramz.parametrize_(model, scheme, base_width=64, **options)
            groups = plan.param_groups(model, "adamw", lr=2**-8)
        else:
            groups = [{"params": list(model.parameters()), "lr": 2**-8}]
        optimizer = torch.optim.AdamW(groups)
        before = model(x).detach()
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(64) % 4).backward()
            optimizer.step()
        return (model(x) - before).pow(2).mean().sqrt().item()

    def slope(scheme):
        sizes = [sum(change(depth, scheme, seed) for seed in range(3)) for depth in (2, 16)]
        return torch.tensor(sizes[1] / sizes[0]).log2().item() / 3

    assert abs(slope("mup+completep")) < 0.15
    assert slope("mup") > 0.3  # without a rule for depth


@pytest.mark.parametrize("numbered", [True, False], ids=["a list of one", "no list"])
@pytest.mark.parametrize("attribute", ["n_loops", "depth", "num_steps"])
def test_an_attribute_tells_how_often_one_block_runs(numbered, attribute):
    def build(width=16, loops=2):
        return Universal(width, loops, numbered, attribute)

    plan = planned(build(loops=12), build)
    assert set(depths(plan).values()) == {6.0}
    note = f"one block is shared by all runs: {attribute} says 12 of them, 2 in the base"
    assert note in plan.notes  # there is no forward that could be run


def test_an_attribute_that_fits_no_count_is_an_error_that_says_how_to_declare_it():
    class Twice(Shared):
        def __init__(self, width=16, loops=1):
            super().__init__(width, 1)
            self.blocks = nn.ModuleList(Plain(width) for _ in range(3))
            self.loops = loops

        def forward(self, x, y):  # which nobody knows how to call
            return super().forward(x + y)

    with pytest.raises(
        ValueError, match="loops is 4 and 1 in the base, which the blocks do not t"
    ) as e:
        planned(Twice(loops=4), Twice)
    assert "share" in str(e.value)
    assert "branches=paramz.Branches(runs='loops')" in str(e.value)
    plan = planned(Twice(loops=4), Twice, branches=paramz.Branches(runs="loops"))
    assert set(depths(plan).values()) == {4.0}
    with pytest.raises(ValueError, match="this Twice has no whole number there, but None"):
        planned(Twice(loops=4), Twice, branches=paramz.Branches(runs="turns"))


def test_a_declaration_is_whole():
    with pytest.raises(ValueError, match="give both, or neither"):
        paramz.Branches(inside="^layers")
    with pytest.raises(ValueError, match="declares nothing"):
        paramz.Branches()


@pytest.mark.parametrize(("groups", "inner"), [(1, 1), (2, 1), (1, 2)])
def test_albert_runs_its_groups_of_layers(groups, inner):
    from transformers import AlbertConfig, AlbertForMaskedLM

    def build(width=16, depth=2):
        config = AlbertConfig(
            vocab_size=40, embedding_size=8, hidden_size=width, num_hidden_layers=depth,
            num_attention_heads=2, intermediate_size=width, num_hidden_groups=groups,
            inner_group_num=inner,
        )  # fmt: skip
        with torch.device("meta"):
            return AlbertForMaskedLM(config)

    plan = planned(build(depth=8), build)
    found = depths(plan)
    assert set(found.values()) == {4.0}
    ends = {row.name.rpartition("albert_layers.")[2][2:] for row in plan.rows if row.ends}
    assert ends == {
        "attention.dense.weight", "attention.dense.bias", "ffn_output.weight", "ffn_output.bias"
    }  # fmt: skip
    # ALBERT's norms follow the sums.
    assert not any("ayer_layer_norm" in name or "LayerNorm" in name for name in found)


class TwoStacks(nn.Module):
    def __init__(self, width=16, encoder=2, decoder=1):
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.encoder = nn.ModuleList(Block(width, heads=2) for _ in range(encoder))
        self.decoder = nn.ModuleList(Block(width, heads=2) for _ in range(decoder))
        self.head = nn.Linear(width, 11)


def test_an_encoder_and_a_decoder_are_deepened_on_their_own():
    plan = planned(TwoStacks(encoder=12, decoder=2), TwoStacks)
    found = depths(plan)
    assert {r for n, r in found.items() if n.startswith("encoder")} == {6.0}
    assert {r for n, r in found.items() if n.startswith("decoder")} == {2.0}
    assert plan.notes[:2] == (
        "depth of the stack of encoder.0 to encoder.11 times 6: residual branches times 0.1667",
        "depth of the stack of decoder.0 to decoder.1 times 2: residual branches times 0.5",
    )
    rows = {row.name: row for row in plan.rows}
    ends = [name for name, row in rows.items() if row.ends and name.endswith("weight")]
    factors = {n.partition(".")[0]: plan.rulebook.branch_factor(rows[n]) for n in ends}
    assert factors == {"encoder": pytest.approx(1 / 6), "decoder": 0.5}


class Encoder(nn.Module):
    """Blocks and a norm behind them, by which it looks like a block itself."""

    def __init__(self, width, depth, listed):
        super().__init__()
        self.blocks = listed(*[Plain(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@pytest.mark.parametrize("listed", [nn.Sequential, lambda *blocks: nn.ModuleList(blocks)])
@pytest.mark.parametrize("around", [lambda stack: stack, lambda stack: nn.Sequential(stack)])
def test_a_numbered_stack_of_blocks_is_not_one_block(listed, around):
    def build(width=16, depth=2):
        stack = Encoder(width, depth, listed)
        return nn.Sequential(nn.Linear(8, width), around(stack), nn.Linear(width, 4))

    plan = planned(build(32, depth=8), build)
    assert set(depths(plan).values()) == {4.0}
    assert len({row.block for row in plan.rows if row.block}) == 8
    norms = [row for row in plan.rows if row.name.endswith("norm.weight") and not row.block]
    assert len(norms) == 1  # of the stack


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_more_experts_with_norms_of_their_own_are_no_blocks(depth):
    class Mixed(nn.Module):
        def __init__(self, width, experts):
            super().__init__()
            self.norm, self.gate = nn.LayerNorm(width), nn.Linear(width, experts)
            self.experts = nn.ModuleList(Expert(width) for _ in range(experts))

        def forward(self, x):
            h = self.norm(x)
            shares = self.gate(h).softmax(-1).unbind(-1)
            return x + sum(s[:, None] * e(h) for s, e in zip(shares, self.experts, strict=True))

    class Expert(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.up_proj, self.down_proj = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x):
            return self.down_proj(self.up_proj(self.norm(x)).relu())

    def build(width=16, depth=2, experts=2):
        blocks = nn.Sequential(*[Mixed(width, experts) for _ in range(depth)])
        return nn.Sequential(nn.Linear(8, width), blocks, nn.Linear(width, 4))

    plan = planned(build(32, depth, 4), build, "mup+completep+moe")
    assert set(depths(plan).values()) == {depth / 2}
    assert {row.block for row in plan.rows if row.block} == {f"1.{i}" for i in range(depth)}


def test_a_stack_that_the_base_lacks_is_an_error():
    with pytest.raises(ValueError, match="decoder: residual blocks that the base has none of"):
        find_branches(TwoStacks(decoder=2), TwoStacks(decoder=0))


def test_a_backbones_blocks_are_not_the_transformers():
    class Detector(nn.Module):
        def __init__(self, width=16, depth=1):
            super().__init__()
            self.backbone = resnet("basic")
            self.transformer = nn.ModuleList(Block(width, heads=2) for _ in range(depth))

    found = depths(planned(Detector(depth=4), Detector))
    assert {r for n, r in found.items() if n.startswith("backbone")} == {1.0}
    assert {r for n, r in found.items() if n.startswith("transformer")} == {4.0}


def test_the_stages_of_a_swin_are_deepened_on_their_own():
    from transformers import SwinConfig, SwinForImageClassification

    def build(width=8, stages=(1, 1, 2)):
        config = SwinConfig(
            image_size=32, patch_size=4, embed_dim=width, depths=list(stages),
            num_heads=[1, 2, 4], window_size=2, num_labels=3,
        )  # fmt: skip
        with torch.device("meta"):
            return SwinForImageClassification(config)

    plan = paramz.make_plan(build(stages=(1, 1, 6)), "mup+completep", base=build)
    by_stage = {n.split(".")[3]: r for n, r in depths(plan).items() if ".layers." in n}
    assert by_stage == {"0": 1.0, "1": 1.0, "2": 3.0}


def test_groups_of_blocks_that_grow_in_number_are_one_stack():
    class Grouped(nn.Module):
        def __init__(self, width=16, groups=1):
            super().__init__()
            self.first = nn.Linear(4, width)
            self.groups = nn.ModuleList(
                nn.ModuleList(Plain(width) for _ in range(2)) for _ in range(groups)
            )

    assert set(depths(planned(Grouped(groups=3), Grouped)).values()) == {3.0}


class Strange(nn.Module):
    """A residual block that paramz cannot know: no norm, no name."""

    def __init__(self, width):
        super().__init__()
        self.one, self.other = nn.Linear(width, width), nn.Linear(width, width)


class Mixed(nn.Module):
    def __init__(self, width=16, known=2, strange=2):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Plain(width) for _ in range(known))
        self.mixers = nn.ModuleList(Strange(width) for _ in range(strange))


def test_unknown_numbered_modules_are_named():
    plan = planned(Mixed(known=4), Mixed)
    assert (
        "mixers.0 to mixers.1 (Strange): not known as residual blocks, left without depth"
        in plan.notes
    )


def test_unknown_numbered_modules_that_grow_in_number_are_an_error():
    with pytest.raises(ValueError) as error:
        planned(Mixed(known=4, strange=4), Mixed)
    assert str(error.value).startswith(
        "mixers.0 to mixers.3 (Strange): the base has 2 of these and the model 4, and they are no "
        "residual blocks that paramz knows. Declare all residual branches of the model: "
        "branches=paramz.Branches(inside=r'^<such as mixers[.][0-9]+>'"
    )
    declared = paramz.Branches(
        inside=r"^(blocks|mixers)[.][0-9]+", ends=r"^(blocks.[0-9]+.ffn.2|mixers.[0-9]+.other)$"
    )
    plan = planned(Mixed(known=4, strange=6), Mixed, branches=declared)
    found = depths(plan)
    assert {r for n, r in found.items() if n.startswith("mixers")} == {3.0}
    assert {r for n, r in found.items() if n.startswith("blocks")} == {2.0}


class PostNorm(nn.Module):
    """The names of Gemma's norms, on the sums."""

    def __init__(self, width):
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.up_proj, self.down_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.post_attention_layernorm = nn.LayerNorm(width)
        self.post_feedforward_layernorm = nn.LayerNorm(width)

    def forward(self, x):
        y = x + self.o_proj(self.q_proj(x))
        y = self.post_attention_layernorm(y)
        residual = y
        y = self.down_proj(self.up_proj(y).relu())
        y = residual + y
        return self.post_feedforward_layernorm(y)


class InsideNorm(PostNorm):
    """The same norms before the sums, as in Gemma."""

    def forward(self, x):
        residual = x
        x = residual + self.post_attention_layernorm(self.o_proj(self.q_proj(x)))
        y = self.post_feedforward_layernorm(self.down_proj(self.up_proj(x).relu()))
        return x + y


def test_norms_after_the_sum_do_not_end_a_branch_and_are_not_inside_it():
    def ends(kind):
        model = nn.ModuleList([kind(8)])
        found = find_branches(model, model)
        return set(found.modules), {name for name in found.blocks if "norm" in name}

    assert ends(PostNorm) == ({"0.o_proj", "0.down_proj"}, set())
    norms = {"0.post_attention_layernorm", "0.post_feedforward_layernorm"}
    assert ends(InsideNorm)[0] == norms
    assert len(ends(InsideNorm)[1]) == 4


class InOneLine(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(4) for _ in range(3))
        self.f = nn.Linear(4, 4)

    def forward(self, x, again=True):
        x = self.norm1(x + self.f(x))
        x += self.f(x)
        if again:
            x = self.norm2(x)
        return x + self.f(self.norm3(x))


def test_a_norm_on_a_sum_is_told_from_one_that_reads_the_stream():
    assert norms_of_sums(InOneLine()) == {"norm1", "norm2"}
    assert norms_of_sums(nn.LayerNorm(4)) == set()


@pytest.mark.parametrize("family", ["Gemma2", "Olmo2", "Llama", "JinaEmbeddingsV3"])
def test_norms_of_libraries_are_told_apart(family):
    import transformers

    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 40,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**small)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}Model")(config)
    ends = {path.rpartition(".")[2] for path in find_branches(model, model).modules}
    expected = {
        "Gemma2": {"post_attention_layernorm", "post_feedforward_layernorm"},
        "Olmo2": {"post_attention_layernorm", "post_feedforward_layernorm"},
        "Llama": {"o_proj", "down_proj"},
        "JinaEmbeddingsV3": {"o_proj", "fc2"},
    }
    assert ends == expected[family]

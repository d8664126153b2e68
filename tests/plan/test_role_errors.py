"""What cannot be told is an error that says what to pass; passing it works."""

import ast
import re

import pytest
import torch
from cases import GPT, llama, mlp
from torch import nn

import paramz


def message(error_type, model, **options):
    with pytest.raises(error_type) as error:
        paramz.make_plan(model, "mup", **options)
    return str(error.value)


def suggestions(text):
    """The overrides that a message proposes, as the user would paste them."""
    found = []
    for source in re.findall(r"roles=(\{.*?\})(?:$| or |\s)", text, flags=re.MULTILINE):
        axes = re.sub(r"paramz[.]Axes\(fan_in=(.*?\)), fan_out=(.*?\))\)", r"(\1, \2)", source)
        values = ast.literal_eval(axes)
        found.append({k: paramz.Axes(*v) if isinstance(v, tuple) else v for k, v in values.items()})
    return found


class Stack(nn.Module):
    """A bare matrix in each of several blocks."""

    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.blocks = nn.ModuleList(
            nn.ParameterDict({"w": torch.zeros(width, width)}) for _ in "ab"
        )


class Table(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.table = nn.Parameter(torch.zeros(5, width))


def test_a_bare_matrix_needs_its_axes_and_the_suggestion_works():
    text = message(ValueError, Stack(24), base=Stack)
    assert text == (
        "blocks.{0..1}.w (24, 24): axes (0, 1) grow with width, and neither ParameterDict nor a "
        "run tells which is fan_in (what a product sums over) and which fan_out. Pass example=, a "
        "batch that reaches it, or say it: roles={'blocks[.][0-9]+[.]w$': "
        "paramz.Axes(fan_in=(1,), fan_out=(0,))} for F.linear(x, w) or "
        "roles={'blocks[.][0-9]+[.]w$': paramz.Axes(fan_in=(0,), fan_out=(1,))} for x @ w"
    )
    for roles in suggestions(text):  # one line, and one override, for every block
        plan = paramz.make_plan(Stack(24), "mup", base=Stack, roles=roles)
        assert [row.role for row in plan.rows] == ["input", "vector", "hidden", "hidden"]


def test_a_bare_table_is_input_output_or_vector_and_each_suggestion_works():
    text = message(ValueError, Table(24), base=Table)
    assert "table (5, 24): axis 1 grows with width, but Table does not tell whether" in text
    for roles, role, ratio in zip(
        suggestions(text),
        ("input", "output", "vector"),  # the last: five numbers for each channel, as a state has
        ("fan_out", "fan_in", "fan_out"),
        strict=True,
    ):
        row = paramz.make_plan(Table(24), "mup", base=Table, roles=roles).rows[0]
        assert (row.role, row.ratios) == (role, {ratio: 3.0})


def test_a_tensor_shared_by_modules_that_disagree():
    class Shared(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.linear = nn.Linear(width, width, bias=False)
            self.norm = nn.LayerNorm((width, width), bias=False)
            self.norm.weight = self.linear.weight

    text = message(ValueError, Shared(24), base=Shared)
    assert text.startswith(
        "linear.weight (24, 24) is shared by modules that give it different roles (hidden in "
        "linear, vector in norm). Say which one it is: roles={'linear[.]weight$': 'input'}"
    )
    (roles,) = suggestions(text)
    assert paramz.make_plan(Shared(24), "mup", base=Shared, roles=roles).rows[0].role == "input"


def test_an_override_that_matches_nothing_lists_the_names():
    text = message(ValueError, mlp(24), base=mlp, roles={"heads": "output"})
    assert text == (
        "roles['heads'] matches no parameter; there are 0.weight, 0.bias, 2.weight, 2.bias, "
        "4.weight, 4.bias, 6.weight, 6.bias"
    )


def test_an_override_that_is_no_role():
    text = message(ValueError, mlp(24), base=mlp, roles={"6": "readout"})
    assert text.startswith(
        "roles['6'] = 'readout' is no role; the roles are input, hidden, output, vector, scalar"
    )


def deep(layers):
    return lambda width=8: nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))


def test_probes_of_another_depth_list_both_sides():
    text = message(ValueError, deep(3)(24), base=deep(2))
    assert text == (
        "the target model and the base model have different parameters.\n"
        "  only in the target model: 2.weight, 2.bias\n"
        "  only in the base model: nothing\n"
        "Here the model has 3 modules and the base 2. Make them equal, or scale them: with "
        "'mup+completep' or 'mup+depth-mup' for residual blocks, with 'mup+moe' for experts."
    )
    text = message(ValueError, deep(2)(24), base=deep(2)(8), wider=deep(9)(16))
    assert (
        "only in the wider probe: 2.weight, 2.bias, 3.weight, 3.bias, 4.weight, 4.bias and 8 m"
        in (text)
    )


def test_probes_that_differ_in_tying():
    text = message(ValueError, GPT(24, tied=True), base=GPT, base_width=8)
    assert "only in the base model: head.weight" in text


def test_a_factory_that_ignores_its_width():
    text = message(ValueError, mlp(8), base=lambda width=8: mlp(8))
    assert text == (
        "base and wider probe have the same shapes everywhere: nothing grows with width. Does the "
        "factory use its width argument?"
    )


def test_a_dimension_that_differs_but_does_not_grow():
    def classifier(width=8, classes=3):
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, classes))

    text = message(ValueError, classifier(24, classes=7), base=classifier)
    assert text.splitlines()[0] == (
        "1.weight: axis 0 is 3 in the base and 7 in the target, but the same in base and wider "
        "probe (3, 16), so no rule covers it. Give base and target the same size there, or let it "
        "grow with width."
    )
    assert text.splitlines()[1].startswith("1.bias: axis 0 is 3 in the base and 7")


def test_a_tensor_with_another_number_of_axes():
    def build(width=8):
        conv = nn.Conv2d if width < 10 else nn.Conv1d
        return nn.Sequential(conv(3, width, 3))

    text = message(ValueError, build(24), base=build)
    assert text == (
        "0.weight: base (8, 3, 3, 3), wider (16, 3, 3) and target (24, 3, 3) differ in their "
        "number of axes"
    )


def test_the_base_is_missing():
    text = message(TypeError, mlp(24))
    assert text.startswith("base is missing.")
    assert "without one it would silently mean SP" in text
    assert "Pass base=build with base_width=..." in text


def test_a_base_module_without_a_wider_one():
    text = message(TypeError, mlp(24), base=mlp(8))
    assert text.startswith("base is a module, so a second, wider module must show which dimensions")
    assert "for a Hugging Face model, its base's width: base=256. A Hugging Face base with" in text


def test_a_factory_without_a_width():
    def small(width):
        return mlp(width)

    text = message(TypeError, mlp(24), base=small)
    assert text.startswith(
        "base=small is a factory and paramz must know the base width: pass base_w"
    )
    assert paramz.make_plan(mlp(24), "mup", base=small, base_width=8).rows[0].base_shape == (8, 6)


def test_a_wider_width_that_is_the_base_width():
    text = message(ValueError, mlp(24), base=mlp, base_width=8, wider=8)
    assert text == "wider=8 is the base width itself: nothing would grow"


def test_a_base_of_the_wrong_kind():
    assert message(TypeError, mlp(24), base="small") == (
        "base must be a factory, a module or a width, not str: base=build with base_width=..., "
        "where build(width) returns the model; or base=small_model, wider=wider_model; or, for a "
        "Hugging Face model, base=256"
    )
    assert message(TypeError, mlp(24), base=lambda width=8: None) == (
        "the factory returned NoneType at width 8, no module"
    )


def test_a_width_needs_a_huggingface_config():
    text = message(TypeError, mlp(24), base=8)
    assert text == (
        "base is a width, but Sequential has no Hugging Face config to scale: pass a factory as "
        "base= together with base_width=."
    )


def test_a_width_at_which_a_size_is_not_whole():
    text = message(ValueError, llama(64), base=20)
    assert text == (
        "num_attention_heads = 8 at width 64 would be 5/2 at width 20. Widths that keep every size "
        "whole: [16, 32, 48]. Or let the heads grow instead of their number: "
        "base=paramz.hf.config_factory(model, heads='size'), base_width=20"
    )


def test_an_unknown_parametrization():
    with pytest.raises(
        ValueError, match="unknown parametrization 'muup' .did you mean 'mup'..; known: sp, ntp"
    ):
        paramz.make_plan(mlp(24), "muup", base=mlp)


def test_errors_leave_the_model_untouched():
    torch.manual_seed(0)
    model = Stack(24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"blocks.\{0..1\}.w"):
        paramz.parametrize_(model, "mup", base=Stack)
    assert paramz.plan_of(model) is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("moe-readout-router", "no rule for width. Multiply it .*'mup.moe-readout-router'"),
        ("full-align", "only a factor on the rules of sp.*Write 'sp.full-align'"),
        ("embed+completep", "Write 'sp.embed.completep'"),
        ("bottleneck-hidden", "Write 'mup.bottleneck-hidden'"),
    ],
)
def test_a_scheme_without_rules_for_width_is_no_sp(scheme, said):
    """All learning rates would stay, and under full-align weights would start at a constant std."""
    with pytest.raises(ValueError, match=said):
        paramz.make_plan(mlp(32), scheme, base=mlp, base_width=8)

"""What a use of mup or unit-scaling becomes in paramz, with the arguments that the use has."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from paramz.compat.absent import ABSENT

_LAWS = (
    "uniform_", "normal_", "trunc_normal_", "ones_", "eye_", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_",
)  # fmt: skip


def equivalent(dotted: str, call: ast.Call | None) -> tuple[str, str]:
    """The code that replaces a use, and what changes.

    Args:
        dotted: the name, such as ``"mup.optim.MuAdam"``.
        call: the call, if the name is called.

    Returns:
        the code, empty if nothing replaces the use, and what changes.

    >>> equivalent("mup.MuReadout", ast.parse("MuReadout(w, 10)", mode="eval").body)[0]
    'nn.Linear(w, 10)'
    """
    package, _, rest = dotted.partition(".")
    name = rest.rpartition(".")[2]
    if package == "unit_scaling":
        return _unit_scaling(rest, call)
    if name in _LAWS:
        return _law(name, call)
    if name in _MUP:
        return _MUP[name](_Call(call))
    return f"paramz.compat.mup.{rest}", "the same under the other import"


class _Call:
    """The arguments of a call as source text; a name that is not called has none."""

    def __init__(self, node: ast.Call | None) -> None:
        self.called = node is not None
        self.args = [ast.unparse(arg) for arg in node.args] if node else []
        keywords = node.keywords if node else []
        self.options = {
            k.arg or f"**{ast.unparse(k.value)}": ast.unparse(k.value) for k in keywords
        }

    def take(self, place: int, name: str, default: str = "") -> str:
        """An argument by place or name; one that was given by name leaves the options."""
        if place < len(self.args):
            return self.args[place]
        return self.options.pop(name, default)

    def text(self, *first: str) -> str:
        """The source of an argument list: these, then the options that are left."""
        rest = [
            key if key.startswith("**") else f"{key}={value}" for key, value in self.options.items()
        ]
        return ", ".join([*(text for text in first if text), *rest])


Becomes = tuple[str, str]


def _set_base_shapes(call: _Call) -> Becomes:
    model, base = call.take(0, "model", "model"), call.take(1, "base", "base")
    init = call.take(2, "rescale_params", "True")
    delta = call.take(3, "delta")
    delta = "" if delta == "None" else delta
    if base == "None":
        return "", "without a base this is the standard parametrization: nothing to do"
    init = "" if init == "True" else f", init={init}"
    made = ""
    if not model.replace(".", "_").isidentifier():
        made, model = f"model = {model}; ", "model"
    if delta:
        return (
            f"{made}plan = paramz.parametrize_({model}, 'mup', base={base}, wider={delta}{init})",
            "the base must have its real initial values, which are measured; the plan is kept",
        )
    return (
        f"{made}plan = paramz.parametrize_({model}, 'mup', base=build, base_width=...{init})",
        f"build(width) returns the model; base and a wider probe are built from it, on the meta "
        f"device where that works, instead of {base}",
    )


def _make_base_shapes(call: _Call) -> Becomes:
    return "", (
        "no file is needed: parametrize_ builds the base itself, and plan.save('plan.json') keeps "
        "the whole plan beside a checkpoint"
    )


def _readout(call: _Call) -> Becomes:
    zero = call.options.pop("readout_zero_init", "False") != "False"
    why = "its 1/width is folded into initial values, learning rate and epsilon"
    why += _output_mult(call)
    if zero:
        why += "; start its weight and bias at zero with nn.init.zeros_"
    return f"nn.Linear({call.text(*call.args)})" if call.called else "nn.Linear", why


def _shared_readout(call: _Call) -> Becomes:
    weight = call.take(0, "weight", "embedding.weight")
    zero = call.options.pop("readout_zero_init", "False") != "False"
    mult = _output_mult(call)
    bias = call.take(1, "bias", "True")
    return f"nn.Linear(*reversed({weight}.shape), bias={bias})  # then .weight = {weight}", (
        "tied weights are found; the embedding keeps its size (mup multiplies it by sqrt(width)), "
        f"and the readout's multiplier is a hook{mult}"
        + ("; start its bias at zero with nn.init.zeros_" if zero else "")
    )


def _output_mult(call: _Call) -> str:
    """What a readout's factor becomes; it leaves the options."""
    mult = call.options.pop("output_mult", "1.0")
    return "" if mult in ("1.0", "1") else f"; multiply the logits by output_mult={mult} in forward"


def _optimizer(default: str) -> Callable[[_Call], Becomes]:
    def becomes(call: _Call) -> Becomes:
        params = call.take(0, "params", "model.parameters()")
        kind = call.take(1, "impl", f"torch.optim.{default}")
        kind = kind if "." in kind or kind[:1].islower() else f"torch.optim.{kind}"
        called = kind.rpartition(".")[2].lower()
        apart = call.take(2, "decoupled_wd", "False")
        scaled = [
            f"{name}={call.options.pop(name)}"
            for name in ("lr", "weight_decay", "eps")
            if name in call.options
        ]
        whole = params.endswith(".parameters()")
        model = params.removesuffix(".parameters()") if whole else "model"
        if apart != "False":
            scaled += ["decay='coupled'" + f" if {apart} else 'lr-constant'" * (apart != "True")]
        groups = f"plan.param_groups({', '.join([model, repr(called), *scaled])})"
        why = "lr and weight_decay as mup's"
        if not whole:
            why += f"; {params} has groups or a choice of its own, which only the drop-in takes"
        if default != "SGD":
            why += "; epsilon follows the size of each gradient (mup has one for all)"
            if called == "adamw" and not any(s.startswith("weight_decay") for s in scaled):
                why += "; without weight_decay it is torch's 0.01 (mup: 0)"
            if called == "adam" and any(s.startswith("weight_decay") for s in scaled):
                why += "; so does its L2 decay (mup scales it like AdamW's)"
        if not call.called:
            return kind, f"with plan.param_groups(model, {called!r}, lr=...) as parameters; {why}"
        return f"{kind}({call.text(groups)})", why

    return becomes


def _coord_data(call: _Call) -> Becomes:
    return "df = paramz.coord_check(build, batch, widths=[...])", (
        "build(width) returns the plain model; sizes and their changes over steps and seeds"
    )


def _plot(call: _Call) -> Becomes:
    return "paramz.judge(df).sentence", (
        "PASS, or FAIL with module and likely cause, in place of curves to look at"
    )


def _law(name: str, call: ast.Call | None) -> Becomes:
    arguments = _Call(call)
    made = f"nn.init.{name}"
    return f"{made}({arguments.text(*arguments.args)})" if arguments.called else made, (
        "before parametrize_, which scales what was drawn by what it measures on the base model"
    )


_MUP: Mapping[str, Callable[[_Call], Becomes]] = {
    "set_base_shapes": _set_base_shapes,
    "make_base_shapes": _make_base_shapes,
    "save_base_shapes": lambda call: ("plan.save('plan.json')", "the whole plan, not shapes only"),
    "load_base_shapes": lambda call: (
        "paramz.Plan.load('plan.json')",
        "`paramz convert file.bsh` shows what the old file holds",
    ),
    "get_shapes": lambda call: ("", "parametrize_ compares models itself"),
    "get_infshapes": lambda call: ("plan.rows", "a row per tensor: role, ratios, and why"),
    "MuReadout": _readout,
    "MuSharedReadout": _shared_readout,
    "MuAdam": _optimizer("Adam"),
    "MuAdamW": _optimizer("AdamW"),
    "MuSGD": _optimizer("SGD"),
    "get_coord_data": _coord_data,
    "example_plot_coord_check": lambda call: (
        "",
        "it needs mup.test, which mup does not ship: call get_coord_data and plot_coord_data",
    ),
    "plot_coord_data": _plot,
}

# unit_scaling's layer -> torch's layer, how many of its positional arguments are torch's as well,
# and (position, name) of the option that unit_scaling turns off by default.
_UNIT_LAYERS: Mapping[str, tuple[str, int, tuple[int, str]]] = {
    "Linear": ("Linear", 5, (2, "bias")),
    "LinearReadout": ("Linear", 5, (2, "bias")),
    "Conv1d": ("Conv1d", 11, (7, "bias")),
    "Embedding": ("Embedding", 11, (0, "")),
    "LayerNorm": ("LayerNorm", 6, (2, "elementwise_affine")),
    "RMSNorm": ("RMSNorm", 3, (2, "elementwise_affine")),
    "GELU": ("GELU", 0, (0, "")),
    "SiLU": ("SiLU", 0, (0, "")),
    "Softmax": ("Softmax", 1, (0, "")),
    "Dropout": ("Dropout", 2, (0, "")),
    "CrossEntropyLoss": ("CrossEntropyLoss", 0, (0, "")),
}


def _unit_optimizer(name: str, call: _Call) -> Becomes:
    why = (
        "plan = paramz.parametrize_(model, 'u-mup', example=batch); few groups instead of one per "
        "tensor, decay independent of lr as in unit_scaling"
    )
    call.options.pop("allow_non_unit_scaling_params", None)
    if call.options.pop("independent_weight_decay", "True") == "False":
        call.options["decoupled_wd"] = "True"  # mup's word for decay that no rule touches
        why = why.replace("independent of lr", "times lr")
    if call.options.pop("readout_constraint", "None") != "None":
        why += "; SGD's rates are those of a readout without a constraint, as the plan's is"
    becomes, _ = _optimizer(name)(call)
    return becomes, why


def _unit_scaling(rest: str, call: ast.Call | None) -> Becomes:
    name = rest.rpartition(".")[2]
    if rest in ABSENT or f"{rest.partition('.')[0]}.{name}" in ABSENT:
        return "", ABSENT.get(rest) or ABSENT[f"{rest.partition('.')[0]}.{name}"]
    if rest.startswith("optim.") and name in ("SGD", "Adam", "AdamW"):
        return _unit_optimizer(name, _Call(call))
    if rest in _UNIT_LAYERS:
        layer, shared, (place, off) = _UNIT_LAYERS[rest]
        arguments = _Call(call)
        for own in ("mult", "constraint", "weight_mup_type"):
            arguments.options.pop(own, None)
        if off and len(arguments.args) <= place:
            arguments.options.setdefault(off, "False")
        text = f"({arguments.text(*arguments.args[:shared])})" if arguments.called else ""
        return f"nn.{layer}{text}", (
            "a plain layer; paramz.parametrize_(model, 'u-mup', example=batch) finds what it is "
            "and scales it; its alphas= are the multipliers"
        )
    if rest == "TransformerDecoder":
        return "paramz.nn.TransformerDecoder", "or any plain decoder under parametrize_"
    return f"paramz.compat.unit_scaling.{rest}", "the same under the other import"


MUP_NAMES = (*_MUP, *_LAWS)

"""What the table says of optimizers of other libraries, measured on their own steps."""

import inspect
import itertools

import pytest
import torch

import paramz
from paramz.theory.families import FAMILIES, WITHOUT_RULE, family

library = pytest.importorskip("pytorch_optimizer")

ROWS = (
    "adan", "ademamix", "simplifiedademamix", "laprop", "qhadam", "stableadamw", "adamc", "ano",
    "schedulefreeadamw", "adopt", "grams", "tiger", "came", "sgdw", "schedulefreesgd", "lion",
)  # fmt: skip


def moved(kind, gradient=1.0, weight=1.0, eps=None, shape=(8, 16), steps=3, **options):
    """What some steps with random gradients of a size add to a weight."""
    draw = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(*shape, generator=draw, dtype=torch.float64) * weight)
    start = w.detach().clone()
    optimizer = kind([w], lr=2**-10, **options)
    for group in optimizer.param_groups:
        if eps is not None and "eps" in group:
            group["eps"] = eps
    if hasattr(optimizer, "train"):
        optimizer.train()
    for _ in range(steps):
        w.grad = torch.randn(*shape, generator=draw, dtype=torch.float64) * gradient
        optimizer.step()
    return w.detach() - start, start


@pytest.mark.parametrize("name", ROWS)
def test_learning_rate_and_eps_answer_to_the_size_of_gradients(name):
    kind = library.load_optimizer(name)
    known = family(kind)
    degree = float(known.lr_shift - 1)
    before, _ = moved(kind, eps=0.5, weight_decay=0.0)
    after, _ = moved(kind, gradient=4.0, eps=0.5 * 4 ** float(known.eps_shift), weight_decay=0.0)
    torch.testing.assert_close(after, before * 4**degree, rtol=1e-3, atol=1e-3 * before.abs().max())


@pytest.mark.parametrize("name", ROWS)
def test_steps_depend_neither_on_the_weight_nor_on_its_shape(name):
    kind = library.load_optimizer(name)
    first, _ = moved(kind, weight_decay=0.0, eps=1e-12)
    heavier, _ = moved(kind, weight=4.0, weight_decay=0.0, eps=1e-12)
    larger, _ = moved(kind, shape=(32, 64), weight_decay=0.0, eps=1e-12)
    size = first.square().mean().sqrt()
    torch.testing.assert_close(heavier, first, rtol=1e-6, atol=1e-9)
    assert 0.8 < larger.square().mean().sqrt() / size < 1.25


@pytest.mark.parametrize("name", ROWS)
def test_decay_is_what_the_table_says(name):
    kind = library.load_optimizer(name)
    options = (
        {"weight_decouple": True} if "weight_decouple" in inspect.signature(kind).parameters else {}
    )
    assert family(kind, decoupled=options.get("weight_decouple")).decay == "decoupled"
    change, start = moved(kind, gradient=0.0, weight_decay=0.125, steps=2, **options)
    shares = change / start / 2**-13  # of lr * weight_decay, after one or two steps that count
    assert shares.std() < 1e-3 and -2.01 < shares.mean() < -0.9


def test_a_class_whose_decay_is_in_the_gradient_by_default_is_read_so():
    assert family(library.AdEMAMix).decay == "l2-normalised"
    assert family(library.AdEMAMix, decoupled=True).decay == "decoupled"
    model = torch.nn.Linear(4, 4)
    coupled = library.AdEMAMix(model.parameters(), weight_decouple=True)
    assert family(coupled).decay == "decoupled"


def test_defaults_are_the_librarys_own():
    for name in ROWS:
        default = inspect.signature(library.load_optimizer(name)).parameters
        if FAMILIES[name].eps is not None:
            assert FAMILIES[name].eps == default["eps"].default, name
        assert FAMILIES[name].weight_decay == default["weight_decay"].default, name


def test_optimizers_without_a_rule_say_what_is_missing():
    for name in WITHOUT_RULE:
        with pytest.raises(ValueError, match=f"there is no rule for {name}: it.*declare it: "):
            family(name)
    with pytest.raises(ValueError, match="no rule for Prodigy: it estimates its learning rate"):
        family(library.load_optimizer("prodigy"))


def test_of_the_two_apollos_each_says_its_own_reason():
    class Apollo(torch.optim.SGD):  # as of other libraries, with the name alone
        def __init__(self, params, lr=1e-2, beta=0.9, eps=1e-4, rebound="constant"):
            super().__init__(params, lr)

    for kind in (Apollo, library.ApolloDQN):
        with pytest.raises(ValueError, match="estimate of the diagonal of the Hessian.*declare it"):
            family(kind)
    for kind in (library.APOLLO, "apollo"):
        with pytest.raises(ValueError, match="Adam's in a subspace.*declare it"):
            family(kind)


def test_groups_of_a_class_of_another_library_hold_its_options():
    def net(width):
        return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 2))

    model = net(32)
    plan = paramz.parametrize_(model, "mup", base=net, base_width=8)
    groups = plan.param_groups(model, library.ADOPT, lr=0.01, betas=(0.9, 0.99))
    optimizer = library.ADOPT(groups)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.99)}
    plan.check(optimizer)


def deep(width):
    sizes = [16, width, width, width, 10]
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return torch.nn.Sequential(*itertools.chain(*((x, torch.nn.ReLU()) for x in layers)))[:-1]


def digits():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(128, 16, generator=draw), torch.arange(128) % 10


RATES = {"sgdw": 2**-3, "schedulefreesgd": 2**-3, "adopt": 2**-7}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_row_passes_the_coordinate_check_and_fails_under_sp(name):
    outcomes = [
        paramz.judge(
            paramz.coord_check(
                deep, digits(), widths=[64, 128, 256, 512], parametrization=scheme,
                optimizer=library.load_optimizer(name), lr=RATES.get(name, 2**-8),
            )
        ).outcome
        for scheme in ("mup", "sp")
    ]  # fmt: skip
    assert outcomes == ["pass", "fail"]


# ---- Relatives of Muon ---------------------------------------------------------------------------

ORTHOGONAL = [
    ("NorMuon", {"use_adjusted_lr": False}),
    ("NorMuon", {"use_adjusted_lr": True}),
    ("AdaMuon", {"use_adjusted_lr": False}),
    ("AdaMuon", {"use_adjusted_lr": True}),
]


def two_optimizers(kind, options, rate):
    """What `coord_check` takes: matrices to one of them, the rest to the AdamW inside it."""

    def make(plan, model, lr):
        matrices, rest = plan.split_groups(
            model,
            **{kind.__name__.lower(): {"optimizer": kind, "lr": lr * rate, **options}},
            adamw={"lr": lr},
        )
        for group in rest:
            group |= {"use_muon": False}
        for group in matrices:
            group |= {"use_muon": True}
        return kind([*matrices, *rest])

    return make


@pytest.mark.parametrize(("name", "options"), ORTHOGONAL)
def test_relatives_of_muon_take_a_step_of_the_tables_size(name, options):
    """A square matrix at four times the width, with gradients of full rank.

    Muon's column keeps the spectral norm there; Adam's divides the size of entries by four, and an
    orthogonal matrix has entries that are half as large.
    """
    kind = getattr(library, name)

    def net(width):
        return torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.Linear(width, width, bias=False),
            torch.nn.Linear(width, 2),
        )  # fmt: skip

    norms = []
    for width in (16, 64):
        torch.manual_seed(0)
        model = net(width)
        plan = paramz.parametrize_(model, "mup", base=net, base_width=16)
        optimizer = two_optimizers(kind, options, 1.0)(plan, model, 0.01)
        plan.check(optimizer, model=model)
        start = model[1].weight.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        norms.append((model[1].weight.detach() - start).norm())
    expected = {"NorMuon": 2.0, "AdaMuon": 1.0}[name]  # in Frobenius norm: sqrt(4), 4 entries / 4
    assert norms[1] / norms[0] == pytest.approx(expected, rel=0.1)


def test_relatives_of_muon_with_another_factor_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Linear(64, 64))
    plan = paramz.parametrize_(
        model,
        "mup",
        base=lambda w=16: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, w)),
    )
    for kind in (library.NorMuon, library.AdaMuon):
        name = kind.__name__.lower()
        matrices, _ = plan.split_groups(
            model, **{name: {"optimizer": kind, "lr": 0.1}}, adamw={"lr": 0.1}
        )
        other = not inspect.signature(kind).parameters["use_adjusted_lr"].default
        for group in matrices:
            group |= {"use_muon": True, "use_adjusted_lr": other}
        with pytest.raises(ValueError, match="counts on the factor"):
            plan.check(kind(matrices))
    with pytest.raises(ValueError, match="update_scale='match_rms' gives steps whose entries"):
        plan.split_groups(
            model,
            normuon={"optimizer": library.NorMuon, "lr": 0.1, "update_scale": "match_rms"},
            adamw={"lr": 0.1},
        )


class Dion(torch.optim.Optimizer):
    """Its published algorithm (arXiv 2504.05295), for one process, with its factor of shapes."""

    def __init__(self, params, lr=0.01, mu=0.95, weight_decay=0.01, rank=8):
        super().__init__(params, {"lr": lr, "mu": mu, "weight_decay": weight_decay, "rank": rank})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                state, rows, columns = self.state[w], *w.shape
                if not state:
                    state["momentum"] = torch.zeros_like(w)
                    state["q"] = torch.randn(columns, min(group["rank"], rows, columns))
                m = state["momentum"].add_(w.grad)
                p, _ = torch.linalg.qr(m @ state["q"])
                r = m.T @ p
                m.sub_((1 - group["mu"]) * p @ r.T)
                state["q"] = r / (r.norm(dim=0, keepdim=True) + 1e-8)
                w.mul_(1 - group["lr"] * group["weight_decay"])
                w.sub_(group["lr"] * (rows / columns) ** 0.5 * p @ state["q"].T)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [*ORTHOGONAL, ("Dion", {})])
def test_every_relative_of_muon_passes_the_coordinate_check_and_fails_under_sp(name, options):
    """On gradients of rank 128 at most; of higher ranks docs/parametrizations.md tells."""

    def dion(plan, model, lr):
        matrices, rest = plan.split_groups(
            model, dion={"optimizer": Dion, "lr": lr}, adamw={"lr": lr}
        )
        optimizers = [Dion(matrices), torch.optim.AdamW(rest)]
        plan.check(*optimizers, model=model)
        return optimizers

    # Moonlight's factor makes 4.5 of 1 at the base, and AdaMuon's entries are of one size.
    rate = {("NorMuon", True): 2.0, ("AdaMuon", True): 2.0}.get((name, *options.values()), 8.0)
    make = dion if name == "Dion" else two_optimizers(getattr(library, name), options, rate)
    outcomes = [
        paramz.judge(
            paramz.coord_check(
                deep, digits(), widths=[64, 128, 256, 512], parametrization=scheme,
                optimizer=make, lr=2**-8,
            )
        ).outcome
        for scheme in ("mup", "sp")
    ]  # fmt: skip
    assert outcomes == ["pass", "fail"]

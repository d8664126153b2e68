"""Shampoo: the update L^-eL G R^-eR, with damping and learning rates that a plan can scale.

Gupta, Koren and Singer 2018 (arXiv 1802.09568), with the blocks, grafting and delayed roots of
Anil et al. 2020 (arXiv 2002.09018). How its hyperparameters move with width: Ishikawa and Karakida
2023 (arXiv 2312.12226), in paramz/theory/tables.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from paramz.optim.shampoo.blocks import from_blocks, matrix_shape, to_blocks
from paramz.optim.shampoo.roots import ROOTS

GRAFTS = (None, "sgd", "rmsprop", "adam")
SIDES = ("left", "right")


class Shampoo(torch.optim.Optimizer):
    """Shampoo as an ordinary torch optimizer, for the groups of a plan.

    Of a matrix G (rows, columns), L is the mean of G G^T over the steps and R that of G^T G. The
    step is ``lr * (L + eps I)^-eL M (R + eps I)^-eR`` with the momentum M. A matrix cut into n
    blocks has L and R per block, times n, as if a block stood for the whole: the step of a gradient
    of rank one is then the same, cut or not. (Without it, n blocks of normalised steps add up to a
    step that grows with n, and n with width.) Vectors are matrices of one column, kernels (out,
    in * area). Factors and momentum are kept in float32 at least, whatever the parameters are.

    Args:
        params: tensors or groups, such as ``plan.param_groups(model, "shampoo", lr=0.02)``.
        lr: learning rate.
        exponent: eL and eR, or one number for both: 1/4 as in Gupta et al., 1/2 as in K-FAC; 0
            leaves a side out. The plan's rules need to know it: give it to ``param_groups``.
        betas: of the momentum (0: none) and of the factors.
        eps: added to L and R; a plan scales it.
        relative_eps: added to L and R in units of their traces, which follow width, depth and
            experts by themselves. Directions that had no gradient before the last roots are
            magnified by up to (eps + relative_eps * trace)^-(eL+eR): with exponents of 1/2 take
            1e-2 or more.
        weight_decay: decoupled, ``p -= lr * weight_decay * p``.
        statistics: ``"ema"``, corrected for its start at zero as in Adam, or ``"sum"`` over all
            steps as in Adagrad.
        graft: give every tensor's step the Frobenius norm that it has with ``"sgd"`` (with the same
            momentum), ``"rmsprop"`` (without) or ``"adam"``, at their epsilon 0.
        block_size: larger matrices are cut into blocks of at most this size.
        update_every: steps between roots. They are also taken at steps 1, 2, 4 ... before that,
            when little is known of the gradients.
        statistics_every: steps between updates of L and R.
        root: ``"eigh"``, or ``"newton"``: matrix products alone, for accelerators.

    Raises:
        ValueError: a hyperparameter is out of range, or an option is none of those above.
        RuntimeError: a gradient is sparse or complex (in ``step``).

    >>> w = torch.nn.Parameter(torch.zeros(2, 2))
    >>> optimizer = Shampoo([w], lr=0.5, relative_eps=0.0)
    >>> w.grad = torch.diag(torch.tensor([8.0, 2.0]))
    >>> optimizer.step()
    >>> w.data  # a first step has singular values of lr, whatever those of the gradient
    tensor([[-0.5000,  0.0000],
            [ 0.0000, -0.5000]])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        *,
        exponent: float | tuple[float, float] = 0.25,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-12,
        relative_eps: float = 1e-4,
        weight_decay: float = 0.0,
        statistics: str = "ema",
        graft: str | None = None,
        block_size: int = 256,
        update_every: int = 10,
        statistics_every: int = 1,
        root: str = "eigh",
    ) -> None:
        defaults = {
            "lr": lr,
            "exponent": exponent,
            "betas": betas,
            "eps": eps,
            "relative_eps": relative_eps,
            "weight_decay": weight_decay,
            "statistics": statistics,
            "graft": graft,
            "block_size": block_size,
            "update_every": update_every,
            "statistics_every": statistics_every,
            "root": root,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            _check(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = [(g, [p for p in g["params"] if p.grad is not None]) for g in self.param_groups]
        for group, parameters in active:
            for parameter in parameters:
                self._observe(parameter, group)
        self._update_roots(active)
        for group, parameters in active:
            if parameters:
                self._move(parameters, group)
        return loss

    def _observe(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Take the gradient into momentum and factors."""
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse or gradient.is_complex():
            raise RuntimeError(
                f"Shampoo got a {'sparse' if gradient.is_sparse else 'complex'} gradient for a "
                f"tensor of shape {tuple(parameter.shape)}; it needs a dense real one. Embeddings: "
                "sparse=False"
            )
        gradient = gradient.to(_precision(parameter))
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        shape, most = _shape(parameter, group), group["block_size"]
        blocks = None
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(gradient)
            if group["graft"] in ("rmsprop", "adam"):
                state["second"] = torch.zeros_like(gradient)
            blocks = to_blocks(gradient, shape, most)
            for side, power, size in zip(SIDES, _powers(group), blocks.shape[1:], strict=True):
                if power:
                    state[side] = gradient.new_zeros(len(blocks), size, size)
        observed = int(state["step"]) % group["statistics_every"] == 0
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - beta1)
        if "second" in state:
            state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if not observed:
            return
        blocks = to_blocks(gradient, shape, most) if blocks is None else blocks
        old, new = (beta2, 1 - beta2) if group["statistics"] == "ema" else (1.0, 1.0)
        new *= len(blocks) / shape[0]
        if "left" in state:
            state["left"].baddbmm_(blocks, blocks.mT, beta=old, alpha=new)
        if "right" in state:
            state["right"].baddbmm_(blocks.mT, blocks, beta=old, alpha=new)

    def _update_roots(self, active: list[tuple[dict[str, Any], list[Tensor]]]) -> None:
        """Take the roots that are due; those of equal size as one batch, of all tensors."""
        batches: dict[tuple[Any, ...], list[tuple[dict[str, Any], str, Tensor, Tensor]]] = {}
        for group, parameters in active:
            for parameter in parameters:
                state = self.state[parameter]
                if not _due(int(state["step"]), group["update_every"]):
                    continue
                scale = _correction(int(state["step"]), group)
                for side, power in zip(SIDES, _powers(group), strict=True):
                    if side in state:
                        factor = state[side] * scale
                        trace = factor.diagonal(dim1=1, dim2=2).sum(1)
                        ridge = group["eps"] + group["relative_eps"] * trace
                        key = (factor.shape[1], factor.dtype, factor.device, power, group["root"])
                        batches.setdefault(key, []).append((state, side, factor, ridge))
        for (*_, power, root), items in batches.items():
            factors = torch.cat([factor for *_, factor, _ in items])
            roots = ROOTS[root](factors, torch.cat([ridge for *_, ridge in items]), power)
            parts = torch.split(roots, [len(factor) for *_, factor, _ in items])
            for (state, side, *_), part in zip(items, parts, strict=True):
                state[f"{side}_root"] = part.clone()

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Precondition, graft, decay and step."""
        lr = float(group["lr"])
        changes = []
        for parameter in parameters:
            state = self.state[parameter]
            shape, most = _shape(parameter, group), group["block_size"]
            start = 1 - group["betas"][0] ** int(state["step"])
            change = to_blocks(state["momentum"], shape, most)
            if "left_root" in state:
                change = state["left_root"] @ change
            if "right_root" in state:
                change = change @ state["right_root"]
            change = from_blocks(change, shape, most).reshape(parameter.shape) / start
            if group["graft"] is not None:
                norm = change.norm()
                wanted = _graft_norm(state, parameter, group)
                change = change * (wanted / norm.clamp(min=torch.finfo(norm.dtype).tiny))
            changes.append(change.to(parameter.dtype))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, changes, alpha=-lr)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load; factors keep their precision, which torch would reduce to the parameters'."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(g["params"] for g in state_dict["param_groups"])
        parameters = chain.from_iterable(g["params"] for g in self.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor) and key != "step":
                    self.state[parameter][key] = value.to(parameter.device, copy=True)


def _check(group: dict[str, Any]) -> None:
    powers, betas = _powers(group), group["betas"]
    if not all(0 <= power <= 1 for power in powers) or not any(powers):
        raise ValueError(f"exponent={group['exponent']!r}: two numbers from 0 to 1, not both 0")
    if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
        raise ValueError(f"betas={betas!r}: both from 0 up to, but not, 1")
    if not group["eps"] > 0:
        raise ValueError(
            f"eps={group['eps']!r} must be over 0: factors have no inverse where no gradient was"
        )
    for name in ("lr", "weight_decay", "relative_eps"):
        if not group[name] >= 0:
            raise ValueError(f"{name}={group[name]!r} must not be negative")
    for name in ("block_size", "update_every", "statistics_every"):
        if not (isinstance(group[name], int) and group[name] >= 1):
            raise ValueError(f"{name}={group[name]!r} must be an integer from 1")
    for name, known in (("statistics", ("ema", "sum")), ("graft", GRAFTS), ("root", tuple(ROOTS))):
        if group[name] not in known:
            raise ValueError(f"{name}={group[name]!r} is none of {', '.join(map(repr, known))}")
    if group["root"] == "newton":
        for power in filter(None, powers):
            if abs(round(1 / power) * power - 1) > 1e-9:
                raise ValueError(
                    f"exponent={group['exponent']!r} with root='newton': it takes 1/p with an "
                    "integer p, such as 1/4 and 1/2; use root='eigh'"
                )


def _powers(group: dict[str, Any]) -> tuple[float, float]:
    exponent = group["exponent"]
    left, right = exponent if isinstance(exponent, tuple | list) else (exponent, exponent)
    return float(left), float(right)


def _shape(parameter: Tensor, group: dict[str, Any]) -> tuple[int, int, int]:
    # A plan's groups say which tensors are experts, whose first axis is a stack of matrices.
    return matrix_shape(tuple(parameter.shape), stacked="expert" in group.get("roles", ()))


def _precision(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _due(step: int, every: int) -> bool:
    early = step < every and step & (step - 1) == 0
    return early or step % every == 0


def _correction(step: int, group: dict[str, Any]) -> float:
    """What makes the moving average of the factors a mean."""
    if group["statistics"] == "sum":
        return 1.0
    seen = -(-step // group["statistics_every"])
    return float(1 / (1 - group["betas"][1] ** seen))


def _graft_norm(state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> Tensor:
    """The Frobenius norm of the step that the grafted optimizer would make, for a lr of 1."""
    (beta1, beta2), step = group["betas"], int(state["step"])
    step_taken = state["momentum"] / (1 - beta1**step)
    if group["graft"] == "adam":
        second = state["second"] / (1 - beta2**step)
    elif group["graft"] == "rmsprop":
        assert parameter.grad is not None
        step_taken, second = parameter.grad.to(_precision(parameter)), state["second"]
    if group["graft"] != "sgd":
        step_taken = step_taken / second.sqrt().clamp(min=torch.finfo(second.dtype).tiny)
    norm: Tensor = step_taken.norm()
    return norm

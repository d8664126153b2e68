"""Shampoo: the update L^-eL G R^-eR, with damping and learning rates that a plan can scale.

Gupta, Koren and Singer 2018 (arXiv 1802.09568), with the blocks, grafting and delayed roots of
Anil et al. 2020 (arXiv 2002.09018). How its hyperparameters move with width: Ishikawa and Karakida
2023 (arXiv 2312.12226), see paramz/theory/tables.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from paramz.optim.shampoo.blocks import from_blocks, matrix_shape, to_blocks
from paramz.optim.shampoo.options import exponents, require_valid
from paramz.optim.shampoo.roots import ROOTS
from paramz.optim.shampoo.schedule import correction, due, gradients_seen

_SIDES = ("left", "right")

# What a factor whose root is due needs: its state, its side, L or R, its ridge, whether it saw any
# gradient, the last three per block.
_Due = tuple[dict[str, Any], str, Tensor, Tensor, Tensor]


class Shampoo(torch.optim.Optimizer):
    """Shampoo as an ordinary torch optimizer, for the groups of a plan.

    For gradients G (rows, columns), L is the mean of G G^T over the steps, and R that of G^T G. The
    step is ``lr * (L + eps I)^-eL M (R + eps I)^-eR``, where M is the momentum. Vectors are
    matrices of one column, and kernels of convolutions matrices (out, in * area).

    A matrix that is cut into n blocks has an L and an R for each block, multiplied by n, as if the
    block stood for the whole matrix. The step for a gradient of rank one is then the same, cut or
    not. Without this factor n blocks of normalised steps would add up to a step that grows with n,
    and so with width.

    Factors and momentum are kept in float32 at least, whatever the parameters have, and the roots
    are taken in that precision (see `paramz.optim.shampoo.roots` for the reason). Steps are finite
    as long as gradients are: a gradient with entries above the cube root of the largest number
    (7e12 in float32) is scaled down, as its squares would overflow.

    Args:
        params: tensors or groups, such as ``plan.param_groups(model, "shampoo", lr=0.02)``.
        lr: learning rate.
        exponent: eL and eR, or one number for both: 1/4 as in Gupta et al., 1/2 as in K-FAC; 0
            leaves a side out. A plan's rules depend on it: give it to ``param_groups``.
        betas: decay rates of the momentum (0 for no momentum) and of the factors.
        eps: added to L and R; a plan scales it.
        relative_eps: added to L and R in units of their traces, which follow width, depth and
            experts by themselves. Directions in which there was no gradient when the roots were
            taken are magnified by up to (eps + relative_eps * trace)^-(eL+eR): with exponents of
            1/2 take 1e-2 or more.
        weight_decay: decoupled, ``p -= lr * weight_decay * p``.
        statistics: L and R are moving averages (``"ema"``), corrected for their start at zero as in
            Adam, or sums over all steps (``"sum"``) as in Adagrad.
        graft: give the step of every tensor the Frobenius norm that it would have with ``"sgd"``
            (with the same momentum), ``"rmsprop"`` (without momentum) or ``"adam"``, all with an
            epsilon of 0. None for no grafting.
        block_size: larger matrices are cut into blocks of at most this size.
        update_every: steps between computations of the roots. Earlier they are also taken at steps
            1, 2, 4 ..., while little is known of the gradients.
        statistics_every: steps between updates of L and R. Of the first ``update_every`` steps all
            count, for the same reason.
        root: how roots are computed: by eigenvalues (``"eigh"``), or by matrix products alone
            (``"newton"``), for accelerators.

    Raises:
        ValueError: an option is out of range.

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
        update_every: int = 20,
        statistics_every: int = 2,
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, see `torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: an option of it is out of range.
        """
        super().add_param_group(param_group)
        try:
            require_valid(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step, see `torch.optim.Optimizer.step`.

        Raises:
            RuntimeError: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = [
            (g, [p for p in g["params"] if p.grad is not None and p.numel()])
            for g in self.param_groups
        ]
        for group, parameters in active:
            for parameter in parameters:
                self._observe(parameter, group)
        self._update_roots(active)
        for group, parameters in active:
            if parameters:
                self._move(parameters, group)
        return loss

    def _observe(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Add the gradient to the momentum and the factors."""
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse or gradient.is_complex():
            raise RuntimeError(
                f"Shampoo got a {'sparse' if gradient.is_sparse else 'complex'} gradient for a "
                f"tensor of shape {tuple(parameter.shape)}, and needs a dense real one. Embeddings "
                "have dense gradients with sparse=False"
            )
        gradient = _bounded(gradient.to(_precision(parameter)))
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        shape, most = _shape(parameter, group), group["block_size"]
        blocks = None
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(gradient)
            if group["graft"] in ("rmsprop", "adam"):
                state["second"] = torch.zeros_like(gradient)
            blocks = to_blocks(gradient, shape, most)
            for side, power, size in zip(_SIDES, exponents(group), blocks.shape[1:], strict=True):
                if power:
                    state[side] = gradient.new_zeros(len(blocks), size, size)
        state["step"] += 1
        now = int(state["step"])
        observed = gradients_seen(now, group) > gradients_seen(now - 1, group)
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
        """Compute the roots that are due, those of equal size as one batch over all tensors."""
        batches: dict[tuple[Any, ...], list[_Due]] = {}
        for group, parameters in active:
            for parameter in parameters:
                state = self.state[parameter]
                if not due(int(state["step"]), group["update_every"]):
                    continue
                scale = correction(int(state["step"]), group)
                for side, power in zip(_SIDES, exponents(group), strict=True):
                    if side in state:
                        factor = state[side] * scale
                        trace = factor.diagonal(dim1=1, dim2=2).sum(1)
                        key = (factor.shape[1], factor.dtype, factor.device, power, group["root"])
                        ridge = group["eps"] + group["relative_eps"] * trace
                        seen = trace != 0
                        batches.setdefault(key, []).append((state, side, factor, ridge, seen))
        for (*_, power, root), items in batches.items():
            _, _, factors, ridges, seen = zip(*items, strict=True)
            roots = ROOTS[root](torch.cat(factors), torch.cat(ridges), power)
            # A block without any gradient keeps still until its next root: eps alone would be its
            # scale, and the first gradient it ever gets would be magnified by eps^-(eL+eR).
            roots = roots * torch.cat(seen)[:, None, None]
            parts = torch.split(roots, [len(factor) for factor in factors])
            for (state, side, *_), part in zip(items, parts, strict=True):
                state[f"{side}_root"] = part.clone()

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Precondition the momentum, graft, decay the parameters and move them."""
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
            # Products are memory of their own: at least one side has a root.
            change = from_blocks(change, shape, most).reshape(parameter.shape).div_(start)
            if group["graft"] is not None:
                largest = _largest(change)
                change = change / largest.clamp(min=torch.finfo(largest.dtype).tiny)
                # Its largest entry is 1 now, so its norm is at least that, or 0.
                change = change * (
                    _graft_norm(state, parameter, group) / change.norm().clamp(min=0.5)
                )
            changes.append(change.to(parameter.dtype))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, changes, alpha=-lr)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`; factors keep their precision, unlike in torch's own."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(g["params"] for g in state_dict["param_groups"])
        parameters = chain.from_iterable(g["params"] for g in self.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor) and key != "step":
                    self.state[parameter][key] = value.to(parameter.device, copy=True)


def _shape(parameter: Tensor, group: dict[str, Any]) -> tuple[int, int, int]:
    # The groups of a plan say which tensors are stacks of experts, whose first axis counts them.
    return matrix_shape(tuple(parameter.shape), stacked="expert" in group.get("roles", ()))


def _largest(tensor: Tensor) -> Tensor:
    least, most = tensor.aminmax()  # a tenth of the time of vector_norm with inf on a CPU
    return torch.maximum(-least, most)


def _bounded(gradient: Tensor) -> Tensor:
    """The gradient, scaled down if its squares would overflow; nan and infinite ones stay so."""
    if not gradient.numel():
        return gradient
    # Squares are below max^(2/3) then, so that max^(1/3) of them may be added.
    most = torch.finfo(gradient.dtype).max ** (1 / 3)
    largest = _largest(gradient)
    if gradient.device.type == "cpu" and not largest > most:
        return gradient  # another device is not waited for
    return gradient * torch.where(largest > most, most / largest, 1.0)


def _precision(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _graft_norm(state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> Tensor:
    """The Frobenius norm of the other optimizer's step at a learning rate of 1."""
    (beta1, beta2), step = group["betas"], int(state["step"])
    step_taken = state["momentum"] / (1 - beta1**step)
    if group["graft"] == "adam":
        second = state["second"] / (1 - beta2**step)
    elif group["graft"] == "rmsprop":
        assert parameter.grad is not None
        step_taken, second = _bounded(parameter.grad.to(_precision(parameter))), state["second"]
    if group["graft"] != "sgd":
        # Where squares underflow there is no step, as with any epsilon.
        step_taken = torch.where(second == 0, 0.0, step_taken / second.sqrt())
    norm: Tensor = step_taken.norm()
    return norm

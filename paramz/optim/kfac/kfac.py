"""K-FAC: the gradient of each layer times the inverse of its Kronecker-factored Fisher matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paramz.optim.kfac.estimate import Estimate, Factors, require_choice
from paramz.optim.kfac.fisher import Fisher, Likelihood
from paramz.optim.kfac.group import check_group
from paramz.optim.kfac.inverse import Damping, dampings, inverses
from paramz.optim.kfac.layers import (
    PreconditionedLayer,
    Sharing,
    gradient,
    multiply,
    preconditioned_layers,
    updates,
)
from paramz.optim.kfac.measurement import Measurement
from paramz.optim.kfac.processes import averages, rank
from paramz.optim.precision import full_precision


class KFAC(torch.optim.Optimizer):
    """K-FAC (Martens and Grosse 2015, arXiv 1503.05671), for Linear, Conv2d, Embedding and norms.

    The gradient G (out, in) of a layer becomes (B + b I)^-1 G (A + a I)^-1. Here A = E[x x^T] for
    the layer's inputs x, and B = E[g g^T] for the gradients g of its outputs under the model's own
    predictions; a and b are dampings. The gain and the shift of a norm have a full matrix B each,
    and no A.

    The training loop stays as it is: hooks on the model measure A and B in the forward passes of
    every ``covariance_every``-th step, and `close` (or a ``with`` block) removes them. The loss
    must be the mean over all predictions. Under `torch.distributed`, factors are averaged over the
    default process group.

    Args:
        params: parameters, or groups of `Plan.param_groups` or `Plan.split_groups`.
        model: the model whose forward pass returns the predictions, (data, ..., outputs), or an
            object or mapping with ``logits``, or a tuple that starts with them.
        lr: learning rate of groups without one of their own. 1 is a full natural-gradient step.
        likelihood: ``"categorical"`` for cross-entropy, ``"gaussian"`` for torch's ``mse_loss``.
        fisher: ``"mc"``: one draw of the targets from the model. ``"exact"``: all targets, with one
            backward pass per output (and position). ``"empirical"``: the targets of the data, which
            gives no Fisher matrix: it vanishes as the model fits the data and does not transfer
            over width. It allows one forward and backward pass per step only, of the loss itself,
            without the factor of a GradScaler.
        sharing: ``"expand"`` counts the positions of a sequence or image as samples of their own,
            ``"reduce"`` sums over them first (Eschenhagen et al. 2023, arXiv 2311.00636).
        damping: damping of groups without one of their own.
        damping_kind: ``"trace"``: damping * tr(A) and damping * tr(B), which follow width and depth
            by themselves. ``"constant"``: a group's ``damping_a`` and ``damping_b``, which a plan
            scales. ``"pi"``: the damping of Martens and Grosse, which does not transfer over width.
        momentum: momentum of the preconditioned gradients, for groups without one of their own.
        weight_decay: decoupled decay, p -= lr * weight_decay * p, of groups without one of their
            own.
        factor_decay: the share of the old A and B that remains at each measurement; the first
            measurements are averaged instead.
        covariance_every: steps between measurements of A and B.
        inverse_every: steps between inversions; a multiple of ``covariance_every``.
        block_size: larger factors are cut into equal blocks on their diagonals, which costs less
            time and memory; None is K-FAC as published. Steps are divided by the number of blocks,
            so that their size does not depend on it.
        factors: ``"both"``; or ``"inputs"`` to leave B out, which is FOOF (Benzing 2022, arXiv
            2201.12250) and needs no second backward pass.
        seed: of the draws for ``"mc"``, which do not touch torch's random state.

    Raises:
        ValueError: an option is out of range, some parameter is complex or belongs to no layer that
            K-FAC can precondition, or is shared by several; the message names the parameters. In a
            forward pass: the predictions of a categorical likelihood have one class, or are those
            of a Conv2d, whose classes are axis 1; or a layer's class computes something else than
            torch's.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> with KFAC(net.parameters(), net, lr=0.1) as optimizer:
    ...     loss = nn.functional.cross_entropy(net(torch.ones(4, 2)), torch.ones(4).long())
    ...     loss.backward()
    ...     optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        model: nn.Module,
        *,
        lr: float = 0.01,
        likelihood: Likelihood = "categorical",
        fisher: Fisher = "mc",
        sharing: Sharing = "expand",
        damping: float = 0.1,
        damping_kind: Damping = "trace",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        factor_decay: float = 0.95,
        covariance_every: int = 10,
        inverse_every: int = 10,
        block_size: int | None = 128,
        factors: Factors = "both",
        seed: int = 0,
    ) -> None:
        estimate = Estimate(
            likelihood=likelihood,
            fisher=fisher,
            sharing=sharing,
            block_size=block_size,
            factors=factors,
        )
        require_choice("damping_kind", damping_kind, Damping)
        if covariance_every < 1 or inverse_every % covariance_every:
            raise ValueError(
                f"inverse_every={inverse_every} must be a multiple of covariance_every="
                f"{covariance_every}: inverses of factors that were not measured again are the same"
            )
        defaults = {
            "lr": lr,
            "damping": damping,
            "damping_a": None,
            "damping_b": None,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "step": 0,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            check_group(group)
        self._damping_kind: Damping = damping_kind
        self._factor_decay = factor_decay
        self._covariance_every, self._inverse_every = covariance_every, inverse_every
        self._seed = seed
        trained = [p for group in self.param_groups for p in group["params"]]
        self._layers = preconditioned_layers(model, trained)
        self._measured = Measurement(model, self._layers, estimate)
        self._measured.attach()
        self._schedule_measurement()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raise ValueError, once K-FAC is made: what comes later would not be measured."""
        if hasattr(self, "_layers"):
            raise ValueError(
                "K-FAC measures the layers whose tensors it was given when it was made, and others "
                "would never move: close() it and make it anew with all groups"
            )
        super().add_param_group(param_group)

    def close(self) -> None:
        """Remove the hooks from the model; there can be no further `step`, which needs them."""
        self._measured.close()

    def __enter__(self) -> KFAC:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`; factors keep their precision, unlike other tensors."""
        super().load_state_dict(state_dict)
        order = [p for group in self.param_groups for p in group["params"]]
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for key, p in zip(keys, order, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if name in _FACTORS and value is not None:
                    self.state[p][name] = value.to(p.device, copy=True)
        self._schedule_measurement()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Precondition the gradients and move the parameters.

        Raises:
            RuntimeError: factors are due and no forward pass of the model was measured, or a layer
                that has a gradient was never measured, or one of its two tensors has none.
            ValueError: a damped factor is not positive definite, or factors that were loaded have
                another block size.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        now = self._now
        moves: dict[nn.Parameter, Tensor] = {}
        with full_precision(self.param_groups[0]["params"][0]):
            if self._measured.due:
                self._update_factors()
            if now % self._inverse_every == 0:
                self._invert()
            for layer in self._layers:
                moves.update(self._precondition(layer))
        for group in self.param_groups:
            self._apply(group, moves)
            group["step"] = now + 1
        self._measured.clear()
        self._schedule_measurement()
        return loss

    @property
    def _now(self) -> int:
        step: int = self.param_groups[0]["step"]
        return step

    def _schedule_measurement(self) -> None:
        now = self._now
        self._measured.due = now % self._covariance_every == 0
        self._measured.seed = (self._seed, now, rank())

    def _main(self, layer: PreconditionedLayer) -> dict[str, Any]:
        state: dict[str, Any] = self.state[layer.tensors[0]]
        return state

    def _update_factors(self) -> None:
        if not self._measured.passes:
            raise RuntimeError(
                "K-FAC measured no forward pass since the last step: it does so in the model it "
                "was given, called as model(x) in train mode with gradients enabled, before step()"
            )
        if self._measured.passes > 1 and self._measured.estimate.fisher == "empirical":
            raise RuntimeError(
                f"K-FAC saw {self._measured.passes} forward passes since the last step, of which "
                "fisher='empirical' measures one; fisher='mc' may accumulate gradients"
            )
        for layer, sums in averages(self._measured):
            state = self._main(layer)
            times = state.get("times", 0) + 1
            keep = min(self._factor_decay, 1 - 1 / times)
            for name, new in (("a", sums.a), ("b", sums.b)):
                if new is not None:
                    old = state.get(name)
                    if old is not None and old.shape != new.shape:
                        raise ValueError(
                            f"{layer.name}: the state that was loaded has factors of shape "
                            f"{tuple(old.shape)}, and this optimizer measures {tuple(new.shape)}: "
                            "give the block_size of the run that was saved (256 by default before "
                            "2026-11-29)"
                        )
                    state[name] = new if old is None else old.lerp_(new, 1 - keep)
            state["times"] = times

    def _invert(self) -> None:
        names, factors, added, targets = [], [], [], []
        groups = {id(p): group for group in self.param_groups for p in group["params"]}
        for layer in self._layers:
            state = self._main(layer)
            group = groups[id(layer.tensors[0])]
            base = group["damping"]
            on_a, on_b = (
                base if group[k] is None else group[k] for k in ("damping_a", "damping_b")
            )
            a, b = state.get("a"), state.get("b")
            both = dampings(self._damping_kind, a, b, base, on_a, on_b)
            for name, factor, c in (("a", a, both[0]), ("b", b, both[1])):
                if factor is not None:
                    names.append(f"factor {name.upper()} of {layer.name}")
                    factors.append(factor)
                    added.append(c)
                    targets.append((state, f"{name}_inverse"))
        for (state, key), inverse in zip(targets, inverses(names, factors, added), strict=True):
            state[key] = inverse

    def _precondition(self, layer: PreconditionedLayer) -> list[tuple[nn.Parameter, Tensor]]:
        matrix = gradient(layer)
        if matrix is None:
            return []
        state = self._main(layer)
        a, b = state.get("a_inverse"), state.get("b_inverse")
        unmeasured = b is None and not self._measured.estimate.inputs_only
        if unmeasured or (a is None and layer.kind not in ("gain", "shift")):
            raise RuntimeError(
                f"{layer.name} has a gradient, but no forward pass of its layer "
                f"{type(layer.module).__name__} was measured: something else uses its tensors. "
                "Train it with AdamW: Plan.split_groups"
            )
        return updates(layer, multiply(a, b, matrix))

    def _apply(self, group: dict[str, Any], moves: dict[nn.Parameter, Tensor]) -> None:
        moving = [p for p in group["params"] if p in moves]
        if not moving:
            return
        steps = [moves[p] for p in moving]
        lr, momentum = group["lr"], group["momentum"]
        if momentum:
            for p, step in zip(moving, steps, strict=True):
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(step)
            buffers = [self.state[p]["momentum"] for p in moving]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, steps)
            steps = buffers
        if group["weight_decay"]:
            torch._foreach_mul_(moving, 1 - lr * group["weight_decay"])
        torch._foreach_add_(moving, steps, alpha=-lr)


_FACTORS = ("a", "b", "a_inverse", "b_inverse")

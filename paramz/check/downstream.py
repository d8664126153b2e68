"""What comes after a module on the way to the loss, read from the graph of the backward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

Node = Any
"""A node of torch's graph of the backward pass, such as ``tensor.grad_fn``."""


def last_of(
    loss: torch.Tensor, nodes: Mapping[str, Node], weights: Collection[nn.Parameter]
) -> set[str]:
    """The rows after which none of the weights is applied, so that their values only read out.

    Args:
        loss: as the forward pass returned it, before its backward pass.
        nodes: row -> the node that made the row's tensor.
        weights: the matrices that grow.

    Returns:
        those rows; a row whose node does not reach the loss is not among them.

    >>> hidden, head = nn.Linear(3, 3), nn.Linear(3, 2)
    >>> h = hidden(torch.ones(1, 3))
    >>> y = head(h)
    >>> sorted(last_of(y.sum(), {"hidden": h.grad_fn, "head": y.grad_fn}, [head.weight]))
    ['head']
    """
    wanted = {id(weight) for weight in weights}
    followed: dict[Node, bool] = {}
    stack = [(loss.grad_fn, False)]
    while stack:
        node, weighted = stack.pop()
        if node is None or followed.get(node, False) or (node in followed and not weighted):
            continue  # seen before, and nothing new is known of what comes after it
        followed[node] = weighted
        inputs = [made_by for made_by, _ in node.next_functions if made_by is not None]
        after = weighted or any(_is_weight(made_by, wanted) for made_by in inputs)
        stack += [(made_by, after) for made_by in inputs]
    return {row for row, node in nodes.items() if followed.get(node) is False}


def _is_weight(node: Node, wanted: Collection[int]) -> bool:
    """Whether a node hands on one of the weights, possibly transposed, cast or cut."""
    for step in _without_branches(node):
        variable = getattr(step, "variable", None)
        if variable is not None:
            return id(variable) in wanted
    return False


def _without_branches(node: Node) -> Iterator[Node]:
    """The nodes from one to the tensor that it was made of, as far as there is only one."""
    while node is not None:
        yield node
        made_by = [before for before, _ in node.next_functions if before is not None]
        node = made_by[0] if len(made_by) == 1 else None

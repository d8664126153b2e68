"""Roles by where a tensor stands: inside the network, in an adapter, among experts."""

from __future__ import annotations

from paramz.anatomy.bottlenecks import Place
from paramz.anatomy.facts import TensorFacts
from paramz.theory.rules import Role


def inner_role(role: Role, why: str, place: Place) -> tuple[Role, str]:
    """The role of a matrix that grows on one side only, by where it stands in the network."""
    if role == "output" and place.inside:
        if place.latent:
            return "latent", f"{why}; a norm takes it, or what goes in is frozen"
        return "inward", f"{why}, and more that grows follows"
    if role == "input" and place.fed:
        return "outward", f"{why}, and its input was made of width"
    return role, why


def adapted_role(facts: TensorFacts) -> tuple[Role, str]:
    """The role of an adapter's tensor, where ranks may differ from the base's."""
    part = facts.adapter
    if part is not None and part.kind == "entry":
        return "vector", "adapter: weights between fixed matrices"
    if part is not None and part.kind == "gain" and "scaling" in (part.sizes or {}):
        return "vector", "adapter: a bias that is multiplied by its scaling"
    if part is None or part.kind == "gain":
        return "vector", "adapter: a gain for every coordinate of the rank"
    if part.kind == "up":
        return "outward", "adapter: out of the rank"
    start = "zero" if part.zero else "random"
    return "inward" if part.zero else "latent", f"adapter: into the rank, starts {start}"


# In a mixture-of-experts layer, the role that a matrix would have elsewhere, and what it is there:
# whatever an expert's size does, it stands inside the network. An expert's bias stays a vector.
# Routers of attention's heads are more where heads are: their shape is that of a hidden matrix.
PARTS = (
    ("output", "router"),
    ("hidden", "router"),
    *((role, "expert") for role in ("hidden", "input", "output")),
)

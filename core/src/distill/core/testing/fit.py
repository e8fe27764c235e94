"""Small judgements that checks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.core import tree
from distill.core.roles import Roles


class Unfit(AssertionError):
    """A component does not do what its contract says."""


def ensure(condition: object, message: str) -> None:
    """Raise Unfit with a message unless the condition holds."""
    if not condition:
        raise Unfit(message)


def close(a: Any, b: Any, message: str) -> None:
    """Compare two states leaf by leaf."""
    for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True):
        ensure(p.shape == q.shape, f"{message}: shapes {tuple(p.shape)} and {tuple(q.shape)}")
        gap = float((p - q).abs().max()) if p.numel() else 0.0
        scale = float(q.abs().max()) if q.numel() else 0.0
        ensure(gap <= 1e-4 * (1 + scale), f"{message}: they differ by {gap:.2g}")


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True))


def untouched(run: Callable[[], Any]) -> Any:
    """What a function returns, which must leave the global random generator alone."""
    before = torch.get_rng_state()
    result = run()
    ensure(
        torch.equal(before, torch.get_rng_state()),
        "it draws from torch's global generator: draw from ctx.rng",
    )
    return result


def weights_of(roles: Roles) -> dict[str, Tensor]:
    vectors = {name: [p.detach().flatten() for p in role.parameters()] for name, role in roles.items()}
    return {name: torch.cat([torch.zeros(1), *parts]) for name, parts in vectors.items()}

"""Gauss-1D: gradients of score losses that are known in closed form."""

from __future__ import annotations

import torch

from distill.core import Context, Event, Loss, Mixture, Rng, Role, Roles
from distill.core.paths import Karras


def gradient(loss: Loss, *, m: float = 1.5, v: float = 0.5, size: int = 200_000, seed: int = 0) -> float:
    """Gradient of a loss with respect to m for samples `m + √v z`, the teacher N(0, 1), the critic exact."""
    path, shift = Karras(t_min=0.0), torch.tensor(m, requires_grad=True)
    laws = {"teacher": (0.0, 1.0), "critic": (m, v**0.5)}
    roles = Roles({k: Role(k, Mixture(torch.tensor([[mean]]), std, path)) for k, (mean, std) in laws.items()})
    ctx = Context(roles, Rng(seed))
    event = Event(shift + v**0.5 * ctx.rng.normal(size, 1, stream="generator"))
    total = torch.stack([term.mean() for term in loss.terms(event, ctx).values()]).sum()
    return float(torch.autograd.grad(total, shift)[0])


def reverse_kl(s: float, *, m: float = 1.5) -> float:
    """Gradient of the plain score difference at noise level s: `m s² / (1 + s²)`."""
    return m * s**2 / (1 + s**2)


def fisher(s: float, alpha: float, *, m: float = 1.5, v: float = 0.5) -> float:
    """Gradient of the score identity at noise level s: `μ [(1 − 2α) A − s²/(1 + s²)]`."""
    mu, a = -m * s**2 / (1 + s**2), s**2 * (1 - v) / ((1 + s**2) * (v + s**2))
    return mu * ((1 - 2 * alpha) * a - s**2 / (1 + s**2))

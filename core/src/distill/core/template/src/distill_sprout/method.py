"""A loss, a method that has it among its parts, and what the method claims."""

from __future__ import annotations

from typing import Any

import torch
from distill.core import (
    Claim,
    Context,
    Event,
    Loss,
    Method,
    Optimiser,
    Phase,
    Plan,
    RoleSpec,
    Row,
    Sampler,
    Terms,
    Update,
    tree,
)
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.trajectories import Generate, sampler_at
from torch import Tensor

from distill_sprout.network import Net


def roughness(x: Tensor) -> Tensor:
    """Squares of second differences around the curve, of states [B, N]."""
    return (x.roll(1, -1) - 2 * x + x.roll(-1, -1)) ** 2


class Smooth(Loss):
    """Mean roughness of what the student makes."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {"smooth": tree.mean(tree.tree_map(roughness, event.x))}


class Step(Method):
    """Distribution matching in one step, with a penalty on rough curves."""

    smooth: Smooth = Smooth(weight=0.1)
    """The penalty."""
    optimiser: Optimiser = Optimiser(lr=5e-3)
    """Optimiser of student and critic."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher")}

    def plan(self, teacher: Sampler) -> Plan:
        losses = (ScoreDifference(), self.smooth, Denoise())
        updates = tuple(Update(trajectory=Generate(), loss=loss) for loss in losses)
        optimisers = dict.fromkeys(("student", "critic"), self.optimiser)
        phase = Phase(steps=self.steps, updates=updates, optimisers=optimisers)
        return Plan(phases=(phase,), sampler=sampler_at((1.0,)))


def rough(steps: int, seed: int, **options: Any) -> float:
    """Mean roughness of the samples of a student whose teacher has random weights."""
    from distill.methods.toys import draw, train

    torch.manual_seed(seed)
    engine = train(Step(steps=steps, **options), {"teacher": Net(width=16).build()}, size=32, seed=seed)
    x = draw(engine.roles["student"], engine.sampler, 256, seed)
    return float(roughness(x).mean())


def claim(seed: int) -> Claim:
    """With the penalty against without it, after 30 steps."""
    with_, without = rough(30, seed, smooth=Smooth(weight=10)), rough(30, seed, smooth=Smooth(weight=0))
    row = Row("roughness / roughness without the penalty", with_ / without, "<=", 0.85, f"without: {without:.3f}")
    says, broken = "A penalty keeps one-step curves smooth.", "With weight=0 in both, the ratio is 1, and it fails."
    return Claim("sprout-step", says, [row], broken, {"seed": seed})

"""CTMSR: super-resolution in one step by consistency training, then by matching trajectories; nothing is distilled."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import EMA, Copy, Method, Optimiser, Phase, Plan, RoleSpec, Update
from distill.image.super_resolution.losses import Charbonnier, Perceptual, TrajectoryMatching
from distill.methods.consistency import Segments, TargetJumps
from distill.methods.trajectories import Generate, sampler_at


class CTMSR(Method):
    """Consistency Trajectory Matching for One-Step Generative Super-Resolution (You et al. 2025, arXiv:2503.20349).

    From nothing, on pairs alone: the recipe's `student:` says which network, on the path `flow` of residuals, which is
    the paper's line from noised low-resolution pictures to the truth. First neighbouring points of that line, with one
    noise, get one answer, on ever coarser grids; then a frozen self tells how samples differ from the truth. Matching
    and consistency take optimiser steps in turn here, where the paper adds them; optimisers begin anew each phase.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    steps: PositiveInt = 502_000
    """Optimiser iterations, those of matching included."""
    points: tuple[PositiveInt, ...] = (4, 3)
    """Steps of the grid, one phase of equal length each; a grid of 1 is regression from noise to the truth."""
    matching_steps: int = 2000
    """Iterations of the last phase, with trajectory matching; 0 leaves it out."""
    perceptual: Perceptual = Perceptual(target="x", weight=0.5)
    """Distance of two answers in a network's features; a weight of 0 leaves it out."""
    values: Charbonnier = Charbonnier(target="x", weight=0.5)
    """Their distance value by value."""
    matching: TrajectoryMatching = TrajectoryMatching(weight=0.8)
    """Trajectory matching: levels and features."""
    refresh: PositiveInt = 1000
    """Iterations after which the frozen self is taken anew."""
    decay: float = 0.999
    """Decay of the average that is the result."""
    optimiser: Optimiser = Optimiser(lr=5e-5, betas=(0.9, 0.9))
    """Optimiser of the consistency phases."""
    matching_optimiser: Optimiser = Optimiser(lr=5e-5, betas=(0.9, 0.9))
    """Optimiser of the last phase."""

    def roles(self) -> dict[str, RoleSpec]:
        past = {"past": RoleSpec(copy_of="student", frozen=True)} if self.matching_steps else {}
        return {"student_ema": RoleSpec(copy_of="student", frozen=True)} | past

    def plan(self, teacher: Any) -> Plan:
        phases = [self._consistency(n) for n in self.points]
        if self.matching_steps:
            phases[-1] = phases[-1].model_copy(update={"at_end": (Copy(target="past"),)})
            phases.append(self._matching())
        return Plan(phases=tuple(phases), sampler=sampler_at((1.0,)), result="student_ema")

    def _updates(self, points: int) -> tuple[Update, ...]:
        line = TargetJumps(points=points, teacher="", together=True, target=Segments(anywhere=False))
        losses = (self.perceptual, self.values) if self.perceptual.weight else (self.values,)
        return tuple(Update(trajectory=line, loss=loss) for loss in losses)

    def _consistency(self, points: int) -> Phase:
        return Phase(
            name=f"consistency-{points}", steps=(self.steps - self.matching_steps) // len(self.points),
            updates=self._updates(points), optimisers={"student": self.optimiser}, actions=(EMA(decay=self.decay),),
        )  # fmt: skip

    def _matching(self) -> Phase:
        match = Update(trajectory=Generate(), loss=self.matching)
        return Phase(
            name="matching", steps=self.matching_steps, updates=(*self._updates(self.points[-1]), match),
            optimisers={"student": self.matching_optimiser},
            actions=(EMA(decay=self.decay), Copy(target="past", every=self.refresh)),
        )  # fmt: skip

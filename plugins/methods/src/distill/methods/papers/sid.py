"""SiD: score identity distillation."""

from __future__ import annotations

from typing import Any

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, ScoreIdentity
from distill.methods.times import LogNormalTimes
from distill.methods.trajectories import Generate, sampler_at


class SiD(Method):
    """Score identity Distillation (Zhou et al. 2024, arXiv:2404.04057): Fisher divergence, without data.

    Critic first, then the student on fresh samples; gradient runs through teacher and critic. Losses are
    means over values where the paper sums, a constant that Adam ignores.
    """

    time: float = 2.5
    """The student's only input time, σ_init; an EDM path is assumed."""
    identity: ScoreIdentity = ScoreIdentity(weight=100)
    """The student's loss: α, levels."""
    critic: Denoise = Denoise(view="x0", level="edm", times=LogNormalTimes())
    """The critic's loss: EDM's."""
    student_ema: float | None = 0.999
    """Decay of an average of the student, which is then the result."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5, betas=(0, 0.999))
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-5, betas=(0, 0.999))
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher")}
        if self.student_ema is not None:
            roles["student_ema"] = RoleSpec(copy_of="student", frozen=True)
        return roles

    def plan(self, teacher: Any) -> Plan:
        events = Generate(times=(self.time,))
        updates = (
            Update(trajectory=events, loss=self.critic),
            Update(trajectory=events, loss=self.identity, fresh=True),
        )
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        average = () if self.student_ema is None else (EMA(decay=self.student_ema),)
        return Plan(
            phases=one_phase(updates, self.steps, optimisers, actions=average),
            sampler=sampler_at((self.time,)),
            result="student" if self.student_ema is None else "student_ema",
        )

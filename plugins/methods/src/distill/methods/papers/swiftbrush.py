"""SwiftBrush: variational score distillation whose critic is an adapter on the teacher."""

from __future__ import annotations

from typing import Any

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Generate, sampler_at
from distill.methods.transforms import LoRA


class SwiftBrush(Method):
    """SwiftBrush: One-Step Text-to-Image Diffusion with Variational Score Distillation (arXiv:2312.05239).

    The critic is the teacher's own module with an adapter switched on. Student first, then critic, on the
    same samples and conditions; both scores are guided. The student answers with x0, whatever the teacher's
    kind.
    """

    time: float = 1.0
    """The student's only input time."""
    score: ScoreDifference = ScoreDifference(
        units="eps", times=UniformTimes(low=0.02, high=0.98), guidance=4.5, critic_guidance=4.5
    )
    """σ² (ε_teacher − ε_critic), guidance on both."""
    critic: Denoise = Denoise(view="eps", level="alpha-squared", drop=0.1)
    """α² times the squared error of the noise."""
    adapter: LoRA = LoRA(rank=64, alpha=108)
    """The critic's adapter on the teacher."""
    student_ema: float | None = None
    """Decay of an average of the student, which is then the result."""
    student_optimiser: Optimiser = Optimiser(lr=1e-6, clip=1)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-3, clip=1)
    """The adapter's optimiser, at a thousand times the student's rate."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = {
            "student": RoleSpec(copy_of="teacher"),
            "critic": RoleSpec(shares="teacher", transforms=(self.adapter,)),
        }
        if self.student_ema is not None:
            roles["student_ema"] = RoleSpec(copy_of="student", frozen=True)
        return roles

    def plan(self, teacher: Any) -> Plan:
        events = Generate(times=(self.time,))
        updates = [Update(trajectory=events, loss=loss) for loss in (self.score, self.critic)]
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        average = () if self.student_ema is None else (EMA(decay=self.student_ema),)
        return Plan(
            phases=one_phase(updates, self.steps, optimisers, actions=average),
            sampler=sampler_at((self.time,)),
            result="student" if self.student_ema is None else "student_ema",
        )

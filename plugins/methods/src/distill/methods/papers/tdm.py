"""TDM: distribution matching at every point of the student's deterministic route."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Optimiser, Plan, RoleSpec, Sampler, Update
from distill.core.plan import one_phase
from distill.core.sampling import DDIM
from distill.methods.losses import RouteDenoise, RouteScore
from distill.methods.trajectories import OwnRoute
from distill.methods.transforms import ScalarInput


class TDM(Method):
    """Learning Few-Step Diffusion Models by Trajectory Distribution Matching (Luo et al. 2025, arXiv:2503.06674).

    Data-free. The student is trained on the route that its deterministic sampler takes; teacher and critic are
    compared where the route's next point is noised on, within the step's own stretch of times.
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    score: RouteScore = RouteScore(guidance=4.5)
    """Distribution matching: guidance, discrepancy, stretch of levels."""
    critic: RouteDenoise = RouteDenoise()
    """The critic's denoising of the student's routes."""
    steps_aware: bool = False
    """One critic for all steps at all levels, told the step; else each step has levels of its own."""
    student_optimiser: Optimiser = Optimiser(lr=2e-5, clip=1, schedule="cosine")
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=2e-5, schedule="cosine")
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        step = (ScalarInput(scalar="step"),) if self.steps_aware else ()
        return {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher", transforms=step)}

    def plan(self, teacher: Any) -> Plan:
        route, law = OwnRoute(times=self.times), {"beyond": self.steps_aware}
        losses = (self.critic.model_copy(update=law), self.score.model_copy(update=law))
        updates = [Update(trajectory=route, loss=loss) for loss in losses]
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        sampler = Sampler(times=self.times, steps=len(self.times), solver=DDIM())
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=sampler)

"""TBCM: continuous-time consistency on points of the teacher's own routes, without data."""

from __future__ import annotations

import math
from typing import Any, Literal

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.consistency import ContinuousConsistency, VarianceHead
from distill.methods.teacher_paths import Harvest
from distill.methods.trajectories import sampler_at
from distill.methods.transforms import ScalarInput


class TBCM(Method):
    """Image-Free Timestep Distillation via Continuous-Time Consistency (Tang et al. 2025, arXiv:2511.20410).

    A TrigFlow teacher walks from noise; the student becomes consistent along the points that it passes. Needs
    conditions only.
    """

    points: int = 16
    """Steps of the teacher's route."""
    shift: float = 2.5
    """Timestep shift of the route."""
    guidance: tuple[float, ...] = ()
    """Guidance weights of the teacher, an input of the student, e.g. 4, 4.5, 5; none if empty."""
    blank: float | None = None
    """Value of an empty latent; routes that end near it are mostly dropped."""
    tangent_warmup: int = 4000
    """Iterations over which the tangent's second part comes in."""
    derivative: Literal["exact", "difference"] = "exact"
    """How the student's derivative along the route is taken."""
    times: tuple[float, ...] = (math.pi / 2, 1.0)
    """The student's times when it samples, re-noising between them."""
    optimiser: Optimiser = Optimiser(lr=1e-5, clip=0.1, warmup=5000)
    """Optimiser of student and log-variance."""

    def roles(self) -> dict[str, RoleSpec]:
        w = (ScalarInput(scalar="w", scale=1 / max(self.guidance)),) if self.guidance else ()
        return {
            "student": RoleSpec(copy_of="teacher", transforms=w),
            "variance": RoleSpec(build=VarianceHead()),
        }

    def plan(self, teacher: Any) -> Plan:
        harvest = Harvest(points=self.points, shift=self.shift, guidance=self.guidance, blank=self.blank)
        loss = ContinuousConsistency(warmup=self.tangent_warmup, derivative=self.derivative)
        optimisers = {"student": self.optimiser, "variance": self.optimiser}
        scalars = {"w": sorted(self.guidance)[len(self.guidance) // 2]} if self.guidance else {}
        return Plan(
            phases=one_phase([Update(trajectory=harvest, loss=loss)], self.steps, optimisers),
            sampler=sampler_at(self.times, scalars=scalars),
        )

"""SDS: a scene made from the scores of a teacher of pictures."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import Method, Optimiser, Plan, RoleSpec, Trajectory, Update
from distill.core.plan import one_phase
from distill.methods.losses import ScoreDifference
from distill.methods.times import UniformTimes
from distill.methods.trajectories import View
from distill.three_d.gaussians import GaussianScene


class SDS(Method):
    """DreamFusion: Text-to-3D using 2D Diffusion, score distillation sampling (Poole et al. 2022, arXiv:2209.14988).

    The scene is the student, seen through the run's lens; the injected noise stands for the law of its own views. The
    paper's subject is a radiance field; another one comes as the role `student`.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    steps: PositiveInt = 10_000
    """Optimiser iterations."""
    scene: GaussianScene = GaussianScene()
    """What it begins as, and from where it is seen."""
    views: Trajectory = View()
    """How it is seen."""
    score: ScoreDifference = ScoreDifference(
        critic="", units="eps", guidance=100, times=UniformTimes(low=0.02, high=0.98)
    )
    """σ² (ε_teacher − ε): levels and guidance."""
    optimiser: Optimiser = Optimiser(lr=0.01, betas=(0.9, 0.99))
    """Optimiser of the scene."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.scene)}

    def plan(self, teacher: Any) -> Plan:
        update = Update(trajectory=self.views, loss=self.score)
        phases = one_phase([update], self.steps, {"student": self.optimiser})
        return Plan(phases=phases, sampler=self.scene.sampler())

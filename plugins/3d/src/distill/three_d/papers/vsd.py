"""VSD: score distillation whose reference is an adapter that learns the law of the scene's views."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import Method, Optimiser, Plan, RoleSpec, Trajectory, Update
from distill.core.plan import one_phase
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.times import UniformTimes
from distill.methods.trajectories import View
from distill.methods.transforms import LoRA
from distill.three_d.gaussians import GaussianScene


class VSD(Method):
    """ProlificDreamer: Text-to-3D with Variational Score Distillation (Wang et al. 2023, arXiv:2305.16213).

    One particle, whose critic is an adapter on the teacher. Both get the cameras of the views among their conditions;
    a teacher that takes none has a critic of all views at once, where the paper's adapter is told the camera.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    steps: PositiveInt = 25_000
    """Optimiser iterations."""
    scene: GaussianScene = GaussianScene()
    """What it begins as, and from where it is seen."""
    views: Trajectory = View()
    """How it is seen."""
    score: ScoreDifference = ScoreDifference(units="eps", guidance=7.5, times=UniformTimes(low=0.02, high=0.98))
    """σ² (ε_teacher − ε_critic): levels and guidance."""
    critic: Denoise = Denoise(view="eps", drop=0.1)
    """The teacher's own training loss, on the scene's views."""
    adapter: LoRA = LoRA(rank=4)
    """The critic's adapter on the teacher."""
    optimiser: Optimiser = Optimiser(lr=0.01, betas=(0.9, 0.99))
    """Optimiser of the scene."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-4)
    """Optimiser of the adapter."""

    def roles(self) -> dict[str, RoleSpec]:
        critic = RoleSpec(shares="teacher", transforms=(self.adapter,))
        return {"student": RoleSpec(build=self.scene), "critic": critic}

    def plan(self, teacher: Any) -> Plan:
        updates = [Update(trajectory=self.views, loss=loss) for loss in (self.score, self.critic)]
        optimisers = {"student": self.optimiser, "critic": self.critic_optimiser}
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=self.scene.sampler())

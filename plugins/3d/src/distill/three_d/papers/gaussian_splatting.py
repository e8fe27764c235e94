"""3D Gaussian splatting: a scene fitted to pictures with known cameras."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.trajectories import View
from distill.three_d.gaussians import Densify, GaussianScene
from distill.three_d.losses import Photometric


class GaussianSplatting(Method):
    """3D Gaussian Splatting for Real-Time Radiance Field Rendering (Kerbl et al. 2023, arXiv:2308.04079).

    No teacher: the scene is the student, pictures with cameras are the data (`mesh-views`, `posed-photos`), and the
    lens is `render` in their size. Learning rates are the paper's in proportion, larger for few steps.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    steps: PositiveInt = 1000
    """Optimiser iterations."""
    scene: GaussianScene = GaussianScene(densify=Densify())
    """What it begins as, and how it grows."""
    loss: Photometric = Photometric()
    """How views are compared with pictures."""
    optimiser: Optimiser = Optimiser(lr=0.01, eps=1e-15, schedule="cosine")
    """Optimiser of the scene."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.scene)}

    def plan(self, teacher: Any) -> Plan:
        update = Update(trajectory=View(), loss=self.loss)
        phases = one_phase([update], self.steps, {"student": self.optimiser})
        return Plan(phases=phases, sampler=self.scene.sampler())

"""Sparse3D: a scene from a few pictures, by what a teacher that knows them says beyond the mere category."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.three_d.gaussians import GaussianScene
from distill.three_d.scenes import CategoryScore, Known, NewViews


class Sparse3D(Method):
    """Sparse3D: Distilling Multiview-Consistent Diffusion for Object Reconstruction from Sparse Views (2308.14078).

    The data are the few pictures with their cameras, the batch all of them, and the lens is `render`. The teacher is
    told the pictures as `references` of each new view and must have a null value for them; the paper's sees them along
    epipolar lines. The paper's weights are not public: these are ours, and its NeRF is a scene of Gaussians here.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    scene: GaussianScene = GaussianScene()
    """What it begins as, and how it grows."""
    views: NewViews = NewViews()
    """How many new views a step has."""
    known: Known = Known()
    """How views are compared with their pictures."""
    score: CategoryScore = CategoryScore(weight=0.1)
    """What moves the others."""
    optimiser: Optimiser = Optimiser(lr=0.01, eps=1e-15, schedule="cosine")
    """Optimiser of the scene."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.scene)}

    def plan(self, teacher: Any) -> Plan:
        updates = [Update(trajectory=self.views, loss=loss) for loss in (self.known, self.score)]
        phases = one_phase(updates, self.steps, {"student": self.optimiser})
        return Plan(phases=phases, sampler=self.scene.sampler())

"""SOAR: a scene from pictures of one side, whose other sides a teacher fills in while what is seen stays."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.three_d.gaussians import GaussianScene
from distill.three_d.scenes import Known, NewViews, Recovered


class SOAR(Method):
    """SOAR: Self-Occluded Avatar Recovery from a Single Video In the Wild (Pan et al. 2024, arXiv:2410.23800).

    The data are the pictures with their cameras, the batch some of them, and the lens is `render`; the teacher may be
    told them as `references`. What is seen is found by depth in the pictures' own cameras, where the paper keeps a
    field of it. Its body model, normals and the weights of their terms are not part of this: the scene stands still.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the student is a scene, seen through a lens"}
    scene: GaussianScene = GaussianScene()
    """What it begins as, and how it grows."""
    views: NewViews = NewViews(seen=True)
    """How many new views a step has."""
    known: Known = Known()
    """How views are compared with their pictures."""
    recovered: Recovered = Recovered(weight=0.1)
    """What fills in the rest."""
    optimiser: Optimiser = Optimiser(lr=0.01, eps=1e-15, schedule="cosine")
    """Optimiser of the scene."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(build=self.scene)}

    def plan(self, teacher: Any) -> Plan:
        updates = [Update(trajectory=self.views, loss=loss) for loss in (self.known, self.recovered)]
        phases = one_phase(updates, self.steps, {"student": self.optimiser})
        return Plan(phases=phases, sampler=self.scene.sampler())

"""OSS: the steps that bring a coarse route nearest to a fine one, found by dynamic programming."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Phase, Plan, RoleSpec
from distill.core.sampling import DDIM
from distill.methods.schedules import SearchSteps


class OSS(Method):
    """Optimal Stepsize for Diffusion Sampling (Pei et al. 2025, arXiv:2503.21774).

    The network stays as it is; what is distilled is the list of steps. The teacher's sampler is the fine route.
    Needs no data but the conditions of one batch.
    """

    fine: int = 100
    """Steps of the route that is followed."""
    moves: int = 5
    """Steps of the student."""
    calibrate: bool = False
    """Match the range of the states to the route's, after each step."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        fit = Phase(name="fit", fit=SearchSteps(moves=self.moves, calibrate=self.calibrate))
        return Plan(phases=(fit,), sampler=teacher.model_copy(update={"steps": self.fine, "solver": DDIM()}))

"""A five-step schedule for a network as it is: a longer one, cut and spread again."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Phase, Plan, RoleSpec
from distill.methods.schedules import CutSteps


class HyperparameterSchedule(Method):
    """Hyperparameters are all you need (Li 2025, arXiv:2510.02390), without its Free-U.

    Nothing is trained. The small levels of a Karras schedule are never visited, and the noise of the last one stays
    in the result: 5 or 6 steps of DDIM with the default cut, 8 of DPM-Solver++ with ρ = 7, cut 8 or 9 of 12.
    """

    schedule: CutSteps = CutSteps()
    """Steps, exponents and cut."""
    guidance: float | None = None
    """w when sampling, 5 to 7.5 in the paper; the teacher's own if None."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        sampler = teacher if self.guidance is None else teacher.model_copy(update={"guidance": self.guidance})
        return Plan(phases=(Phase(name="fit", fit=self.schedule),), sampler=sampler)

"""pi-Flow: a call of the student is a policy, which imitates the teacher's velocity on its own route."""

from __future__ import annotations

from typing import Any, Literal

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Sampler, Update
from distill.core.plan import one_phase
from distill.core.sampling import Grid
from distill.methods.losses import Match
from distill.methods.policies import PolicyHead, PolicyRoute


class PiFlow(Method):
    """pi-Flow: Policy-Based Few-Step Generation via Imitation Distillation (Chen et al. 2025, arXiv:2510.14974).

    The student is the teacher with a wider last layer. One call gives the moves of a whole segment; the loss is
    ½ ‖π(x, t) − v(x, t)‖² at states that the policy itself visits. Learns from data or from the student's own routes.
    """

    calls: int = 4
    """Segments of the range, which are the calls of the student."""
    shift: float = 3.2
    """Timestep shift of their ends."""
    policy: Literal["mixture", "grid"] = "mixture"
    """What a call says (GMFlow or DX)."""
    parts: int = 8
    """Gaussians, or times, of a policy."""
    layer: str = ""
    """Name of the network's last layer; found if empty."""
    substeps: int = 128
    """Moves of a policy in a segment."""
    temperature: float = 1.0
    """Divides the log-weights of the Gaussians."""
    route: PolicyRoute = PolicyRoute()
    """The states that are learnt at, and the teacher's guidance."""
    average: float = 0.999
    """Decay of the student's average, which is the result."""
    optimiser: Optimiser = Optimiser(lr=5e-5)
    """The student's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        head = PolicyHead(
            layer=self.layer, policy=self.policy, parts=self.parts, steps=self.calls, grid=Grid(shift=self.shift),
            substeps=self.substeps, temperature=self.temperature,
        )  # fmt: skip
        student = RoleSpec(copy_of="teacher", transforms=(head,))
        return {"student": student, "average": RoleSpec(copy_of="student", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        route = self.route.model_copy(update={"substeps": self.substeps})
        update = Update(trajectory=route, loss=Match(view="velocity", target="velocity", weight=0.5))
        phases = one_phase(
            [update], self.steps, {"student": self.optimiser}, actions=(EMA(target="average", decay=self.average),)
        )
        return Plan(phases=phases, sampler=Sampler(steps=self.calls, grid=Grid(shift=self.shift)), result="average")

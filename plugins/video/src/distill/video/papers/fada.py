"""FADA: one call of the student for several of its teacher, at any weight of each condition."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Sampler, Update
from distill.core.plan import one_phase
from distill.methods.trajectories import Data
from distill.methods.transforms import ScalarInput
from distill.video.losses import MultiGuided


class FADA(Method):
    """FADA: Fast Diffusion Avatar Synthesis with Mixed-Supervised Multi-CFG Distillation (arXiv:2412.16915).

    The teacher is asked once for each condition and once without any; the student once, and told the weights by an
    input for each, where the paper appends learnt tokens to the attention. It learns the teacher's combined answer
    and, as far as the data deserve it, the data. What the teacher's target is made of in the paper is not public;
    here it is one guided prediction.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy's conditions have other names"}
    guided: MultiGuided = MultiGuided()
    """Weights that are drawn, and the share of the data."""
    sample_steps: int = 6
    """Steps of the student when it is sampled."""
    sample_w: dict[str, float] = {"text": 3.0, "audio": 3.0}
    """Weight of each condition when it is sampled."""
    optimiser: Optimiser = Optimiser(lr=1e-5)
    """The student's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        inputs = tuple(ScalarInput(scalar=f"w_{name}", scale=1 / ends[1]) for name, ends in self.guided.ranges.items())
        return {"student": RoleSpec(copy_of="teacher", transforms=inputs if self.guided.tokens else ())}

    def plan(self, teacher: Any) -> Plan:
        told = {f"w_{name}": value for name, value in self.sample_w.items()} if self.guided.tokens else {}
        phases = one_phase([Update(trajectory=Data(), loss=self.guided)], self.steps, {"student": self.optimiser})
        return Plan(phases=phases, sampler=Sampler(steps=self.sample_steps, grid=teacher.grid, scalars=told))

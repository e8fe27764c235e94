"""Self-cascade: a network at a larger resolution, led by its own sample at the one that it was trained for."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.image.super_resolution.cascade import Cascade, PivotData, PivotUpsamplers
from distill.methods.losses import Match


class SelfCascade(Method):
    """Make a Cheap Scaling: A Self-Cascade Diffusion Model for Higher-Resolution Adaptation (Guo et al. 2024,
    arXiv:2402.10491).

    The network stays frozen and is asked twice a step: about the pivot, clean and at its own resolution, and about the
    larger state, to whose features upsamplers of the pivot's are added. They alone learn. Without tuning the larger
    sample begins at the enlarged pivot, noised, and that is all.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "its features are no maps"}
    tuned: bool = True
    """Train upsamplers; the network is used as it is if not, and nothing is trained."""
    upsamplers: PivotUpsamplers = PivotUpsamplers()
    """What carries features."""
    data: PivotData = PivotData()
    """Noise levels; pivots are the data made small."""
    loss: Match = Match(target="real", level="snr")
    """What upsamplers learn: the noise, which is x0 weighed by (α/σ)²."""
    sampler: Cascade = Cascade()
    """How pivots and larger samples are made."""
    optimiser: Optimiser = Optimiser(lr=5e-5)
    """The upsamplers' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", transforms=(self.upsamplers,))} if self.tuned else {}

    def plan(self, teacher: Any) -> Plan:
        if not self.tuned:
            return Plan(phases=(), sampler=self.sampler, result="teacher")
        updates = [Update(trajectory=self.data, loss=self.loss)]
        return Plan(phases=one_phase(updates, self.steps, {"student": self.optimiser}), sampler=self.sampler)

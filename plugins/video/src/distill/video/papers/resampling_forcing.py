"""Resampling Forcing: a causal model learns on histories that it has spoilt itself; there is no teacher."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.methods.losses import Match
from distill.video.attention import Reach
from distill.video.networks import Causal
from distill.video.streaming import ChunkSampler
from distill.video.trajectories import Resampled


class ResamplingForcing(Method):
    """End-to-End Training for Autoregressive Video Diffusion via Self-Resampling (Guo et al. 2025, arXiv:2512.15702).

    Flow matching of each chunk given a history that the student drew again from a noisy version of it, chunk by chunk
    and without gradient; the target stays the true clip. Before that, a stretch of teacher forcing. History routing is
    the option `top` of `reach`. The teacher only lends its weights. The solver's steps and rates are not public.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    reach: Reach = Reach(chunk=1)
    """Which frames the student's frames see."""
    warmup: int = 500
    """Iterations of teacher forcing at first; `steps` are those after them."""
    resampled: Resampled = Resampled()
    """How the history is spoilt."""
    sampler_steps: int = 20
    """Steps of a chunk when the student is sampled."""
    optimiser: Optimiser = Optimiser(lr=2e-5)
    """The student's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher", transforms=(Causal(reach=self.reach),))}

    def plan(self, teacher: Any) -> Plan:
        forced = self.resampled.model_copy(update={"mode": "none"})
        stretches = (("forced", self.warmup, forced), ("resampled", self.steps, self.resampled))
        match, optimisers = Match(view="velocity", target="velocity"), {"student": self.optimiser}
        phases = tuple(
            Phase(name=name, steps=steps, updates=(Update(trajectory=events, loss=match),), optimisers=optimisers)
            for name, steps, events in stretches if steps
        )  # fmt: skip
        return Plan(phases=phases, sampler=ChunkSampler(steps=self.sampler_steps, grid=Sampler().grid))

"""Guidance distilled into a low-rank adapter on the teacher itself."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.papers.guided_distillation import MatchGuided
from distill.methods.trajectories import NoisedData
from distill.methods.transforms import LoRA


class LoRAGuided(Method):
    """LoRA-Enhanced Distillation on Guided Diffusion Models (Golnari 2023, arXiv:2312.06899).

    Phase 1 of guided distillation at one w, with the teacher's own module as the student's: the adapter is
    off in the teacher's two calls and on in the student's one. Rank, rate and w are ours, the paper's are not
    public.
    """

    w: float = 7.5
    """Guidance weight that the adapter learns; 1 is none."""
    lora: LoRA = LoRA(rank=16)
    """The adapter."""
    level: str = "truncated-snr"
    """Weight of an x0 error at a noise level."""
    lr: float = 1e-4
    """Learning rate, annealed to 0."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", transforms=(self.lora,))}

    def plan(self, teacher: Any) -> Plan:
        update = Update(trajectory=NoisedData(), loss=MatchGuided(w=self.w, level=self.level))
        optimisers = {"student": Optimiser(lr=self.lr, clip=1.0, schedule="linear")}
        sampler = teacher.model_copy(update={"guidance": 1.0})
        return Plan(phases=one_phase([update], self.steps, optimisers), sampler=sampler)

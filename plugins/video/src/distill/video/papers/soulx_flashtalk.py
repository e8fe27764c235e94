"""SoulX-FlashTalk: distribution matching on clips that continue the student's own, without a cache."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.core.sampling import Consistency
from distill.methods.losses import Denoise, ScoreDifference
from distill.video.papers.causvid import LEVELS
from distill.video.samplers import Continued
from distill.video.trajectories import Continuation


class SoulXFlashTalk(Method):
    """SoulX-FlashTalk: Self-Correcting Bidirectional Distillation (Shen et al. 2025, arXiv:2512.23379).

    The student looks both ways within a clip; the last frames of one clip are written over the first states of the
    next at every step. It is trained on continuations of its own clips, of which one carries gradient, at one step;
    guidance belongs to the teacher alone. Stage one, fine-tuning at the size of use, is the method `denoising`. The
    paper's largest K and learning rates are not public.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no frames"}
    times: tuple[float, ...] = (1.0, 0.9375, 0.833, 0.625)
    """The student's times, descending: [1, 0.75, 0.5, 0.25] at shift 5."""
    chunks: int = 5
    """Largest number of clips in a row, K; 1 continues the data only."""
    motion: int = 2
    """Frames that a clip shares with the one before."""
    score: ScoreDifference = ScoreDifference(times=LEVELS, guidance=4.0)
    """Distribution matching: levels, guidance."""
    critic: Denoise = Denoise()
    """The critic's denoising of the student's clips."""
    critic_updates: int = 5
    """Updates of the critic per update of the student."""
    student_optimiser: Optimiser = Optimiser(lr=2e-6, betas=(0, 0.999))
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=4e-7, betas=(0, 0.999))
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher")}

    def plan(self, teacher: Any) -> Plan:
        events = Continuation(times=self.times, chunks=self.chunks, motion=self.motion)
        student = Update(trajectory=events, loss=self.score, every=self.critic_updates)
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        phases = one_phase([student, Update(trajectory=events, loss=self.critic)], self.steps, optimisers)
        sampler = Continued(times=self.times, steps=len(self.times), solver=Consistency(), motion=self.motion)
        return Plan(phases=phases, sampler=sampler)

"""TSD-SR: score distillation for super-resolution whose teacher is asked about the truth too."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.core.sampling import Consistency
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.paths import Tempered
from distill.methods.losses import Denoise, MatchState, TargetScore
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Generate
from distill.methods.transforms import LoRA


class TSDSR(Method):
    """TSD-SR: One-Step Diffusion with Target Score Distillation for Real-World Image Super-Resolution (Dong et al.
    2024, arXiv:2411.18263).

    Student and critic are adapters on the teacher. The student starts from the low-resolution picture itself, without
    noise; beside its distances to the truth stands the score difference, whose routes are the paper's sampling module.
    The paper guides both scores with 7.5 by a prompt; teachers here know no prompts, and none is the default.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    steps: PositiveInt = 200_000
    """Optimiser iterations."""
    score: TargetScore = TargetScore()
    """Target score distillation: levels, shares, routes; a weight of 0 leaves it and the critic out."""
    values: MatchState = MatchState(target="real")
    """Squared distance to the truth."""
    perceptual: Perceptual = Perceptual()
    """Distance to the truth in a network's features; a weight of 0 leaves it out."""
    critic: Denoise = Denoise(view="x0", level="snr", times=UniformTimes(low=0.05, high=0.95))
    """The critic's loss, on the student's samples."""
    adapter: LoRA = LoRA(rank=64)
    """The adapters of student and critic."""
    decay: float = 0.999
    """Decay of the student's average, which is the result."""
    student_optimiser: Optimiser = Optimiser(lr=5e-6)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-6)
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        adapted = RoleSpec(shares="teacher", transforms=(self.adapter,))
        critic = {"critic": adapted} if self.score.weight else {}
        return {"student": adapted, "student_ema": RoleSpec(copy_of="student", frozen=True)} | critic

    def plan(self, teacher: Any) -> Plan:
        events = Generate(temperature=0.0)
        students = [loss for loss in (self.values, self.perceptual, self.score) if loss.weight]
        losses = (*students, *((self.critic,) if self.score.weight else ()))
        optimisers = {"student": self.student_optimiser} | (
            {"critic": self.critic_optimiser} if self.score.weight else {}
        )
        phases = one_phase(
            [Update(trajectory=events, loss=loss) for loss in losses], self.steps, optimisers,
            actions=(EMA(decay=self.decay),),
        )  # fmt: skip
        sampler = Tempered(times=(1.0,), steps=1, solver=Consistency(), temperature=0.0)
        return Plan(phases=phases, sampler=sampler, result="student_ema")

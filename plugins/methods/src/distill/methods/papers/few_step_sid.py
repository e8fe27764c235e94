"""Few-step SiD: score identity distillation of a chain whose every step is to be a sample of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Denoise, ScoreIdentity
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Generate, sampler_at

LEVELS = UniformTimes(low=0.02, high=0.98)
STRATEGIES: dict[str, Callable[[float], dict[str, dict[str, float]]]] = {
    "lsg": lambda w: {"identity": {"guidance": w, "critic_guidance": w}, "critic": {"guidance": w}},
    "zero-cfg": lambda w: {"identity": {"guidance": 1, "critic_guidance": 0}, "critic": {"drop": 1}},
    "anti-cfg": lambda w: {"identity": {"guidance": 1, "critic_guidance": w}, "critic": {"drop": 0.1}},
}
"""What a strategy sets of the student's and the critic's loss."""


class FewStepSiD(Method):
    """Few-Step Diffusion via Score identity Distillation (Zhou et al. 2025, arXiv:2505.12674).

    One step of the chain, drawn evenly, carries gradient; one critic knows the mixture of all steps' outputs. With
    real data, the means of the critic's features are a discriminator's logits.
    """

    times: tuple[float, ...] = (0.625, 0.46875, 0.3125, 0.15625)
    """The student's times, descending."""
    shares: tuple[float, ...] = ()
    """Probability of each time to be the one that is learnt at; equal if empty."""
    strategy: Literal["lsg", "zero-cfg", "anti-cfg"] = "lsg"
    """`lsg`: w for teacher and critic, in training and evaluation. `zero-cfg`: none, and a critic without conditions.
    `anti-cfg`: none for the teacher, a negative w where the critic is evaluated."""
    w: float = 1.0
    """Weight of the strategy: 1.5 to 4.5 for `lsg`, below 0 for `anti-cfg` (−0.5, say)."""
    identity: ScoreIdentity = ScoreIdentity(weight=100, alpha=1, times=LEVELS)
    """The student's loss: α, levels."""
    critic: Denoise = Denoise(times=LEVELS)
    """The critic's loss."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=0, heads="", times=LEVELS)
    """The student's side of the GAN, 0.001 in the paper; a weight of 0 leaves it out and needs no data."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(heads="", times=LEVELS)
    """The critic's side."""
    student_ema: float | None = 0.999
    """Decay of an average of the student, which is then the result."""
    student_optimiser: Optimiser = Optimiser(lr=1e-6, betas=(0, 0.999))
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-6, betas=(0, 0.999))
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher")}
        average = {"student_ema": RoleSpec(copy_of="student", frozen=True)}
        return roles | (average if self.student_ema is not None else {})

    def plan(self, teacher: Any) -> Plan:
        events, given = Generate(times=self.times, shares=self.shares), STRATEGIES[self.strategy](self.w)
        identity, critic = (getattr(self, name).model_copy(update=given[name]) for name in ("identity", "critic"))
        gan = bool(self.generator.weight)
        updates = [
            *(Update(trajectory=events, loss=loss) for loss in (critic, *((self.discriminator,) if gan else ()))),
            Update(trajectory=events, loss=identity, fresh=True),
            *((Update(trajectory=events, loss=self.generator),) if gan else ()),
        ]
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        average = () if self.student_ema is None else (EMA(decay=self.student_ema),)
        return Plan(
            phases=one_phase(updates, self.steps, optimisers, actions=average),
            sampler=sampler_at(self.times),
            result="student" if self.student_ema is None else "student_ema",
        )

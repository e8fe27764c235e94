"""DMD2: distribution matching without pairs, on two time scales, with a GAN on the critic's features."""

from __future__ import annotations

from typing import Any

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Denoise, ScoreDifference
from distill.methods.networks import FeatureHeads
from distill.methods.trajectories import Generate, sampler_at
from distill.methods.transforms import ScalarInput


class DMD2(Method):
    """Improved Distribution Matching Distillation for Fast Image Synthesis (arXiv:2405.14867).

    Backward simulation over the student's times; the student moves every `critic_updates` iterations, critic
    and discriminator in each one, on the same samples. A generator weight of 0 leaves the GAN out.
    """

    times: tuple[float, ...] = (1.0,)
    """The student's times, descending; one is a one-step student."""
    shares: tuple[float, ...] = ()
    """Probability of each time to be the one that is learnt at; equal if empty."""
    critic_sees_step: bool = False
    """Tell critic and discriminator which of the times made the sample. Not in the paper: there one critic knows the
    mixture of all steps, and with small networks one step's error then offsets another's."""
    critic_updates: int = 5
    """Updates of critic and discriminator per update of the student."""
    score: ScoreDifference = ScoreDifference()
    """Distribution matching: levels, guidance, normalisation."""
    critic: Denoise = Denoise()
    """The teacher's own training loss, on the student's samples."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=3e-3)
    """The student's side of the GAN."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(weight=1e-2)
    """The discriminator's side, which moves the critic's trunk too."""
    heads: FeatureHeads = FeatureHeads()
    """Discriminator heads on the critic's features."""
    student_ema: float | None = None
    """Decay of an average of the student, which is then the result."""
    student_optimiser: Optimiser = Optimiser(lr=2e-6, weight_decay=0.01, clip=10, warmup=500)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=2e-6, weight_decay=0.01, clip=10, warmup=500)
    """Optimiser of critic and discriminator."""

    def roles(self) -> dict[str, RoleSpec]:
        step = (ScalarInput(scalar="step"),) if self.critic_sees_step else ()
        critic = RoleSpec(copy_of="teacher", transforms=step)
        roles = {"student": RoleSpec(copy_of="teacher"), "critic": critic}
        if self.generator.weight:
            roles["discriminator"] = RoleSpec(build=self.heads)
        if self.student_ema is not None:
            roles["student_ema"] = RoleSpec(copy_of="student", frozen=True)
        return roles

    def plan(self, teacher: Any) -> Plan:
        events, gan = Generate(times=self.times, shares=self.shares), bool(self.generator.weight)
        students = (self.score, self.generator) if gan else (self.score,)
        critics = (self.critic, self.discriminator) if gan else (self.critic,)
        updates = [Update(trajectory=events, loss=loss, every=self.critic_updates) for loss in students]
        updates += [Update(trajectory=events, loss=loss) for loss in critics]
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        average = () if self.student_ema is None else (EMA(decay=self.student_ema, every=self.critic_updates),)
        return Plan(
            phases=one_phase(
                updates,
                self.steps,
                optimisers | ({"discriminator": self.critic_optimiser} if gan else {}),
                actions=average,
            ),
            sampler=sampler_at(self.times),
            result="student" if self.student_ema is None else "student_ema",
        )

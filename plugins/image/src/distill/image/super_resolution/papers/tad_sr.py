"""TAD-SR: a teacher's routes in one step, its score where there is little noise, and heads that know the time."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.image.super_resolution.losses import EndScore
from distill.image.super_resolution.trajectories import TeacherEnds
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, MatchState
from distill.methods.networks import ProjectionHeads
from distill.methods.times import UniformTimes

SEEN = UniformTimes(low=1 / 15, high=14 / 15)


class TADSR(Method):
    """One Step Diffusion-based Super-Resolution with Time-Aware Distillation (He et al. 2024, arXiv:2408.07476).

    One call from the state that the teacher's sampler starts from, drawn to where that ends, by squared errors and by
    what the teacher's ε say of both near clean pictures; and a GAN on the frozen teacher's features at all times.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    ends: TeacherEnds = TeacherEnds()
    """The teacher's routes."""
    regression: MatchState = MatchState(target="x")
    """Distance to their ends."""
    score: EndScore = EndScore()
    """Score distillation where there is little noise; a weight of 0 leaves it out."""
    generator: AdversarialGenerator = AdversarialGenerator(
        features="teacher", form="hinge", times=SEEN, conditional=True, weight=0.02
    )
    """The student's side of the GAN; a weight of 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", form="hinge", times=SEEN, conditional=True, train_features=False, shared=True
    )
    """The heads' side."""
    heads: ProjectionHeads = ProjectionHeads(features="teacher")
    """Discriminator heads, which are told the noise level."""
    decay: float = 0.999
    """Decay of the average that is the result."""
    student_optimiser: Optimiser = Optimiser(lr=5e-5)
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=5e-5, betas=(0.0, 0.99))
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        student = {"student": RoleSpec(copy_of="teacher"), "student_ema": RoleSpec(copy_of="student", frozen=True)}
        return student | heads

    def plan(self, teacher: Any) -> Plan:
        gan = (self.discriminator, self.generator) if self.generator.weight else ()
        losses = (*gan[:1], self.regression, *((self.score,) if self.score.weight else ()), *gan[1:])
        optimisers = {"student": self.student_optimiser} | ({"discriminator": self.heads_optimiser} if gan else {})
        updates = [Update(trajectory=self.ends, loss=loss) for loss in losses]
        phases = one_phase(updates, self.steps, optimisers, actions=(EMA(decay=self.decay),))
        sampler = self.ends.sampler.model_copy(update={"times": (1.0,), "steps": 1})
        return Plan(phases=phases, sampler=sampler, result="student_ema")

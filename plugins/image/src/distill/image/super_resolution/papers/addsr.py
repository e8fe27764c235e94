"""AddSR: a teacher that sees the picture itself, a GAN where there is much noise, and answers that are refined."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.core.sampling import Consistency
from distill.image.super_resolution.losses import HighTarget
from distill.image.super_resolution.one_step import SEEN
from distill.image.super_resolution.refinement import Refined, SelfRefinement
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator
from distill.methods.networks import ProjectionHeads


class AddSR(Method):
    """Adversarial Diffusion Distillation for blind super-resolution (Xie et al. 2024, arXiv:2404.01717).

    ADD whose teacher is given the high-resolution picture, weighed the more the later the student's time, with steps
    that are given the answer of the step before. The teacher must know such a condition. The paper's heads look at
    DINO's features of decoded pictures: name such a role in `features`; here it is the teacher's, of noised states.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    refinement: SelfRefinement = SelfRefinement()
    """The student's times, and how often it refines."""
    target: HighTarget = HighTarget()
    """The teacher's side."""
    generator: AdversarialGenerator = AdversarialGenerator(
        features="teacher", form="hinge", times=SEEN, conditional=True, weight=0.02
    )
    """The student's side of the GAN; a weight of 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", form="hinge", times=SEEN, conditional=True, train_features=False, shared=True
    )
    """The heads' side."""
    heads: ProjectionHeads = ProjectionHeads(features="teacher")
    """Discriminator heads."""
    mix: float = 0.5
    """How much of its answer a step hands on in sampling."""
    decay: float = 0.99
    """Decay of the average that is the result."""
    student_optimiser: Optimiser = Optimiser(lr=2e-5)
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=2e-5, betas=(0.0, 0.99))
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        student = {"student": RoleSpec(copy_of="teacher"), "student_ema": RoleSpec(copy_of="student", frozen=True)}
        return student | heads

    def plan(self, teacher: Any) -> Plan:
        gan = (self.generator, self.discriminator) if self.generator.weight else ()
        updates = [Update(trajectory=self.refinement, loss=loss) for loss in (self.target, *gan)]
        optimisers = {"student": self.student_optimiser} | ({"discriminator": self.heads_optimiser} if gan else {})
        times, state = self.refinement.times, self.refinement.state
        sampler = Refined(times=times, steps=len(times), solver=Consistency(), share=self.mix, state=state)
        phases = one_phase(updates, self.steps, optimisers, actions=(EMA(decay=self.decay),))
        return Plan(phases=phases, sampler=sampler, result="student_ema")

"""A one-step student for super-resolution: near the truth in value and in features, and real to the teacher's eye."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import EMA, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.image.super_resolution.losses import Charbonnier, Perceptual
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator
from distill.methods.networks import ProjectionHeads
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Generate, sampler_at

SEEN = UniformTimes(low=0.05, high=0.6)


class OneStep(Method):
    """One call from `y + noise`, trained on pairs: the terms that most papers of one-step super-resolution share.

    Charbonnier distance to the truth, a perceptual one if wanted, and a GAN whose heads know the noise level and see
    what the frozen teacher makes of noised pictures.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    fidelity: Charbonnier = Charbonnier()
    """Distance to the truth, value by value."""
    perceptual: Perceptual = Perceptual(weight=0)
    """Distance to the truth in a network's features; a weight of 0 leaves it out."""
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
    decay: float = 0.99
    """Decay of the average that is the result."""
    student_optimiser: Optimiser = Optimiser(lr=1e-3, schedule="cosine", warmup=20, clip=1.0)
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=1e-3, betas=(0.0, 0.99))
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        student = {"student": RoleSpec(copy_of="teacher"), "student_ema": RoleSpec(copy_of="student", frozen=True)}
        return student | heads

    def plan(self, teacher: Any) -> Plan:
        gan = (self.generator, self.discriminator) if self.generator.weight else ()
        losses = (self.fidelity, *((self.perceptual,) if self.perceptual.weight else ()), *gan)
        optimisers = {"student": self.student_optimiser} | ({"discriminator": self.heads_optimiser} if gan else {})
        updates = [Update(trajectory=Generate(), loss=loss) for loss in losses]
        phases = one_phase(updates, self.steps, optimisers, actions=(EMA(decay=self.decay),))
        return Plan(phases=phases, sampler=sampler_at((1.0,)), result="student_ema")

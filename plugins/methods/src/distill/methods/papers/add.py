"""ADD: a GAN on frozen features and a teacher's target."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, TeacherTarget
from distill.methods.networks import ProjectionHeads
from distill.methods.times import ListedTimes
from distill.methods.trajectories import NoisedData, sampler_at


class ADD(Method):
    """Adversarial Diffusion Distillation (Sauer et al. 2023, arXiv:2311.17042).

    Needs a role `features`: a frozen network on clean states that taps what the heads look at (a vision
    transformer, behind the decoder where states are latents). The student answers noised data at a few times,
    the last of which holds noise alone; guidance belongs to the teacher's target.
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    generator: AdversarialGenerator = AdversarialGenerator(
        features="features", form="hinge", times=None, conditional=True
    )
    """The student's side of the GAN; a weight of 0 leaves the GAN out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="features", form="hinge", times=None, conditional=True, train_features=False, feature_r1=1e-5
    )
    """The heads' side."""
    target: TeacherTarget = TeacherTarget(weight=2.5)
    """The teacher's side; a weight of 0 leaves it out."""
    heads: ProjectionHeads = ProjectionHeads(features="features", timed=False)
    """Discriminator heads."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5, betas=(0, 0.999))
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=1e-4, betas=(0, 0.999))
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        return {"student": RoleSpec(copy_of="teacher"), **heads}

    def plan(self, teacher: Any) -> Plan:
        events = NoisedData(times=ListedTimes(times=self.times), pure_end=True)
        gan = (self.generator, self.discriminator) if self.generator.weight else ()
        losses = (*gan[:1], *((self.target,) if self.target.weight else ()), *gan[1:])
        optimisers = {"student": self.student_optimiser} | ({"discriminator": self.heads_optimiser} if gan else {})
        updates = [Update(trajectory=events, loss=loss) for loss in losses]
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=sampler_at(self.times))

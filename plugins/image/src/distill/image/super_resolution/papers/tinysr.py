"""TinySR: a one-step student with the layers that it cannot do without, slim at both ends, and without time."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeInt

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.one_step import SEEN
from distill.image.super_resolution.slimming import Slimmed
from distill.image.super_resolution.trajectories import TeacherEnds
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, MatchState
from distill.methods.networks import ProjectionHeads
from distill.methods.pruning import ConstantTime, DecideGates, DrawGates, LearnedDepth

ONCE = Sampler(times=(1.0,), steps=1)


class TinySR(Method):
    """TinySR: Pruning Diffusion for Real-World Image Super-Resolution (arXiv:2508.17434).

    The teacher takes one step already. Gates learn which layers are kept, then those are restored: near the teacher,
    then near the truth, with a GAN on the teacher's features in place of DINOv2's. Both ends are slimmed in closed form
    and learn with the rest, where the paper distils the halves of its autoencoder by themselves.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no layers that could be left out"}
    depth: LearnedDepth = LearnedDepth()
    """Groups of layers, and how many of each are kept."""
    slim: Slimmed | None = Slimmed()
    """Cheap convolutions at the ends; None leaves them as they are."""
    constant: ConstantTime = ConstantTime()
    """Parts that say the same in each call."""
    masking: NonNegativeInt = 350
    """Iterations of the gates."""
    distilling: NonNegativeInt = 400
    """Iterations after that near the teacher; the rest of `steps` is near the truth."""
    near_teacher: MatchState = MatchState(target="x", metric="l1")
    """Distance to what the teacher makes of the same noise."""
    near_truth: MatchState = MatchState(target="real", metric="l1", weight=5)
    """Distance to the truth, value by value."""
    perceptual: Perceptual = Perceptual()
    """Distance to the truth in a network's features; a weight of 0 leaves it out."""
    generator: AdversarialGenerator = AdversarialGenerator(
        features="teacher", form="hinge", times=SEEN, conditional=True, weight=0.3
    )
    """The student's side of the GAN; a weight of 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", form="hinge", times=SEEN, conditional=True, train_features=False, shared=True
    )
    """The heads' side."""
    heads: ProjectionHeads = ProjectionHeads(features="teacher")
    """Discriminator heads."""
    optimiser: Optimiser = Optimiser(lr=1e-4, clip=1.0)
    """The student's optimiser, in every phase anew."""
    heads_optimiser: Optimiser = Optimiser(lr=5e-6, betas=(0.0, 0.99))
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        surgery = (*((self.slim,) if self.slim else ()), self.depth, self.constant)
        return {"student": RoleSpec(copy_of="teacher", transforms=surgery), **heads}

    def plan(self, teacher: Any) -> Plan:
        gan, rest = (self.generator, self.discriminator), self.steps - self.masking - self.distilling
        phases = (
            self._phase("masking", self.masking, self.near_teacher, self.perceptual,
                        actions=(DrawGates(),), at_end=(DecideGates(),)),
            self._phase("distilling", self.distilling, self.near_teacher),
            self._phase("restoring", rest, self.near_truth, self.perceptual, *(gan if self.generator.weight else ())),
        )  # fmt: skip
        return Plan(phases=phases, sampler=ONCE)

    def _phase(self, name: str, steps: int, *losses: Any, **options: Any) -> Phase:
        optimisers = {"student": self.optimiser, "discriminator": self.heads_optimiser}
        moved = {role: optimisers[role] for loss in losses for role in loss.moves}
        updates = tuple(Update(trajectory=TeacherEnds(sampler=ONCE), loss=loss) for loss in losses if loss.weight)
        return Phase(name=name, steps=steps, updates=updates, optimisers=moved, **options)

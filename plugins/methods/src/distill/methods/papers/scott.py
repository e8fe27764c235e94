"""SCott: consistency across a few stochastic moves of the guided teacher, and a GAN on the student's answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from distill.core import EMA, Loss, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.consistency import Segments, TargetJumps
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, MatchState
from distill.methods.networks import FeatureHeads
from distill.methods.times import UniformTimes
from distill.methods.trajectories import sampler_at
from distill.methods.transforms import LoRA, ScalarInput

LEVELS = UniformTimes(low=0.02, high=0.98)


class SCott(Method):
    """SCott: Accelerating Diffusion Models with Stochastic Consistency Distillation (Liu et al., arXiv:2403.01505).

    The teacher goes from t to u in a few moves that replace noise; an average of the student answers there. On
    noise that is fresh the target's mean is blurred, and a GAN on the answers makes them sharp. The paper's solver,
    loss weights over t and levels of the GAN are not public; these are the ancestral solver and ours.
    """

    points: int = 1000
    """Steps of the grid that t lies on."""
    skip: int = 24
    """Steps that the teacher goes down."""
    moves: int = 3
    """h, the stochastic moves in which it goes."""
    eta: float = Field(default=1.0, ge=0, le=1)
    """Share of the noise that each replaces; 0 is deterministic, 1 ancestral."""
    w: tuple[float, float] | None = (3.0, 15.0)
    """Range of the teacher's guidance, an input of the student; None is no guidance."""
    sample_w: float = 8.0
    """Guidance weight that the student is sampled with."""
    metric: Literal["l2", "l1", "huber"] = "huber"
    """Discrepancy of the two answers."""
    average: float = 0.95
    """Decay of the student's average."""
    generator: AdversarialGenerator = AdversarialGenerator(
        weight=0.4, features="discriminator_trunk", form="hinge", times=LEVELS
    )
    """The student's side of the GAN; its weight 0 leaves the GAN out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="discriminator_trunk", form="hinge", times=LEVELS
    )
    """The discriminator's side, which moves the adapter on the teacher too."""
    trunk: LoRA = LoRA(rank=64)
    """The adapter that makes the teacher a discriminator."""
    heads: FeatureHeads = FeatureHeads(features="discriminator_trunk")
    """Its heads."""
    times: tuple[float, ...] = (1.0, 0.5)
    """The student's times when it samples, re-noising between them."""
    optimiser: Optimiser = Optimiser(lr=8e-6)
    """The student's optimiser."""
    discriminator_optimiser: Optimiser = Optimiser(lr=2e-5)
    """Optimiser of adapter and heads."""

    def roles(self) -> dict[str, RoleSpec]:
        w = (ScalarInput(scalar="w", scale=1 / self.w[1]),) if self.w else ()
        student = RoleSpec(copy_of="teacher", transforms=w)
        roles = {"student": student, "target": RoleSpec(copy_of="student", frozen=True)}
        if self.generator.weight:
            roles["discriminator_trunk"] = RoleSpec(shares="teacher", transforms=(self.trunk,))
            roles["discriminator"] = RoleSpec(build=self.heads)
        return roles

    def plan(self, teacher: Any) -> Plan:
        jumps = TargetJumps(
            points=self.points, skip=self.skip, target=Segments(anywhere=False), boundary="blend", ahead="target",
            moves_of_teacher=self.moves, eta=self.eta, scalars={"w": self.w} if self.w else {},
        )  # fmt: skip
        gan: tuple[Loss, ...] = (self.generator, self.discriminator) if self.generator.weight else ()
        moved = {role: self.discriminator_optimiser for loss in gan[1:] for role in loss.moves}
        phases = one_phase(
            [Update(trajectory=jumps, loss=loss) for loss in (MatchState(metric=self.metric), *gan)],
            self.steps, moved | {"student": self.optimiser}, actions=(EMA(target="target", decay=self.average),),
        )  # fmt: skip
        return Plan(phases=phases, sampler=sampler_at(self.times, scalars={"w": self.sample_w} if self.w else {}))

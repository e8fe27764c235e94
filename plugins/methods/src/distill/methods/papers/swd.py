"""SwD: a student whose samples grow from step to step."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.errors import RecipeError
from distill.core.plan import one_phase
from distill.methods.losses import (
    AdversarialDiscriminator,
    AdversarialGenerator,
    Denoise,
    FeatureMoments,
    ScoreDifference,
)
from distill.methods.networks import FeatureHeads
from distill.methods.scales import SIZES, TIMES, Growing, GrowingData, Sizes
from distill.methods.times import UniformTimes


class SwD(Method):
    """Scale-wise Distillation of Diffusion Models (Starodubcev et al. 2025, arXiv:2503.16397).

    Few steps, the first of them on small states: x0 is enlarged and noised again. Distribution matching at the step's
    own size, a GAN on the critic's features, and features of the teacher that agree in the mean. Data may be the
    teacher's own samples. The teacher must answer at every size.
    """

    example: ClassVar[dict[str, Any]] = {"sizes": ((2,), (2,)), "times": (1.0, 0.5)}
    sizes: Sizes = SIZES
    """Sizes of the state's last axes at each of the times; the last are those of the data."""
    times: tuple[float, ...] = TIMES
    """The student's times, descending."""
    critic_updates: int = 5
    """Updates of critic and discriminator per update of the student."""
    score: ScoreDifference = ScoreDifference(times=UniformTimes(low=0.02, high=0.8), guidance=4.5)
    """Distribution matching; its levels leave out the noisiest."""
    moments: FeatureMoments = FeatureMoments(features="teacher")
    """Agreement of mean features, at light noise; a weight of 0 leaves it out."""
    critic: Denoise = Denoise(view="x0")
    """The critic's denoising of the student's samples."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=5e-3)
    """The student's side of the GAN; a weight of 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(weight=1e-2, shared=True)
    """The discriminator's side, which moves the critic's trunk too."""
    heads: FeatureHeads = FeatureHeads()
    """Discriminator heads on the critic's features."""
    student_optimiser: Optimiser = Optimiser(lr=5e-6, weight_decay=0.01, clip=10)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=5e-6, weight_decay=0.01, clip=10)
    """Optimiser of critic and discriminator."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        return {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher"), **heads}

    def plan(self, teacher: Any) -> Plan:
        if len(self.sizes) != len(self.times):
            raise RecipeError(f"each of the {len(self.times)} times needs a size, and there are {len(self.sizes)}")
        events, gan = GrowingData(sizes=self.sizes, times=self.times), bool(self.generator.weight)
        students = [loss for loss in (self.score, self.generator, self.moments) if loss.weight]
        critics = [self.critic, *([self.discriminator] if gan else [])]
        updates = [Update(trajectory=events, loss=loss) for loss in critics]
        updates += [Update(trajectory=events, loss=loss, every=self.critic_updates) for loss in students]
        optimisers = {"student": self.student_optimiser, "critic": self.critic_optimiser}
        return Plan(
            phases=one_phase(
                updates, self.steps, optimisers | ({"discriminator": self.critic_optimiser} if gan else {})
            ),
            sampler=Growing(times=self.times, steps=len(self.times), sizes=self.sizes),
        )

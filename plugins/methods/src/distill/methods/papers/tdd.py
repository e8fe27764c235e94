"""TDD: jumps to the times that few-step samplers visit, guidance in the teacher's move and again when sampling."""

from __future__ import annotations

from typing import Any, Literal

from distill.core import Loss, Method, Optimiser, Plan, RoleSpec, Sampler, Update
from distill.core.plan import one_phase
from distill.core.sampling import Consistency
from distill.methods.consistency import StepTimes, TargetJumps
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, MatchState
from distill.methods.networks import FeatureHeads
from distill.methods.transforms import LoRA


class TDD(Method):
    """Target-Driven Distillation (Wang et al. 2024, arXiv:2409.01347).

    The student's own answer, without gradient, is the target; no average is kept. A share of the samples is seen
    without conditions, though the teacher moved them with guidance: this is what leaves guidance open in sampling.
    """

    points: int = 250
    """Steps of the teacher's grid."""
    target: StepTimes = StepTimes()
    """The set of times where jumps end."""
    guidance: float = 3.5
    """w of the teacher's moves; 1 is none."""
    drop: float = 0.2
    """Share of the samples that the student sees without conditions."""
    metric: Literal["l2", "l1", "huber"] = "huber"
    """Discrepancy between a jump and its target."""
    lora: LoRA | None = LoRA(rank=64)
    """The student as an adapter on the teacher; None trains a full copy."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=0.0, features="teacher", times=None)
    """The student's side of a GAN at the level where jumps end; its weight 0 leaves the GAN out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", times=None, train_features=False
    )
    """The heads' side, with noised data for real."""
    heads: FeatureHeads = FeatureHeads(features="teacher")
    """Discriminator heads on the teacher's features."""
    inference_steps: int = 4
    """Steps when the student is sampled."""
    times: tuple[float, ...] | None = None
    """Their times, where they are not even."""
    gamma: float = 0.2
    """Each of those jumps goes to (1 − γ) of the next time and is re-noised to it."""
    inference_guidance: float = 1.7
    """w of the student's own guidance then; 1 is none."""
    optimiser: Optimiser = Optimiser(lr=1e-6)
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The heads' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        adapter = RoleSpec(shares="teacher", transforms=(self.lora,)) if self.lora else RoleSpec(copy_of="teacher")
        heads = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        return {"student": adapter, **heads}

    def plan(self, teacher: Any) -> Plan:
        jumps = TargetJumps(
            points=self.points, target=self.target, guidance=self.guidance, drop=self.drop, real="noised-data"
        )
        losses: list[Loss] = [MatchState(metric=self.metric)]
        losses += [self.generator, self.discriminator] if self.generator.weight else []
        optimisers = {"student": self.optimiser}
        optimisers |= {"discriminator": self.heads_optimiser} if self.generator.weight else {}
        sampler = Sampler(
            steps=len(self.times) if self.times else self.inference_steps, times=self.times,
            solver=Consistency(gamma=self.gamma), guidance=self.inference_guidance,
        )  # fmt: skip
        updates = [Update(trajectory=jumps, loss=loss) for loss in losses]
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=sampler)

"""Hyper-SD: consistency within ever fewer segments, a stage for each number, then a score stage for one step."""

from __future__ import annotations

from typing import Any

from distill.core import EMA, Copy, Loss, Method, Optimiser, Options, Phase, Plan, RoleSpec, Sampler, Update
from distill.methods.consistency import Segments, TargetJumps
from distill.methods.losses import (
    AdversarialDiscriminator,
    AdversarialGenerator,
    Denoise,
    MatchState,
    ScoreDifference,
)
from distill.methods.networks import FeatureHeads
from distill.methods.trajectories import Generate


class Stage(Options):
    """One number of segments."""

    segments: int = 1
    """Segments k."""
    regression: float = 1.0
    """Weight of the squared error between a jump and its target."""
    adversarial: float = 0.0
    """Weight of a GAN that takes targets for real and jumps for fake, at the level where they end."""
    anywhere: bool = True
    """Jumps end anywhere in the segment; false is consistency to its floor."""


class HyperSD(Method):
    """Hyper-SD: Trajectory Segmented Consistency Model for Efficient Image Synthesis (Ren et al., arXiv:2404.13686).

    Each stage goes on with the student of the one before, which also becomes its teacher. The weights of the losses
    are ours, the paper's are not public; its feedback from reward models is another method's part.
    """

    stages: tuple[Stage, ...] = (
        Stage(segments=8),
        Stage(segments=4, regression=0.75, adversarial=0.025),
        Stage(segments=2, regression=0.5, adversarial=0.05),
        Stage(segments=1, regression=0.25, adversarial=0.1),
    )
    """Segments and weights, stage by stage; the iterations are shared evenly."""
    points: int = 50
    """Steps of the teacher's grid."""
    guidance: float = 7.5
    """w of the teacher's guidance, which the first student takes over; 1 is none."""
    hand_over: bool = True
    """A finished stage's student is the teacher of the next; else the first teacher stays."""
    average: float = 0.95
    """Decay of the student's average that makes the targets."""
    generator: AdversarialGenerator = AdversarialGenerator(features="teacher", times=None)
    """The student's side of the GAN."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", times=None, train_features=False
    )
    """The heads' side."""
    heads: FeatureHeads = FeatureHeads(features="teacher")
    """Discriminator heads on the teacher's features."""
    one_step: int = 0
    """Iterations of distribution matching in the end, for one step; none if 0."""
    one_step_time: float = 1.0
    """Time at which that single step begins; the paper's dedicated network takes 0.8."""
    score: ScoreDifference = ScoreDifference(critic_guidance=1.0)
    """Distribution matching of the last stage."""
    inference_steps: int = 4
    """Jumps when the student is sampled, without guidance."""
    optimiser: Optimiser = Optimiser(lr=1e-6)
    """Optimiser of every role."""

    def roles(self) -> dict[str, RoleSpec]:
        copied = RoleSpec(copy_of="student", frozen=True)
        roles = {"student": RoleSpec(copy_of="teacher"), "target": copied, "previous": copied}
        if any(stage.adversarial for stage in self.stages):
            roles["discriminator"] = RoleSpec(build=self.heads)
        return roles | ({"critic": RoleSpec(copy_of="teacher")} if self.one_step else {})

    def plan(self, teacher: Any) -> Plan:
        phases = [self._segmented(index, stage) for index, stage in enumerate(self.stages)]
        phases += [self._single()] if self.one_step else []
        sampler = (
            Sampler(steps=1, times=(self.one_step_time,)) if self.one_step else Sampler(steps=self.inference_steps)
        )
        return Plan(phases=tuple(phases), sampler=sampler)

    def _segmented(self, index: int, stage: Stage) -> Phase:
        first = index == 0 or not self.hand_over
        jumps = TargetJumps(
            points=self.points, target=Segments(count=stage.segments, anywhere=stage.anywhere), ahead="target",
            teacher="teacher" if first else "previous", guidance=self.guidance if first else 1.0, real="target",
        )  # fmt: skip
        losses: list[Loss] = [MatchState(weight=stage.regression)]
        if stage.adversarial:
            losses += [self.generator.model_copy(update={"weight": stage.adversarial}), self.discriminator]
        return Phase(
            name=f"{stage.segments}-segments",
            steps=(self.steps - self.one_step) // len(self.stages),
            updates=tuple(Update(trajectory=jumps, loss=loss) for loss in losses),
            optimisers=dict.fromkeys((role for loss in losses for role in loss.moves), self.optimiser),
            actions=(EMA(target="target", decay=self.average),),
            at_end=(Copy(target="previous"),),
        )

    def _single(self) -> Phase:
        samples = Generate(times=(self.one_step_time,))
        updates = (Update(trajectory=samples, loss=self.score, every=5), Update(trajectory=samples, loss=Denoise()))
        optimisers = dict.fromkeys(("student", "critic"), self.optimiser)
        return Phase(name="one-step", steps=self.one_step, updates=updates, optimisers=optimisers)

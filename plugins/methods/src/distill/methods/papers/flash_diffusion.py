"""Flash Diffusion: a teacher's solution as the target, distribution matching and a GAN added by and by."""

from __future__ import annotations

from typing import Any

from distill.core import Loss, Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Denoise, Match, ScoreDifference
from distill.methods.networks import FeatureHeads
from distill.methods.times import ListedTimes
from distill.methods.trajectories import SolvedData, sampler_at

LEVELS = ListedTimes(times=(0.01, 0.25, 0.5, 0.75))
GAN: dict[str, Any] = {"features": "teacher", "form": "squares", "times": LEVELS}


class FlashDiffusion(Method):
    """Flash Diffusion: Accelerating Any Conditional Diffusion Model (Chadebec et al. 2024, arXiv:2406.02347).

    Four stages shift where the student is taught and add losses. The student is its own critic, without a network of
    its law; student and heads take turns. The boundary c_skip x + c_out D of consistency models is left out: at the
    times of the grid c_skip is below 1e-5.
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times when it is sampled, descending."""
    solved: SolvedData = SolvedData(guidance=(3.0, 13.0))
    """Teacher's solutions: grid, solver, guidance."""
    shares: tuple[tuple[float, ...], ...] = (
        (0.0, 0.0, 0.5, 0.5),
        (0.1, 0.3, 0.3, 0.3),
        (0.25, 0.25, 0.25, 0.25),
        (0.4, 0.2, 0.2, 0.2),
    )
    """Mixture of starting points in each stage."""
    match: Match = Match()
    """Regression to the solution; a modality's perceptual distance takes its place where there is one."""
    score: ScoreDifference = ScoreDifference(critic="student", guidance=3.0, guidance_to=13.0)
    """Distribution matching; with another role as critic, that is trained on the student's samples."""
    score_weights: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    """Its weight in each stage."""
    generator: AdversarialGenerator = AdversarialGenerator(**GAN)
    """The student's side of the GAN."""
    generator_weights: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    """Its weight in each stage."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(**GAN, train_features=False, shared=True)
    """The heads' side."""
    heads: FeatureHeads = FeatureHeads(features="teacher")
    """Discriminator heads on the frozen teacher's features."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The heads' optimiser, and that of a critic."""

    @property
    def critic(self) -> str:
        """The critic's role where it is a network of its own."""
        return self.score.critic.replace("student", "")

    def roles(self) -> dict[str, RoleSpec]:
        critic = {self.critic: RoleSpec(copy_of="teacher")} if self.critic else {}
        return {"student": RoleSpec(copy_of="teacher"), "discriminator": RoleSpec(build=self.heads), **critic}

    def plan(self, teacher: Any) -> Plan:
        updates = [update for stage in range(len(self.shares)) for update in self._stage(stage)]
        others = ("discriminator", *((self.critic,) if self.critic else ()))
        optimisers = {"student": self.student_optimiser, **dict.fromkeys(others, self.heads_optimiser)}
        return Plan(phases=one_phase(updates, self.steps, optimisers), sampler=sampler_at(self.times))

    def _stage(self, stage: int) -> list[Update]:
        start, stop = (self.steps * edge // len(self.shares) for edge in (stage, stage + 1))
        events = self.solved.model_copy(update={"shares": self.shares[stage]})
        sides = ((self.score, self.score_weights), (self.generator, self.generator_weights))
        extra = [loss.model_copy(update={"weight": loss.weight * w[stage]}) for loss, w in sides if w[stage]]
        critic = [Denoise(role=self.critic)] if self.critic else []
        turns: list[list[Loss]] = [[self.match, *extra], [self.discriminator, *critic]]
        return [
            Update(trajectory=events, loss=loss, every=2, start=start + turn, stop=stop)
            for turn, losses in enumerate(turns)
            for loss in losses
        ]

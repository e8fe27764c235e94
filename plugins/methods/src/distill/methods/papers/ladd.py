"""LADD: a GAN in latent space on the noised features of the teacher itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Trajectory, Update
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator
from distill.methods.networks import ProjectionHeads
from distill.methods.pairs import MakePairs, Replay
from distill.methods.times import ListedTimes, LogitNormalTimes
from distill.methods.trajectories import NoisedData, sampler_at

HIGH = LogitNormalTimes(mean=1, std=1)


class LADD(Method):
    """Latent Adversarial Diffusion Distillation (Sauer et al. 2024, arXiv:2403.12015).

    Samples that the teacher made under guidance take the data's place. Student's answers and samples are
    noised to levels of their own, and heads on the frozen teacher's features judge them, by a hinge.
    """

    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    shares: tuple[float, ...] = (0.7, 0.1, 0.1, 0.1)
    """How often each is trained."""
    warmup_shares: tuple[float, ...] = (0.0, 0.0, 0.5, 0.5)
    """How often at first."""
    warmup: int = 500
    """Iterations with the first shares."""
    synthetic: int = 4096
    """Samples of the teacher to train on; 0 trains on the data."""
    synthetic_sampler: Sampler | None = None
    """How they are made, guidance included; the teacher's own sampler if None."""
    store: Path | None = None
    """Folder of the teacher's samples, which runs may share; one in the run's folder if None."""
    generator: AdversarialGenerator = AdversarialGenerator(
        features="teacher", form="hinge", times=HIGH, conditional=True
    )
    """The student's side; its times are π(m, s), and m > 0 teaches structure before detail."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", form="hinge", times=HIGH, conditional=True, train_features=False
    )
    """The heads' side."""
    heads: ProjectionHeads = ProjectionHeads()
    """Discriminator heads on the teacher's features."""
    student_optimiser: Optimiser = Optimiser(lr=2e-6, betas=(0, 0.999))
    """The student's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=4e-6, betas=(0, 0.999))
    """The heads' optimiser, at twice the student's rate."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher"), "discriminator": RoleSpec(build=self.heads)}

    def plan(self, teacher: Any) -> Plan:
        first, later = self._events(self.warmup_shares), self._events(self.shares)
        losses = (self.generator, self.discriminator)
        updates = [Update(trajectory=first, loss=loss, stop=self.warmup) for loss in losses] if self.warmup else []
        updates += [Update(trajectory=later, loss=loss, start=self.warmup) for loss in losses]
        optimisers = {"student": self.student_optimiser, "discriminator": self.heads_optimiser}
        train = Phase(steps=self.steps, updates=tuple(updates), optimisers=optimisers)
        made = MakePairs(count=self.synthetic, sampler=self.synthetic_sampler or teacher, store=self.store)
        make = Phase(name="samples", fit=made)
        return Plan(phases=(make, train) if self.synthetic else (train,), sampler=sampler_at(self.times))

    def _events(self, shares: tuple[float, ...]) -> Trajectory:
        events = NoisedData(times=ListedTimes(times=self.times, shares=shares), pure_end=True)
        return Replay(inner=events) if self.synthetic else events

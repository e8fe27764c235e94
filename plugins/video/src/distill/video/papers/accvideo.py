"""AccVideo: mean velocities between key states of stored routes, and a GAN with heads of its own for each."""

from __future__ import annotations

from typing import Any

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.sampling import Grid
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Match
from distill.methods.pairs import RecordStates
from distill.video.losses import HeadsPerStep
from distill.video.trajectories import Stretches


class AccVideo(Method):
    """AccVideo: Accelerating Video Diffusion Model with Synthetic Dataset (Zhang et al. 2025, arXiv:2503.19462).

    Neither data nor forward noising: everything is learnt on routes that the teacher walked once. The student meets
    them stretch by stretch, and its own route from fresh noise is compared with them at each key time. The heads look
    at one layer of the teacher at all key times, where the paper takes another for clean states.
    """

    stretches: int = 5
    """m, the student's steps."""
    sampler: Sampler | None = Sampler(steps=50, grid=Grid(shift=7.0))
    """How the teacher walks; its own sampler if None. m must divide its steps."""
    count: int = 1024
    """Routes that are stored."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=0.1, features="teacher", times=None, conditional=True)
    """The student's side of the GAN; a weight of 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", times=None, conditional=True, train_features=False
    )
    """The discriminator's side, on frozen features."""
    heads: HeadsPerStep = HeadsPerStep()
    """The discriminator."""
    optimiser: Optimiser = Optimiser(lr=5e-6)
    """Optimiser of the student."""
    heads_optimiser: Optimiser = Optimiser(lr=5e-6)
    """Optimiser of the heads."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = self.heads.model_copy(update={"sampler": self._own(self.sampler or Sampler())})
        gan = {"discriminator": RoleSpec(build=heads)} if self.generator.weight else {}
        return {"student": RoleSpec(copy_of="teacher")} | gan

    def _own(self, walk: Sampler) -> Sampler:
        return Sampler(steps=self.stretches, grid=walk.grid)

    def plan(self, teacher: Any) -> Plan:
        walk = self.sampler or teacher
        events = Stretches(stretches=self.stretches, sampler=walk)
        match = Match(view="velocity", target="velocity")
        losses = [match, self.generator, self.discriminator] if self.generator.weight else [match]
        record = RecordStates(count=self.count, sampler=walk, at=events.at())
        train = Phase(
            steps=self.steps,
            updates=tuple(Update(trajectory=events, loss=loss) for loss in losses),
            optimisers={"student": self.optimiser, "discriminator": self.heads_optimiser},
        )
        return Plan(phases=(Phase(name="routes", fit=record), train), sampler=self._own(walk))

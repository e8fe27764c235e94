"""Presto: fewer steps by distribution matching with a GAN in EDM's terms, fewer layers a step, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distill.core import Batch, Context, Event, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.sampling import Consistency
from distill.methods.layers import LayerBudget, SelfTeacher
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Denoise, ScoreDifference
from distill.methods.networks import FeatureHeads
from distill.methods.times import KarrasTimes, LogNormalTimes, Times
from distill.methods.trajectories import Data, NoisedData
from distill.methods.transforms import ScalarInput

TRAINING, INFERENCE = LogNormalTimes(of="noise"), KarrasTimes(noise=(0.02, 80.0))
"""The teacher's law of noise in training, and that of its steps: noise is σ/α, whatever the path."""


class FromNoise(NoisedData):
    """Noised data, and the noise at which the student answered for those who take the input `from`: ln(σ/α) / 4."""

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        path = ctx.roles[self.role].denoiser.path
        for event in super().events(batch, ctx, attached=attached):
            yield replace(event, scalars={**event.scalars, "from": -path.logsnr(event.t).clamp(-8, 8) / 4})


class Presto(Method):
    """Presto! Distilling Steps and Layers for Accelerating Music Generation (Novack et al. 2024, arXiv:2410.05167).

    The student learns steps from noised data: at the noise of inference, drawn from a continuum, so that it can take
    any number of steps; teacher, critic and discriminator see its answers at the noise of the teacher's training. With
    `layers` it first learns to leave layers out, and stays near what all its layers say. The weights and the table of
    layers are not public; these are ours.
    """

    layers: LayerBudget | None = None
    """Layers that are left out at each noise; none if None."""
    layer_steps: int = 0
    """Iterations that learn to leave layers out, before those that learn steps; all of them learn layers alone."""
    times: tuple[float, ...] = (80.0, 8.4, 1.1, 0.15)
    """Times at which the student is sampled, descending, with noise between them."""
    gamma: float = 1.0
    """Share of the times by which the sampler jumps too far and adds fresh noise: 1 is the paper's, 0 adds none."""
    law: Times = INFERENCE
    """Noise at which the student learns."""
    score: ScoreDifference = ScoreDifference(times=TRAINING)
    """Distribution matching: noise, guidance."""
    critic: Denoise = Denoise(times=TRAINING)
    """The critic learns the student's answers."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=0.01, form="least-squares", times=TRAINING)
    """The student's side of the GAN; `weight` 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        weight=0.01, form="least-squares", times=TRAINING
    )
    """The discriminator's side, which moves the critic's trunk too."""
    heads: FeatureHeads = FeatureHeads()
    """Discriminator heads on the critic's features."""
    denoise: Denoise = Denoise(role="student", times=TRAINING)
    """What the student learns beside its own teaching while it learns layers."""
    self_teacher: SelfTeacher = SelfTeacher()
    """The last layer without some layers, against the last layer with all; `weight` 0 leaves it out."""
    critic_sees_noise: bool = False
    """Tell critic and discriminator at which noise the student answered. Not in the paper: there one critic knows the
    mixture of all answers, and sharp answers at little noise then make up for blurred ones at much."""
    critic_updates: int = 5
    """Updates of critic and discriminator per update of the student."""
    student_optimiser: Optimiser = Optimiser(lr=1e-4, betas=(0, 0.99))
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-4, betas=(0, 0.99))
    """Optimiser of critic and discriminator."""
    layer_optimiser: Optimiser = Optimiser(lr=1e-4)
    """The student's optimiser while it learns layers."""

    def roles(self) -> dict[str, RoleSpec]:
        surgery = () if self.layers is None else (self.layers,)
        roles = {"student": RoleSpec(copy_of="teacher", transforms=surgery)}
        full = {"full": RoleSpec(shares="student")} if self.layers else {}
        told = (ScalarInput(scalar="from"),) if self.critic_sees_noise else ()
        critic = {"critic": RoleSpec(copy_of="teacher", transforms=told)} if self.steps > self.layer_steps else {}
        gan = {"discriminator": RoleSpec(build=self.heads)} if critic and self.generator.weight else {}
        return {**roles, **full, **critic, **gan}

    def plan(self, teacher: Any) -> Plan:
        phases = [self._layers()] if self.layers and self.layer_steps else []
        if self.steps <= self.layer_steps:
            return Plan(phases=tuple(phases), sampler=teacher)
        solver = Consistency(gamma=self.gamma)
        sampler = Sampler(times=self.times, steps=len(self.times), solver=solver)
        return Plan(phases=(*phases, self._steps()), sampler=sampler)

    def _layers(self) -> Phase:
        noised = NoisedData(times=self.denoise.times)
        updates = [Update(trajectory=Data(), loss=self.denoise)]
        updates += [Update(trajectory=noised, loss=self.self_teacher)] * bool(self.self_teacher.weight)
        return Phase(
            name="layers", steps=self.layer_steps, updates=tuple(updates), optimisers={"student": self.layer_optimiser}
        )

    def _steps(self) -> Phase:
        events, gan = FromNoise(times=self.law), bool(self.generator.weight)
        kept = self.layers is not None and bool(self.self_teacher.weight)
        mine = (self.score, *((self.generator,) if gan else ()), *((self.self_teacher,) if kept else ()))
        theirs = (self.critic, self.discriminator) if gan else (self.critic,)
        updates = [Update(trajectory=events, loss=loss, every=self.critic_updates) for loss in mine]
        updates += [Update(trajectory=events, loss=loss) for loss in theirs]
        moved = {role: self.critic_optimiser for loss in theirs for role in loss.moves}
        return Phase(
            name="steps", steps=self.steps - self.layer_steps, updates=tuple(updates),
            optimisers=moved | {"student": self.student_optimiser},
        )  # fmt: skip

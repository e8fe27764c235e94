"""AVDM2: the scores of pictures on some frames, and a GAN on whole clips."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import AdversarialDiscriminator, AdversarialGenerator, Denoise, ScoreDifference
from distill.methods.networks import FeatureHeads
from distill.methods.times import UniformTimes
from distill.methods.trajectories import Generate, sampler_at
from distill.video.losses import OnFrames

LEVELS = UniformTimes(low=0.02, high=0.98)


class AVDM2(Method):
    """Accelerating Video Diffusion Models via Distribution Matching (Zhu et al. 2024, arXiv:2412.05899).

    The role `image` is a diffusion model of pictures in the space of the frames: it says how frames should look, and
    giving another one gives another style. How they move is left to the GAN, whose heads look at the frozen video
    teacher's features of noised clips. The weights of both, K and the levels are not public; these are ours.
    """

    conformance: ClassVar[dict[str, str]] = {
        "toy": "it needs a teacher of pictures",
        "options": "losses on frames hold losses of any class, which JSON cannot name",
    }
    times: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """The student's times, descending."""
    score: OnFrames = OnFrames(inner=ScoreDifference(teacher="image", times=LEVELS))
    """Distribution matching on frames; `weight` 0 leaves it out."""
    critic: OnFrames = OnFrames(inner=Denoise())
    """The critic, a model of pictures, learns the student's frames."""
    generator: AdversarialGenerator = AdversarialGenerator(weight=0.1, features="teacher", times=LEVELS)
    """The student's side of the GAN on clips; `weight` 0 leaves it out."""
    discriminator: AdversarialDiscriminator = AdversarialDiscriminator(
        features="teacher", times=LEVELS, train_features=False
    )
    """The discriminator's side."""
    heads: FeatureHeads = FeatureHeads(features="teacher")
    """Heads on each of the layers that the teacher taps."""
    critic_updates: int = 2
    """Updates of critic and discriminator per update of the student."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-5)
    """Optimiser of critic and discriminator."""

    def roles(self) -> dict[str, RoleSpec]:
        critic = {"critic": RoleSpec(copy_of="image")} if self.score.weight else {}
        gan = {"discriminator": RoleSpec(build=self.heads)} if self.generator.weight else {}
        return {"student": RoleSpec(copy_of="teacher"), **critic, **gan}

    def plan(self, teacher: Any) -> Plan:
        events = Generate(times=self.times)
        sides = [(self.score, self.critic), (self.generator, self.discriminator)]
        kept = [pair for pair in sides if pair[0].weight]
        updates = [Update(trajectory=events, loss=mine, every=self.critic_updates) for mine, _ in kept]
        updates += [Update(trajectory=events, loss=theirs) for _, theirs in kept]
        moved = {role: self.critic_optimiser for _, theirs in kept for role in theirs.moves}
        phases = one_phase(updates, self.steps, moved | {"student": self.student_optimiser})
        return Plan(phases=phases, sampler=sampler_at(self.times))

"""ASD and FFE: clips of n steps against those of n + 1, and more steps for the first chunk."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Phase, RoleSpec, Sampler, Update
from distill.core.sampling import Consistency
from distill.methods.losses import RelativisticDiscriminator, RelativisticGenerator
from distill.methods.times import UniformTimes
from distill.video.losses import HeadsByCount
from distill.video.papers.self_forcing import SelfForcing
from distill.video.samplers import FirstChunk
from distill.video.trajectories import TwoRollouts

LOOKS: dict[str, Any] = {"features": "critic", "times": UniformTimes(), "conditional": True}


class ASDFFE(SelfForcing):
    """Towards One-step Causal Video Generation via Adversarial Self-Distillation (arXiv:2511.01419).

    Beside Self-Forcing's distribution matching, clips of n steps are brought to the law of those of n + 1, by a
    relativistic GAN on the critic's features, which it does not move, with a logit of its own for each n. One model
    then samples in one, two or all steps; the first chunk takes more (first-frame enhancement). The weight of the GAN
    and its noise levels are not public; clips of n + 1 steps carry no gradient here.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    pair: RelativisticGenerator = RelativisticGenerator(weight=0.1, **LOOKS)
    """The student's side; a weight of 0 leaves the GAN out."""
    pair_discriminator: RelativisticDiscriminator = RelativisticDiscriminator(gamma=0.0, **LOOKS)
    """The discriminator's side, with R1 and R2 where γ is above 0."""
    heads: HeadsByCount = HeadsByCount()
    """Its heads."""
    first_steps: int = 4
    """Steps of the first chunk in sampling."""
    later_steps: int = 1
    """Steps of the others."""

    def roles(self) -> dict[str, RoleSpec]:
        heads = self.heads.model_copy(update={"most": len(self.times) - 1})
        return super().roles() | ({"discriminator": RoleSpec(build=heads)} if self.pair.weight else {})

    def sampler(self) -> Sampler:
        chosen = {"first_steps": self.first_steps, "later_steps": self.later_steps}
        return FirstChunk(times=self.times, steps=len(self.times), solver=Consistency(), **chosen)

    def _second(self) -> Phase:
        matching = super()._second()
        if not self.pair.weight:
            return matching
        pairs = TwoRollouts(times=self.times)
        updates = [
            Update(trajectory=pairs, loss=self.pair, every=self.critic_updates),
            Update(trajectory=pairs, loss=self.pair_discriminator),
        ]
        optimisers = matching.optimisers | {"discriminator": self.critic_optimiser}
        return matching.model_copy(update={"updates": (*matching.updates, *updates), "optimisers": optimisers})

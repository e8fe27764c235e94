"""SDXL-Lightning: halving by a GAN that first keeps to the teacher's flow and then lets go of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from distill.core import Copy, Loss, Method, Optimiser, Phase, Plan, RoleSpec, Update
from distill.core.errors import RecipeError
from distill.methods.losses import JumpDiscriminator, JumpGenerator, Match
from distill.methods.networks import FeatureHeads, JumpHeads
from distill.methods.papers.progressive_distillation import PREVIOUS, jumps
from distill.methods.times import ListedTimes, Times
from distill.methods.trajectories import StageJumps


class SDXLLightning(Method):
    """SDXL-Lightning: Progressive Adversarial Diffusion Distillation (Lin et al. 2024, arXiv:2402.13929).

    Stages from many steps to few, each taught by the student of the one before: by regression at first, then by a
    GAN in two parts, whose heads see where the jump began (`flow`) and then do not (`relaxed`). The paper trains
    adapters first and then all weights; here it is all weights, unless the recipe gives the student an adapter.
    """

    stages: tuple[int, ...] = (128, 32, 8, 4, 2, 1)
    """Steps of the teacher's sampler, then of the student of every stage; each divides the one before."""
    regression: int = 32
    """Fewest steps that are learnt by regression."""
    guidance: float = 6.0
    """w of the teacher's guidance in the first stage, after which it is part of the student."""
    relaxed: bool = True
    """Let go of the flow in the second half of each adversarial stage."""
    noisy: int = 2
    """From so few steps on, the discriminator sees both ends noised."""
    levels: Times = ListedTimes(times=(0.01, 0.25, 0.5, 0.75))
    """To which levels."""
    generator: JumpGenerator = JumpGenerator()
    """The student's side of the GAN."""
    discriminator: JumpDiscriminator = JumpDiscriminator()
    """The discriminator's side, which moves the trunk too."""
    heads: JumpHeads = JumpHeads()
    """Heads on the trunk's features of both states; those of the relaxed half see one."""
    regression_optimiser: Optimiser = Optimiser(lr=5e-5)
    """The student's optimiser in stages of regression."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5, betas=(0, 0.99))
    """The student's optimiser in adversarial stages."""
    trunk_optimiser: Optimiser = Optimiser(lr=1e-5, betas=(0, 0.99))
    """Optimiser of trunk and heads."""

    def roles(self) -> dict[str, RoleSpec]:
        alone = FeatureHeads(features=self.heads.features, hidden=self.heads.hidden)
        heads = {"flow": RoleSpec(build=self.heads), "relaxed": RoleSpec(build=alone)}
        return {"student": RoleSpec(copy_of="teacher"), "trunk": RoleSpec(copy_of="student"), **PREVIOUS, **heads}

    def plan(self, teacher: Any) -> Plan:
        if any(before % after for before, after in pairwise(self.stages)) or len(self.stages) < 2:
            raise RecipeError(f"stages must each divide the one before, not {list(self.stages)}")
        phases = tuple(phase for index in range(1, len(self.stages)) for phase in self._stage(index))
        return Plan(phases=phases, sampler=jumps(self.stages[-1]))

    def _stage(self, index: int) -> list[Phase]:
        before, count = self.stages[index - 1 : index + 1]
        first = {"teacher": "teacher", "guidance": self.guidance} if index == 1 else {"teacher": "previous"}
        events = StageJumps(steps=count, refine=before // count, **first)
        names = ["regression"] if count >= self.regression else ["flow", *(["relaxed"] if self.relaxed else [])]
        share, last = self.steps // (len(self.stages) - 1) // len(names), names[-1]
        return [
            Phase(
                name=f"{count}-steps-{name}",
                steps=share,
                updates=tuple(Update(trajectory=events, loss=loss) for loss in self._losses(name, count)),
                optimisers=self._optimisers(name),
                at_end=(Copy(source="student", target="previous"),) if name == last else (),
            )
            for name in names
        ]

    def _losses(self, name: str, count: int) -> tuple[Loss, ...]:
        if name == "regression":
            return (Match(),)
        levels = self.levels if count <= self.noisy else None
        seen = {"heads": name, "from_start": name == "flow", "times": levels}
        return tuple(side.model_copy(update=seen) for side in (self.generator, self.discriminator))

    def _optimisers(self, name: str) -> dict[str, Optimiser]:
        if name == "regression":
            return {"student": self.regression_optimiser}
        return {"student": self.student_optimiser, "trunk": self.trunk_optimiser, name: self.trunk_optimiser}

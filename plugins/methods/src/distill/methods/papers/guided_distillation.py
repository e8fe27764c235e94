"""Guided distillation: first the guided teacher in one call for every w, then halving with w as an input."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from distill.core import (
    Context,
    Copy,
    Event,
    Loss,
    Method,
    Optimiser,
    Phase,
    Plan,
    RoleSpec,
    Terms,
    Update,
    cfg,
)
from distill.core.sampling import Overshoot
from distill.methods.losses import distance, level_weight
from distill.methods.papers.progressive_distillation import PREVIOUS, jumps, stages
from distill.methods.trajectories import NoisedData
from distill.methods.transforms import ScalarInput


class MatchGuided(Loss):
    """The student's one call against the teacher's two, `p(∅) + w (p(c) − p(∅))` (arXiv:2210.03142).

    w is the event's extra input `w`, one per sample, or a number where the student has no such input.
    """

    w: float = 1.0
    """Weight of the guidance where the event carries none."""
    level: str = "truncated-snr"
    """Weight of an x0 error at a noise level."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("student", "teacher")

    def terms(self, event: Event, ctx: Context) -> Terms:
        assert event.prediction is not None
        guidance = cfg(event.scalars.get("w", self.w))
        target = ctx.roles["teacher"].ask(event.x_t, event.t, event.cond, guidance=guidance).x0
        level = level_weight(self.level, event.prediction)
        return {"cfg_match": distance("l2", event.prediction.x0, target, level)}


class GuidedDistillation(Method):
    """On Distillation of Guided Diffusion Models (Meng et al. 2023, arXiv:2210.03142).

    Phase 1 makes one call of the student, with w as an input, say what two calls of the teacher say; the
    later phases halve that student's steps with the same w in all jumps. w = 1 is no guidance: the paper's w'
    is w − 1.
    """

    w: tuple[float, float] = (1.0, 5.0)
    """Guidance weights that the student learns, drawn uniformly per sample."""
    match: float = Field(default=0.5, gt=0, lt=1)
    """Share of the iterations that phase 1 gets; all of them where nothing is halved."""
    start: int = 64
    """Steps of the sampler that is halved."""
    end: int = 4
    """Jumps of the final student; equal to start ends after phase 1."""
    lr: float = 1e-4
    """Learning rate, annealed to 0 in every phase."""
    sample_w: float = 3.0
    """Guidance weight that the student is sampled with when nothing else is said."""
    stochastic: bool = False
    """Sample with twice as many calls, each two steps down and one re-noised up, instead of plain jumps."""

    def roles(self) -> dict[str, RoleSpec]:
        w_input = ScalarInput(scalar="w", scale=1 / self.w[1])
        return {"student": RoleSpec(copy_of="teacher", transforms=(w_input,)), **PREVIOUS}

    def plan(self, teacher: Any) -> Plan:
        inputs = {"w": self.w}
        first = self.steps if self.end == self.start else round(self.steps * self.match)
        match = Phase(
            name="match",
            steps=first,
            updates=(Update(trajectory=NoisedData(scalars=inputs), loss=MatchGuided()),),
            optimisers={"student": Optimiser(lr=self.lr, clip=1.0, schedule="linear")},
            at_end=(Copy(source="student", target="previous"),),
        )
        halving = () if self.end == self.start else stages(
            self.start, self.end, self.steps - first, lr=self.lr, level="truncated-snr",
            first="previous", scalars=inputs,
        )  # fmt: skip
        sampler = jumps(self.end, w=self.sample_w)
        overshoot = sampler.model_copy(update={"steps": 2 * self.end, "solver": Overshoot()})
        return Plan(phases=(match, *halving), sampler=overshoot if self.stochastic else sampler)

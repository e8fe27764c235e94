"""SNOOPI: SwiftBrush under guidance of random weight, and negative prompts in one step."""

from __future__ import annotations

from distill.core import Context, Event, RoleSpec, Terms
from distill.methods.losses import ScoreDifference, draw_guidance
from distill.methods.negative import NegativeAttention
from distill.methods.papers.swiftbrush import SwiftBrush
from distill.methods.times import UniformTimes


class RandomlyGuided(ScoreDifference):
    """A score difference whose w is drawn anew at every step, one for teacher and critic (arXiv:2412.02687)."""

    weights: tuple[float, float] = (2.0, 5.0)
    """Between which w is drawn, evenly."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        w = draw_guidance(*self.weights, ctx, "score/guidance")
        drawn = self.model_copy(update={"guidance": w, "critic_guidance": w})
        return super(RandomlyGuided, drawn).terms(event, ctx)


class SNOOPI(SwiftBrush):
    """SNOOPI: Supercharged One-step Diffusion Distillation with Proper Guidance (arXiv:2412.02687).

    The range of w in training is not published; U(2, 5) is the one that the paper shows for its teacher.
    """

    score: RandomlyGuided = RandomlyGuided(units="eps", times=UniformTimes(low=0.02, high=0.98))
    """σ² (ε_teacher − ε_critic), both guided with one random weight."""
    nasa: NegativeAttention | None = None
    """Negative prompts for the student, where it has cross-attention; nothing is trained for them."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = super().roles()
        if self.nasa is None:
            return roles
        return roles | {"student": RoleSpec(copy_of="teacher", transforms=(self.nasa,))}

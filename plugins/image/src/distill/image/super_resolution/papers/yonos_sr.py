"""YONOS-SR: who knows a small ratio teaches the next larger one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from distill.core import Copy, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.core.errors import RecipeError
from distill.image.super_resolution.trajectories import TwoScales
from distill.methods.losses import Match


class YonosSR(Method):
    """You Only Need One Step: Scale Distillation (Noroozi et al. 2024, arXiv:2401.17258).

    The recipe's `student:` learns the smallest ratio from data; then, ratio by ratio, from what it was before says of
    the same noised picture with the easier low-resolution picture. Batches bring pictures, and the method makes them
    small. The paper's last phase, a decoder of latents that is fitted to answers of one step, is not part of it. The
    weight of noise levels is not public; this is ours.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "samples of the toy are no pairs of pictures"}
    ratios: tuple[float, ...] = (2.0, 4.0, 8.0)
    """From the smallest, which is learnt from data, to the one that is wanted."""
    first: float = 0.5
    """Share of the iterations for the smallest; 0 if the student knows it already."""
    scales: TwoScales = TwoScales(teacher="previous")
    """Noise levels and degradation of every stage; no teacher has them all learn from data."""
    match: Match = Match(level="edm", sigma_data=0.12)
    """Distance to the teacher's answer."""
    optimiser: Optimiser = Optimiser(lr=1e-3, schedule="cosine", warmup=20, clip=1.0, betas=(0.9, 0.99))
    """The student's optimiser, made anew for each ratio."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"previous": RoleSpec(copy_of="student", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        if len(self.ratios) < 2 or any(easy >= hard for easy, hard in pairwise(self.ratios)):
            raise RecipeError(f"ratios must be two or more and rise, not {list(self.ratios)}")
        begin = round(self.first * self.steps)
        rest = (self.steps - begin) // (len(self.ratios) - 1)
        phases = [self._phase(self.ratios[0], self.ratios[0], begin)] if begin else []
        phases += [self._phase(easy, hard, rest) for easy, hard in pairwise(self.ratios)]
        return Plan(phases=tuple(phases), sampler=Sampler(steps=1))

    def _phase(self, easy: float, hard: float, steps: int) -> Phase:
        taught = {} if hard > easy else {"teacher": ""}
        scales = self.scales.model_copy(update={"ratio": hard, "easy": easy, **taught})
        return Phase(
            name=f"ratio-{hard:g}", steps=steps, updates=(Update(trajectory=scales, loss=self.match),),
            optimisers={"student": self.optimiser}, at_end=(Copy(target="previous"),),
        )  # fmt: skip

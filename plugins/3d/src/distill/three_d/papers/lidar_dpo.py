"""Distillation-DPO: a student of LiDAR completion, taught by which of its completions are better."""

from __future__ import annotations

from typing import Any, ClassVar

from distill.core import Method, Optimiser, Plan, RoleSpec, Update
from distill.core.plan import one_phase
from distill.methods.losses import Denoise
from distill.three_d.lidar_pairs import CompletionPairs, DenoiseTarget, Preference
from distill.three_d.points import Completed


class LidarDPO(Method):
    """Diffusion Distillation With Direct Preference Optimization for LiDAR (Zhao et al. 2025, arXiv:2504.11447).

    The student completes each scan twice, from one noise at two scales; a metric without gradient says which is better.
    Each side has a critic of its own. By default what is descended is not the paper's objective, which leads to the
    worse completions (`preference: {form: paper}`; the claim measures it), but that of DPO's own law. The paper's
    student is trained with SGD at a rate of 1e-5; the rates here are for AdamW.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy has no scans"}
    pairs: CompletionPairs = CompletionPairs()
    """How completions are made and ranked."""
    preference: Preference = Preference()
    """The student's loss; its form `paper` with `push` 0 leaves the worse side out."""
    critic: Denoise = Denoise()
    """The loss of both critics, each on its own side."""
    critic_updates: int = 1
    """Updates of the critics per update of the student."""
    sample_steps: int = 8
    """Steps of the student's sampler."""
    sample_guidance: float = 3.5
    """w of the scan in sampling."""
    student_optimiser: Optimiser = Optimiser(lr=1e-5, clip=0.05)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The critics' optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        asked = [name for name in self.preference.needs if name != self.preference.teacher]
        return {name: RoleSpec(copy_of="teacher") for name in asked}

    def plan(self, teacher: Any) -> Plan:
        shared = {name: value for name, value in self.critic if name != "role"}
        critics = {"winner": Denoise(**shared, role="winner"), "loser": DenoiseTarget(**shared, role="loser")}
        losses = [loss for name, loss in critics.items() if name in self.preference.needs]
        updates = [Update(trajectory=self.pairs, loss=self.preference, every=self.critic_updates)]
        updates += [Update(trajectory=self.pairs, loss=loss) for loss in losses]
        optimisers = {name: self.critic_optimiser for name in ("winner", "loser")}
        phases = one_phase(updates, self.steps, {**optimisers, "student": self.student_optimiser})
        sampler = Completed(steps=self.sample_steps, solver=self.pairs.solver, guidance=self.sample_guidance)
        return Plan(phases=phases, sampler=sampler)

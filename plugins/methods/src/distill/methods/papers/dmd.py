"""DMD: one-step distribution matching with a regression on stored pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.core import Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.methods.losses import Denoise, ScoreDifference
from distill.methods.pairs import MakePairs, Paired, PairRegression
from distill.methods.trajectories import Generate, sampler_at


class DMD(Method):
    """One-step Diffusion with Distribution Matching Distillation (Yin et al. 2023, arXiv:2311.18828).

    Student first, then the critic on the same samples, one to one. Guidance belongs to the teacher alone: in
    `score` and, baked in, in the pairs.
    """

    time: float = 1.0
    """The student's only input time."""
    score: ScoreDifference = ScoreDifference()
    """Distribution matching: levels, guidance, normalisation."""
    critic: Denoise = Denoise()
    """The teacher's own training loss, on the student's samples."""
    pairs: int = 1024
    """Stored noise and end-point pairs; 0 leaves the regression out."""
    pair_sampler: Sampler | None = None
    """How the teacher makes the pairs; its own sampler if None."""
    store: Path | None = None
    """Folder of the pairs, which runs may share; one in the run's folder if None."""
    join_pairs: bool = True
    """The score difference and the critic see the answers to stored noises too."""
    regression: PairRegression = PairRegression()
    """Discrepancy and weight of the pairs."""
    student_optimiser: Optimiser = Optimiser(lr=5e-5, weight_decay=0.01, clip=10)
    """The student's optimiser."""
    critic_optimiser: Optimiser = Optimiser(lr=5e-5, weight_decay=0.01, clip=10)
    """The critic's optimiser, of the same rate."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(copy_of="teacher"), "critic": RoleSpec(copy_of="teacher")}

    def plan(self, teacher: Any) -> Plan:
        generate = Generate(times=(self.time,))
        events = Paired(generate=generate, joined=self.join_pairs) if self.pairs else generate
        losses = (self.score, self.regression, self.critic) if self.pairs else (self.score, self.critic)
        train = Phase(
            steps=self.steps,
            updates=tuple(Update(trajectory=events, loss=loss) for loss in losses),
            optimisers={"student": self.student_optimiser, "critic": self.critic_optimiser},
        )
        made = MakePairs(count=self.pairs, sampler=self.pair_sampler or teacher, store=self.store)
        make = Phase(name="pairs", fit=made)
        return Plan(phases=(make, train) if self.pairs else (train,), sampler=sampler_at((self.time,)))

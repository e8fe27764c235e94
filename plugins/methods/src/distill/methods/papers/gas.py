"""GAS: a solver learnt from pairs, with gradient through the network, and against a discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.core import EMA, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Update
from distill.methods.learned_solver import LearnedSolver, SolverRoute, WriteDown
from distill.methods.losses import MatchState, RelativisticDiscriminator, RelativisticGenerator
from distill.methods.networks import FeatureHeads
from distill.methods.pairs import MakePairs


class GAS(Method):
    """Generalized Adversarial Solver (Oganov et al. 2025, arXiv:2510.17699); GS without its discriminator.

    The network stays as it is. Discriminator and solver step on one set of events, the discriminator first; it looks
    at the teacher's features of clean states where the paper has a network of its own.
    """

    solver: LearnedSolver = LearnedSolver()
    """Steps, times at the start."""
    pairs: int = 5000
    """Stored noise and end-point pairs, 1400 without a discriminator."""
    pair_sampler: Sampler | None = None
    """How the teacher makes the pairs; its own sampler if None."""
    store: Path | None = None
    """Folder of the pairs, which runs may share; one in the run's folder if None."""
    match: MatchState = MatchState(role="solver", target="end", metric="l1")
    """Ends against the teacher's; a modality's perceptual distance takes its place where there is one."""
    adversarial: RelativisticGenerator = RelativisticGenerator(
        role="solver", features="teacher", times=None, weight=0.1
    )
    """The solver's side of the GAN; a weight of 0 leaves it out."""
    discriminator: RelativisticDiscriminator = RelativisticDiscriminator(features="teacher", times=None)
    """The discriminator's side."""
    heads: FeatureHeads = FeatureHeads(features="teacher")
    """The discriminator."""
    decay: float = 0.999
    """Decay of the average of the solver, which is then the result."""
    optimiser: Optimiser = Optimiser(lr=1e-3, clip=1)
    """The solver's optimiser."""
    heads_optimiser: Optimiser = Optimiser(lr=1e-5)
    """The discriminator's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        roles = {
            "student": RoleSpec(shares="teacher", frozen=True),
            "solver": RoleSpec(build=self.solver),
            "solver_ema": RoleSpec(copy_of="solver", frozen=True),
        }
        return roles | ({"discriminator": RoleSpec(build=self.heads)} if self.adversarial.weight else {})

    def plan(self, teacher: Any) -> Plan:
        route = SolverRoute(guidance=teacher.guidance, fresh=bool(self.adversarial.weight))
        losses = [self.discriminator, self.match, self.adversarial] if self.adversarial.weight else [self.match]
        made = MakePairs(count=self.pairs, sampler=self.pair_sampler or teacher, store=self.store)
        make = Phase(name="pairs", fit=made)
        train = Phase(
            steps=self.steps,
            updates=tuple(Update(trajectory=route, loss=loss) for loss in losses),
            optimisers={"solver": self.optimiser, "discriminator": self.heads_optimiser},
            actions=(EMA(source="solver", target="solver_ema", decay=self.decay),),
        )
        write = Phase(name="write", fit=WriteDown(solver="solver_ema"))
        return Plan(phases=(make, train, write), sampler=teacher)

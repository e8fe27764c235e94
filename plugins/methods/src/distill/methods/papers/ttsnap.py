"""TTSnap: most noises are given up early, by judges that were taught to look through the noise."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from distill.core import Copy, Optimiser, Phase, Plan, RoleSpec, Update
from distill.methods.foresight import Foresight, RecordRoutes, ScoreAhead
from distill.methods.samplers import Inference, Pruned


class TTSnap(Inference):
    """Test-Time Scaling of Diffusion Models via Noise-Aware Pruning (Yu et al. 2025, arXiv:2511.22242).

    The student's network stays as it is; copies of the role `oracle` learn, the latest moment first, and each begins
    where the one before it ended.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "which oracle judges is the recipe's to say"}
    at: tuple[int, ...] = (2, 6, 11)
    """Numbers of steps after which noises are given up."""
    keep: tuple[float, ...] = (0.4, 0.4, 0.5)
    """Shares that are kept then."""
    budget: float = 2000.0
    """What a sample may cost, in the units of the two costs."""
    denoise_cost: float = 9.9
    """Cost of a step (TFLOP of Flux in the paper)."""
    score_cost: float = 1.2
    """Cost of a score, decoding included."""
    routes: int = 5000
    """Roll-outs on which the judges learn."""
    store: Path | None = None
    """Folder of the roll-outs, which runs may share; one in the run's folder if None."""
    optimiser: Optimiser = Optimiser(lr=3e-6, schedule="linear")
    """Of each judge."""

    def roles(self) -> dict[str, RoleSpec]:
        return super().roles() | {f"oracle-{n}": RoleSpec(copy_of="oracle") for n in self.at}

    def cost(self, steps: int) -> float:
        """What one candidate costs on average: `Σ_i A_i (Δs_i x + y)`, A_i the share of them that is left."""
        share, total = 1.0, 0.0
        for (first, last), kept in zip(pairwise((0, *self.at, steps)), (*self.keep, 1.0), strict=True):
            total += share * ((last - first) * self.denoise_cost + self.score_cost)
            share *= kept
        return total

    def plan(self, teacher: Any) -> Plan:
        route, latest = self.student or teacher, self.at[::-1]
        following = dict(zip(latest, latest[1:], strict=False))
        record = Phase(name="routes", fit=RecordRoutes(count=self.routes, at=self.at, route=route, store=self.store))
        phases = [self._phase(n, following.get(n)) for n in latest]
        candidates = max(1, round(self.budget / self.cost(route.steps)))
        sampler = Pruned(**dict(route), candidates=candidates, at=self.at, keep=self.keep)
        return Plan(phases=(record, *phases), sampler=sampler)

    def _phase(self, n: int, before: int | None) -> Phase:
        """One judge learns; the next one, of an earlier moment, goes on from it."""
        judge = f"oracle-{n}"
        return Phase(
            name=f"after {n}", steps=self.steps // len(self.at),
            updates=(Update(trajectory=Foresight(after=n), loss=ScoreAhead(role=judge)),),
            optimisers={judge: self.optimiser},
            at_end=(Copy(source=judge, target=f"oracle-{before}"),) if before else (),
        )  # fmt: skip

"""SFD: a few Euler steps learn to land on the teacher's route, one optimiser step for each."""

from __future__ import annotations

from typing import Any, Literal

from distill.core import Context, Event, Loss, Method, Optimiser, Plan, RoleSpec, Sampler, Terms, Update, tree
from distill.core.plan import one_phase
from distill.core.sampling import DDIM, DPM, Grid, Solver
from distill.methods.losses import DISTANCES
from distill.methods.teacher_paths import TeacherRoute
from distill.methods.transforms import ScalarInput


class RouteMatch(Loss):
    """Error of a roll-out's next state, summed over each sample's values."""

    metric: Literal["l1", "l2"] = "l1"
    """Discrepancy of a value."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        error = tree.tree_map(DISTANCES[self.metric], event.x, event.targets["x"])
        return {self.metric: tree.per_sample(error)[0]}


class SFD(Method):
    """Simple and Fast Distillation of Diffusion Models (Zhou et al. 2024, arXiv:2409.19681). Needs no data.

    With several `counts` it is SFD-v, one student for all of them with the number of steps as an input. The
    second stage to one call is the same method with the few-step student as its teacher: refine 3, the solver
    ddim, ten times the rate.
    """

    counts: tuple[int, ...] = (3,)
    """Steps of the student's sampler; the first is free, so each costs a call less."""
    refine: int = 4
    """The teacher's steps in one of the student's."""
    solver: Solver = DPM(order=3)
    """How the teacher moves."""
    grid: Grid = Grid(spacing="karras", low=0.006)
    """The student's times."""
    free_first: bool = True
    """First step along x/√(1+t²), without a call."""
    metric: Literal["l1", "l2"] = "l1"
    """Discrepancy of a step's end from the route."""
    lr: float = 5e-5
    """Learning rate; a tenth of it from half time on."""

    def roles(self) -> dict[str, RoleSpec]:
        count = (ScalarInput(scalar="steps", scale=1 / max(self.counts)),) if len(self.counts) > 1 else ()
        return {"student": RoleSpec(copy_of="teacher", transforms=count)}

    def plan(self, teacher: Any) -> Plan:
        variable = len(self.counts) > 1
        route = TeacherRoute(
            steps=self.counts, grid=self.grid, refine=self.refine, solver=self.solver,
            free_first=self.free_first, count="steps" if variable else "",
        )  # fmt: skip
        steps = self.counts[0]
        sampler = Sampler(
            steps=steps, grid=self.grid, solver=DDIM(), free_first=self.free_first,
            guidance=teacher.guidance, scalars={"steps": float(steps)} if variable else {},
        )  # fmt: skip
        optimisers = {"student": Optimiser(lr=self.lr, schedule="tenth")}
        update = Update(trajectory=route, loss=RouteMatch(metric=self.metric))
        return Plan(phases=one_phase([update], self.steps, optimisers), sampler=sampler)

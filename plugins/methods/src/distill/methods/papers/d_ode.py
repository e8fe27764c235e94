"""D-ODE: one number a step, in closed form, makes a coarse solver follow the fine one."""

from __future__ import annotations

from typing import Any

from distill.core import Batch, Context, Fit, Method, Phase, Plan, RoleSpec, Sampler, tree
from distill.core.errors import RecipeError
from distill.core.sampling import DDIM, DPM, Corrected, Move


class FitCorrections(Fit):
    """Least squares, step by step: the λ_k for which the corrected state comes nearest to the fine route's.

    With B_k the share of the prediction in the step, `λ_k = ⟨e, y − x'⟩ / ⟨e, e⟩` along `e = B_k (D_k −
    D_{k−1})`, summed in double precision over the batch; the next step starts from the corrected state (Kim
    et al. 2023, arXiv:2309.16421).
    """

    refine: int = 10
    """C, steps of the fine route in one of the student's."""

    def fit(self, batch: Batch, ctx: Context, sampler: Sampler) -> Sampler:
        """The sampler with its solver corrected for its grid, guidance and network."""
        if not isinstance(sampler.solver, DDIM | DPM) or sampler.times or sampler.grid.end is not None:
            raise RecipeError(
                "d-ode corrects the solvers ddim and dpm, on a grid that can be refined: no 'times', no 'end'"
            )
        role, noise = ctx.roles["student"], batch.noise(ctx.rng, "fit/noise")
        fine = sampler.model_copy(update={"steps": sampler.steps * self.refine})
        route = [move.next for move in fine.walk(role, noise, batch.cond)][self.refine - 1 :: self.refine]
        walk, times = sampler.walk(role, noise, batch.cond), sampler.grid_for(role.denoiser.path)
        factors: list[float] = []
        before = state = None
        for n, target in enumerate(route):
            move = walk.send(state)
            pull = sampler.solver.weights(role.denoiser.path, times, n).pulls[0]
            factor, state = self.correct(move, before, pull, target)
            factors.append(factor)
            before = move.prediction.x0
        return sampler.model_copy(update={"solver": Corrected(base=sampler.solver, factors=tuple(factors))})

    def correct(self, move: Move, before: Any, pull: float, target: Any) -> tuple[float, Any]:
        """λ of one step and the state that it leads to; the first step has no prediction before it."""
        if before is None:
            return 0.0, move.next
        change = tree.combine((pull, move.prediction.x0), (-pull, before))
        missing = tree.combine((1.0, target), (-1.0, move.next))
        factor = dot(change, missing) / max(dot(change, change), 1e-30)
        return factor, tree.combine((1.0, move.next), (factor, change))


def dot(a: Any, b: Any) -> float:
    """Inner product over all samples, in double precision."""
    return float(tree.per_sample(tree.tree_map(lambda u, v: u.double() * v.double(), a, b))[0].sum())


class DODE(Method):
    """Distilling ODE Solvers of Diffusion Models into Smaller Steps (Kim et al. 2023, arXiv:2309.16421).

    The network stays as it is; what is distilled is the solver, for one network, grid and guidance. Needs no
    data but the conditions of one batch.
    """

    sampler: Sampler | None = None
    """The solver and grid to correct; the teacher's own if None."""
    refine: int = 10
    """C, steps of the fine route in one of the student's."""

    def roles(self) -> dict[str, RoleSpec]:
        return {"student": RoleSpec(shares="teacher", frozen=True)}

    def plan(self, teacher: Any) -> Plan:
        fit = Phase(name="fit", fit=FitCorrections(refine=self.refine))
        return Plan(phases=(fit,), sampler=self.sampler or teacher)
